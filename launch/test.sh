#!/usr/bin/env bash
# Makes or reuses the environment, then runs the default tests: CPU, no network, no slow ones.
# The TPU compiler is put beside the environment, since some compile for TPUs that are not there.
#
#   bash launch/test.sh                            the default tests
#   bash launch/test.sh tests/report -k table      arguments go to pytest
#   PYTHON=python3.12 VENV=.venv312 bash launch/test.sh
#   DRY_RUN=1 bash launch/test.sh                  prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

bash launch/install.sh cpu
install_libtpu
export PYTHONPATH="$LIBTPU${PYTHONPATH:+:$PYTHONPATH}"
# Files of tests side by side: most of the time goes into compilation, which uses one core.
run "$VENV/bin/python" -m pytest -q -n 2 --dist loadfile -m 'not slow and not tpu_aot and not gpu' "$@"
