#!/usr/bin/env bash
# Puts this checkout's commit and the locked packages on every host of the pod. What is there
# already stays as it is. Variables that runs need (HF_TOKEN, WANDB_API_KEY) go into ~/mem1.env of
# the hosts, NAME=VALUE lines: docs/pods.md.
#
#   bash launch/tpu/setup.sh pod
#   COMMIT=v1 bash launch/tpu/setup.sh pod                  another commit
#   REPO=https://… bash launch/tpu/setup.sh pod             hosts clone instead of getting a copy
#   DRY_RUN=1 bash launch/tpu/setup.sh pod                  prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

expect_pod "$@"
need_gcloud
commit="$(find_commit)"
if [[ "$COMMIT" == HEAD && -n "$(git status --porcelain --untracked-files=no)" ]]; then
  say 'changes that are not committed stay here'
fi

is_everywhere() {  # whether all hosts have the commit
  local answer
  if [[ "$DRY_RUN" == 1 ]]; then return 1; fi
  answer="$(on_workers all 'cat mem1-state/commit 2>/dev/null || echo none')" \
    || die "no answer from the hosts of $TPU_NAME; is it ACTIVE? bash launch/tpu/status.sh pod"
  ! grep -qvxF "$commit" <<< "$answer"
}

if is_everywhere; then
  say "1/2 all hosts have ${commit:0:10}"
elif [[ -n "$REPO" ]]; then
  say "1/2 cloning ${commit:0:10} of $REPO"
  printf -v clone 'test -d mem1/.git || git clone --quiet %q mem1; cd mem1' "$REPO"
  on_workers all "set -e; $clone; git fetch --quiet origin; git checkout --quiet --force $commit; \
mkdir -p ../mem1-state; echo $commit > ../mem1-state/commit"
else
  archive="${TMPDIR:-/tmp}/mem1-${commit:0:10}.tar.gz"
  say "1/2 copying ${commit:0:10}"
  run git archive --format=tar.gz --output="$archive" "$commit"
  run gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:mem1.tar.gz" --worker=all \
    "${pod_flags[@]}" --quiet
  run rm -f "$archive"
  # Files that the commit no longer has go; run folders stay.
  on_workers all "set -e; mkdir -p mem1 mem1-state; rm -f mem1-state/commit; \
find mem1 -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {} +; \
tar -xzf mem1.tar.gz -C mem1; rm mem1.tar.gz; echo $commit > mem1-state/commit"
fi
say '2/2 installing the locked packages (a few minutes the first time)'
on_workers all "$(on_host install)"
say "$TPU_NAME is ready: bash launch/tpu/run.sh train --config=NAME"
