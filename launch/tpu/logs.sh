#!/usr/bin/env bash
# Shows the last lines of what a host has logged; each has a log of its own.
#
#   bash launch/tpu/logs.sh 0                               of the first host
#   bash launch/tpu/logs.sh 0 -f                            and what is added, until Ctrl-C
#   bash launch/tpu/logs.sh all                             of all, one after another
#   DRY_RUN=1 bash launch/tpu/logs.sh 0                     prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

if [[ ! "${1:-}" =~ ^([0-9]+|all)$ ]] || [[ "${2:--f}" != -f ]]; then
  usage
fi
need_gcloud
on_workers "$1" "$(on_host log "${@:2}")"
