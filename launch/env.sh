# shellcheck shell=bash
# Names and versions that the launch scripts share. Sourced from the repository root.
#
# Override from outside: VENV (folder of the environment; two Pythons must not share one),
# PYTHON (interpreter that makes it), DRY_RUN=1 (print commands instead of running them).

VENV="${VENV:-.venv}"
DRY_RUN="${DRY_RUN:-0}"
LIBTPU="$VENV/libtpu"  # not among the packages: jax would look for a TPU at every start
[[ "$LIBTPU" == /* ]] || LIBTPU="$PWD/$LIBTPU"
SUPPORTED_PYTHONS=(3.11 3.12 3.13)

requirements_file() {  # PYTHON_VERSION, as 3.11
  echo "launch/requirements-cpu-py${1/./}.txt"
}

say() {
  printf '[mem1] %s\n' "$*" >&2
}

die() {
  printf '[mem1] error: %s\n' "$*" >&2
  exit 1
}

usage() {  # prints the comment that heads the calling script
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

run() {
  if [[ "$DRY_RUN" == 1 ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

python_version() {  # COMMAND -> 3.11, or nothing when the command does not run
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

is_supported() {  # PYTHON_VERSION
  local version
  for version in "${SUPPORTED_PYTHONS[@]}"; do
    if [[ "$1" == "$version" ]]; then return 0; fi
  done
  return 1
}

find_python() {  # prints a Python that can make the environment: $PYTHON, or the first that fits
  local candidate
  if [[ -n "${PYTHON:-}" ]]; then
    is_supported "$(python_version "$PYTHON")" \
      || die "PYTHON=$PYTHON is not a Python of ${SUPPORTED_PYTHONS[*]} (it says" \
        "'$(python_version "$PYTHON")'); name another, or unset PYTHON to have one looked for"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 "${SUPPORTED_PYTHONS[@]/#/python}" python; do
    if is_supported "$(python_version "$candidate")"; then
      echo "$candidate"
      return
    fi
  done
  die "no Python of ${SUPPORTED_PYTHONS[*]} on PATH; install one (Debian and Ubuntu: apt install" \
    "python3 python3-venv; macOS: brew install python@3.12) or name it: PYTHON=/path/to/python3.11"
}

pip_install() {  # ARGUMENTS of pip install; one short line of progress instead of hundreds
  if [[ "$DRY_RUN" == 1 ]]; then
    run "$VENV/bin/python" -m pip install "$@"
    return
  fi
  local rewind=0
  if [[ -t 2 ]]; then rewind=1; fi
  # pip's errors and warnings go to standard error as they are; its exit status is kept (pipefail).
  PYTHONUNBUFFERED=1 "$VENV/bin/python" -m pip install --disable-pip-version-check \
    --progress-bar off "$@" | awk -v rewind="$rewind" '
      function show(text) {
        if (rewind) printf "\r\033[K[mem1]   %s", text > "/dev/stderr"
        else printf "[mem1]   %s\n", text > "/dev/stderr"
        fflush("/dev/stderr")
      }
      /^Collecting / { n++; if (rewind || n % 25 == 0) show("fetching package " n ": " $2) }
      /^Installing collected packages: / { show("unpacking: " NF - 3 " in all") }
      END { if (rewind) printf "\r\033[K" > "/dev/stderr" }'
}

install_libtpu() {  # the TPU compiler that jax names, into $LIBTPU; it is for Linux on x86-64 only
  local requirement
  if [[ "$(uname -sm)" != 'Linux x86_64' || -d "$LIBTPU" ]]; then return; fi
  # shellcheck disable=SC2016
  requirement="$("$VENV/bin/python" -c 'import importlib.metadata as m
print(next(r for r in m.requires("jax") if r.startswith("libtpu")).partition(";")[0])' \
    2>/dev/null || true)"
  say 'the TPU compiler, for tests that compile for TPUs (210 MB)'
  pip_install --no-deps --target "$LIBTPU" "${requirement:-libtpu}"
}
