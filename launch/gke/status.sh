#!/usr/bin/env bash
# Shows the run and its pods, with restarts.
#
#   bash launch/gke/status.sh job
#   DRY_RUN=1 bash launch/gke/status.sh job                 prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/gke/job.sh

expect_job "$@"
on_cluster get jobset "$RUN_NAME"
on_cluster get pods --selector="$pods" -o wide
