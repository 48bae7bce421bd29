#!/usr/bin/env bash
# Makes the environment that quickstart.sh and test.sh use, or reuses it when it is up to date.
#
#   bash launch/install.sh cpu                               into .venv, with python3
#   bash launch/install.sh tpu                               on a TPU VM; cuda: with GPUs
#   PYTHON=python3.12 VENV=.venv312 bash launch/install.sh cpu
#   DRY_RUN=1 bash launch/install.sh cpu                     prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

target="${1:-}"
if [[ ! "$target" =~ ^(cpu|tpu|cuda)$ ]]; then
  usage
fi

if [[ -n "${PYTHON:-}" || ! -x "$VENV/bin/python" ]]; then
  python="$(find_python)"
else
  python="$VENV/bin/python"  # made earlier: it decides
fi
version="$(python_version "$python")"
if [[ -x "$VENV/bin/python" && "$(python_version "$VENV/bin/python")" != "$version" ]]; then
  die "$VENV was made by Python $(python_version "$VENV/bin/python"), not $version;" \
    "give this one its own folder: VENV=.venv${version/./} (or remove $VENV)"
fi
is_supported "$version" || die "$VENV is of Python $version, not ${SUPPORTED_PYTHONS[*]}; remove it"

requirements="$(requirements_file "$target" "$version")"
[[ -f "$requirements" ]] || die "no versions are locked for $target on Python $version; those" \
  "that are: $(echo launch/requirements-"$target"-py*.txt)"
stamp="$VENV/mem1-installed"
# What an up-to-date environment was made from. The path, since an editable install holds it.
wanted="$(pwd) $("$python" - "$requirements" setup.py pyproject.toml << 'PY'
import hashlib, pathlib, sys
print(hashlib.sha256(b''.join(pathlib.Path(p).read_bytes() for p in sys.argv[1:])).hexdigest())
PY
)"
if [[ -f "$stamp" && "$(< "$stamp")" == "$wanted" ]]; then
  say "environment $VENV is up to date (Python $version)"
  exit 0
fi

if [[ ! -x "$VENV/bin/python" ]]; then
  say "1/3 making $VENV with $python (Python $version)"
  run "$python" -m venv "$VENV" \
    || die "$python cannot make environments; on Debian and Ubuntu: apt install python$version-venv"
else
  say "1/3 updating $VENV (Python $version)"
  run rm -f "$stamp"
fi
say "2/3 installing the pinned packages of $requirements (900 MB and more, some minutes)"
pip_install -r "$requirements"
say '3/3 installing mem1_jax from this folder'
pip_install --no-deps -e .
if [[ "$DRY_RUN" != 1 ]]; then
  printf '%s\n' "$wanted" > "$stamp"
fi
say 'environment ready'
