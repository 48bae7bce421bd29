#!/usr/bin/env bash
# Deletes the pod, after asking: its hosts' disks go with it, the bucket stays.
#
#   bash launch/tpu/delete.sh pod
#   bash launch/tpu/delete.sh pod --yes                     without asking
#   DRY_RUN=1 bash launch/tpu/delete.sh pod                 prints the command
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

if [[ "${1:-}" != pod ]] || [[ "${2:---yes}" != --yes ]]; then
  usage
fi
need_gcloud
if [[ "$DRY_RUN" != 1 ]]; then
  state="$(queue_state)"
  if [[ "$state" == NONE ]]; then
    say "there is no $TPU_NAME in $ZONE"
    exit 0
  fi
  if [[ "${2:-}" != --yes ]]; then
    confirm "delete $TPU_NAME ($state, $ZONE) with its disks" "$TPU_NAME"
  fi
fi
delete_pod
say "$TPU_NAME is deleted"
