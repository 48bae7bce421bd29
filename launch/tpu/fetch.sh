#!/usr/bin/env bash
# Copies the run folder and each host's log into a folder here; what is there is overwritten.
#
#   bash launch/tpu/fetch.sh runs/from_pod                  gets run/ and logs/HOST.log
#   DRY_RUN=1 bash launch/tpu/fetch.sh runs/from_pod        prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

if (( $# != 1 )); then
  usage
fi
need_gcloud
run mkdir -p "$1/run" "$1/logs"
if [[ "$WORKDIR" == *://* ]]; then
  run gcloud storage rsync --recursive "$WORKDIR" "$1/run"
else
  folder="$WORKDIR"
  [[ "$folder" == /* ]] || folder="mem1/$folder"
  run gcloud compute tpus tpu-vm scp --recurse "$TPU_NAME:$folder/*" "$1/run" --worker=0 \
    "${pod_flags[@]}" --quiet
fi
num_hosts=1
if [[ "$DRY_RUN" != 1 ]]; then
  states="$(host_states)" || states=''  # taken away: the logs are, too
  num_hosts="$(grep -c . <<< "$states" || true)"
fi
for (( host = 0; host < num_hosts; host++ )); do
  run gcloud compute tpus tpu-vm scp "$TPU_NAME:mem1-state/log" "$1/logs/$host.log" \
    --worker="$host" "${pod_flags[@]}" --quiet
done
say "in $1"
