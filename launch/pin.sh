#!/usr/bin/env bash
# Writes launch/requirements-*-py3*.txt: the newest versions that setup.py allows, with all that
# they need in turn. One jax minor version per Python, so that tests meet all three; on TPUs and
# GPUs the same jax, with the compiler or the CUDA libraries that it names.
#
#   bash launch/pin.sh all         needs `uv` on PATH; DRY_RUN=1 prints the commands
#   bash launch/pin.sh tpu         or cpu, or cuda, alone; the others stay
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

if [[ ! "${1:-}" =~ ^(all|cpu|tpu|cuda)$ ]]; then
  usage
fi
chosen="$1"

pin() {  # TARGET PYTHON_VERSION JAX_RANGE EXTRA…
  local file constraint platform=x86_64-unknown-linux-gnu extras=("${@:4}")
  if [[ "$chosen" != all && "$chosen" != "$1" ]]; then return; fi
  file="$(requirements_file "$1" "$2")"
  constraint="$(mktemp)"
  echo "jax$3" > "$constraint"
  if [[ "$1" != cpu ]]; then  # what the tests run with is what trains elsewhere
    platform=x86_64-manylinux_2_31  # libtpu wants that glibc: Ubuntu 20.04, Debian 11 or later
    sed 's/ *;.*//' "$(requirements_file cpu "$2")" >> "$constraint"
  fi
  run uv pip compile setup.py "${extras[@]/#/--extra=}" --python-version "$2" \
    --python-platform "$platform" --constraint "$constraint" \
    --no-annotate --no-header --quiet --upgrade --output-file "$file"
  rm -f "$constraint"
  if [[ "$DRY_RUN" == 1 ]]; then return; fi
  # tensorflow-cpu has wheels for Linux on x86-64 only; elsewhere tensorflow is the same library.
  sed -i -E "s/^tensorflow-cpu==(.*)/\
tensorflow-cpu==\1 ; platform_machine == 'x86_64' and sys_platform == 'linux'\n\
tensorflow==\1 ; platform_machine != 'x86_64' or sys_platform != 'linux'/" "$file"
}

everywhere=(tf retriever webshop web gguf gcs)  # what runs on hosts may need
pin cpu 3.11 '>=0.10,<0.11' tf test
pin cpu 3.12 '>=0.11,<0.12' tf test
pin cpu 3.13 '>=0.12,<0.13' tf test
pin tpu 3.11 '>=0.10,<0.11' tpu "${everywhere[@]}"
pin tpu 3.12 '>=0.11,<0.12' tpu "${everywhere[@]}"
pin cuda 3.12 '>=0.11,<0.12' cuda "${everywhere[@]}"
