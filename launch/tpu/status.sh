#!/usr/bin/env bash
# Shows the state of the pod and, a line each, what its hosts do.
#
#   bash launch/tpu/status.sh pod
#   DRY_RUN=1 bash launch/tpu/status.sh pod                 prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

expect_pod "$@"
need_gcloud
if [[ "$DRY_RUN" == 1 ]]; then
  run gcloud compute tpus queued-resources describe "$TPU_NAME" "${pod_flags[@]}" \
    --format='value(state.state)'
  state=ACTIVE
else
  state="$(queue_state)"
  echo "$TPU_NAME $state ($TPU_TYPE, $ZONE)"
fi
if [[ "$state" == ACTIVE ]]; then
  on_workers all "$(on_host status)"
fi
