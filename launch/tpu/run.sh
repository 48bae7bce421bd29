#!/usr/bin/env bash
# Starts a run on all hosts of the pod and comes back: it goes on when this machine sleeps. A run
# that was saved or killed is started again there (launch/worker.sh), not one whose TPU is taken
# away: watch.sh does that, too.
#
#   bash launch/tpu/run.sh train --config=qwen2p5_7b_2obj    what follows goes to main's command
#   RESUME=1 bash launch/tpu/run.sh train …                  continues what is in WORKDIR
#   DRY_RUN=1 bash launch/tpu/run.sh train …                 prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

if (( $# == 0 )); then
  usage
fi
need_gcloud
main_arguments "$@"
if [[ "$DRY_RUN" == 1 ]]; then
  on_workers all "$(on_host status)"
else
  states="$(host_states)" \
    || die "no answer from the hosts of $TPU_NAME: bash launch/tpu/setup.sh pod"
  if grep -q '^[^ ]* running' <<< "$states"; then
    die "a run is under way: bash launch/tpu/stop.sh pod saves and ends it
$states"
  fi
  check_workdir "$states"
  [[ "$WORKDIR" == *://* ]] || say "$WORKDIR is lost with the TPU; with BUCKET=gs://NAME it is not"
fi
on_workers all "$(on_host start "${arguments[@]}")"
say "running, results in $WORKDIR; bash launch/tpu/logs.sh 0 -f shows it"
