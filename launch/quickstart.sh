#!/usr/bin/env bash
# Installs what is missing, then trains and evaluates a constant-memory agent on the embedded
# world. Needs Python 3.11 to 3.13 with pip; the aim is 15 minutes on 2 cores after installation.
#
#   bash launch/quickstart.sh                      everything, results in runs/quickstart
#   bash launch/quickstart.sh --seed=1             arguments go to `mem1_jax.main quickstart`
#   DRY_RUN=1 bash launch/quickstart.sh            prints the commands
#   PYTHON=python3.12 VENV=.venv312 bash launch/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

bash launch/install.sh cpu
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# THE MAIN JOB: PPO from the shipped checkpoint, evaluation, report. `exec`: signals reach it.
run exec "$VENV/bin/python" -m mem1_jax.main quickstart --workdir=runs/quickstart "$@"
