#!/usr/bin/env bash
# Ends the run and deletes its pods and logs, after asking; the bucket stays. So do node pools that
# do not scale down by themselves, which cost: docs/pods.md.
#
#   bash launch/gke/delete.sh job
#   bash launch/gke/delete.sh job --yes                     without asking
#   DRY_RUN=1 bash launch/gke/delete.sh job                 prints the command
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/gke/job.sh

if [[ "${1:-}" != job ]] || [[ "${2:---yes}" != --yes ]]; then
  usage
fi
if [[ "$DRY_RUN" != 1 && "${2:-}" != --yes ]]; then
  confirm "end $RUN_NAME and delete its pods" "$RUN_NAME"
fi
on_cluster delete jobset "$RUN_NAME" --ignore-not-found
