# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source it use them
# Names and versions that the launch scripts share: the one file to edit. Sourced from the
# repository root. Everything that stands as NAME="${NAME:-…}" may be set from outside instead.
#
# DRY_RUN=1 prints the commands instead of running them.

DRY_RUN="${DRY_RUN:-0}"

# ── Environments ──
VENV="${VENV:-.venv}"  # folder of the environment; two Pythons must not share one
# PYTHON=…             # interpreter that makes it; unset: the first on PATH that fits
LIBTPU="$VENV/libtpu"  # not among the packages: jax would look for a TPU at every start
[[ "$LIBTPU" == /* ]] || LIBTPU="$PWD/$LIBTPU"

# ── What runs, and where its results go ──
BUCKET="${BUCKET:-}"  # gs://NAME, which all hosts see; '': a folder of the machine, for one host
RUN_NAME="${RUN_NAME:-ppo}"
WORKDIR="${WORKDIR:-${BUCKET:+$BUCKET/}runs/$RUN_NAME}"  # --workdir of what runs
REPO="${REPO:-}"  # where hosts clone from; '': the commit is copied from this checkout
COMMIT="${COMMIT:-HEAD}"  # what is not committed does not go
RETRIEVER="${RETRIEVER:-none}"  # none | each: a server on every host | http://HOST:PORT for all
RETRIEVER_PORT="${RETRIEVER_PORT:-8000}"  # of RETRIEVER=each
RETRIEVER_ARGS="${RETRIEVER_ARGS:-}"  # of its serve-retriever: --documents=… --top-k=3 …
RETRIEVER_WAIT_S="${RETRIEVER_WAIT_S:-600}"  # until it must answer; a large index takes minutes
MAX_RESTARTS="${MAX_RESTARTS:-5}"  # of a worker without a new checkpoint in between
RESTART_DELAY_S="${RESTART_DELAY_S:-10}"  # before each

# ── TPU VMs: launch/tpu/ ──
PROJECT="${PROJECT:-}"  # of Google Cloud; '': the one that gcloud is set to
ZONE="${ZONE:-us-central2-b}"  # must have the accelerator
TPU_NAME="${TPU_NAME:-mem1}"  # of the queued resource and of its TPU
TPU_TYPE="${TPU_TYPE:-v5p-64}"  # v5p counts cores, two a chip; v5litepod and v6e count chips
# v2-alpha-tpuv5 is for v5p; v5e: v2-alpha-tpuv5-lite; v6e: v2-alpha-tpuv6e
TPU_RUNTIME="${TPU_RUNTIME:-v2-alpha-tpuv5}"
TPU_CAPACITY="${TPU_CAPACITY:-spot}"  # spot: cheap, may be taken away | on-demand | reserved
TPU_PYTHON="${TPU_PYTHON:-3.12}"  # fetched where the host has none; 3.11 or 3.12 have locks
POLL_S="${POLL_S:-30}"  # between two looks at a queue, or at a run
DELETE_WHEN_DONE="${DELETE_WHEN_DONE:-0}"  # 1: watch.sh deletes the TPU when the run is done

# ── GKE: launch/gke/ ──
GKE_CLUSTER="${GKE_CLUSTER:-}"  # kubectl's context, gke_PROJECT_LOCATION_NAME; '': as it is
GKE_NAMESPACE="${GKE_NAMESPACE:-default}"
GKE_IMAGE="${GKE_IMAGE:-}"  # where `docker push` has put it: REGION-docker.pkg.dev/…/mem1:tpu
GKE_ACCELERATOR="${GKE_ACCELERATOR:-tpu-v5p-slice}"  # or tpu-v5-lite-podslice, tpu-v6e-slice
GKE_TOPOLOGY="${GKE_TOPOLOGY:-2x4x4}"  # of the slice, in chips
GKE_CHIPS_PER_HOST="${GKE_CHIPS_PER_HOST:-4}"
GKE_CAPACITY="${GKE_CAPACITY:-spot}"  # spot | on-demand
GKE_SERVICE_ACCOUNT="${GKE_SERVICE_ACCOUNT:-default}"  # of Kubernetes; may write to the bucket
GKE_SECRET="${GKE_SECRET:-mem1}"  # its entries become variables (HF_TOKEN, …), if it is there
GKE_MAX_RESTARTS="${GKE_MAX_RESTARTS:-5}"  # after failures; being taken away does not count

# ── Slurm: launch/slurm/ ──
JOB_PARTITION="${JOB_PARTITION:-}"  # '': the cluster's default; likewise below
JOB_ACCOUNT="${JOB_ACCOUNT:-}"
JOB_NODES="${JOB_NODES:-1}"
JOB_GPUS_PER_NODE="${JOB_GPUS_PER_NODE:-8}"
JOB_CPUS_PER_TASK="${JOB_CPUS_PER_TASK:-}"
JOB_MEMORY="${JOB_MEMORY:-0}"  # of a node; 0: all
JOB_TIME="${JOB_TIME:-24:00:00}"  # then the run is saved and queued again
JOB_NOTICE_S="${JOB_NOTICE_S:-120}"  # before that, SIGTERM
JOB_SWEEP_JOBS="${JOB_SWEEP_JOBS:-4}"  # points of a sweep at a time

# ── Nothing to edit below ──
SUPPORTED_PYTHONS=(3.11 3.12 3.13)

requirements_file() {  # TARGET (cpu, tpu or cuda) PYTHON_VERSION (as 3.11)
  echo "launch/requirements-$1-py${2/./}.txt"
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

confirm() {  # WHAT NAME; ends the script unless the name is typed
  local answer=''
  printf '[mem1] %s? Type %s: ' "$1" "$2" >&2
  read -r answer || true
  [[ "$answer" == "$2" ]] || die 'nothing was deleted'
}

await_child() {  # PID, of a background job; returns its status, whatever traps run meanwhile
  local status
  # A trapped signal makes `wait` return early, at times once more than there were signals.
  while true; do
    wait "$1" 2>/dev/null || true
    kill -0 "$1" 2>/dev/null || break
  done
  status=0
  wait "$1" 2>/dev/null || status=$?
  # Where job and signal end at the same moment, bash may have lost the status: as if saved.
  if (( status == -1 || status == 127 )); then status=75; fi
  return "$status"
}
