#!/usr/bin/env bash
# Shows the last lines that a host has logged since it was started.
#
#   bash launch/gke/logs.sh 0                               of the first host
#   bash launch/gke/logs.sh 0 -f                            and what is added, until Ctrl-C
#   bash launch/gke/logs.sh all                             of all, each line with its pod
#   DRY_RUN=1 bash launch/gke/logs.sh 0                     prints the command
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/gke/job.sh

if [[ ! "${1:-}" =~ ^([0-9]+|all)$ ]] || [[ "${2:--f}" != -f ]]; then
  usage
fi
if [[ "$1" == all ]]; then
  on_cluster logs --selector="$pods" --prefix --tail=50 --max-log-requests=100 "${@:2}"
else
  on_cluster logs --selector="$pods,batch.kubernetes.io/job-completion-index=$1" --tail=50 "${@:2}"
fi
