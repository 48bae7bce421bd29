#!/usr/bin/env bash
# Writes launch/requirements-cpu-py3*.txt: the newest versions that setup.py allows, with all
# that they need in turn. One jax minor version per Python, so that tests meet all three.
#
#   bash launch/pin.sh all         needs `uv` on PATH; DRY_RUN=1 prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

if [[ "${1:-}" != all ]]; then
  usage
fi

pin() {  # PYTHON_VERSION JAX_RANGE
  local file constraint
  file="$(requirements_file "$1")"
  constraint="$(mktemp)"
  echo "jax$2" > "$constraint"
  run uv pip compile setup.py --extra tf --extra test --python-version "$1" \
    --python-platform x86_64-unknown-linux-gnu --constraint "$constraint" \
    --no-annotate --no-header --quiet --upgrade --output-file "$file"
  rm -f "$constraint"
  if [[ "${DRY_RUN:-0}" == 1 ]]; then return; fi
  # tensorflow-cpu has wheels for Linux on x86-64 only; elsewhere tensorflow is the same library.
  sed -i -E "s/^tensorflow-cpu==(.*)/\
tensorflow-cpu==\1 ; platform_machine == 'x86_64' and sys_platform == 'linux'\n\
tensorflow==\1 ; platform_machine != 'x86_64' or sys_platform != 'linux'/" "$file"
}

pin 3.11 '>=0.10,<0.11'
pin 3.12 '>=0.11,<0.12'
pin 3.13 '>=0.12,<0.13'
