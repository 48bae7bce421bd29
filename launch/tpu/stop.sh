#!/usr/bin/env bash
# Saves the run that is under way and ends it; the TPU stays, and costs. RESUME=1 run.sh goes on.
#
#   bash launch/tpu/stop.sh pod
#   DRY_RUN=1 bash launch/tpu/stop.sh pod                   prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

expect_pod "$@"
need_gcloud
on_workers all "$(on_host stop)"
