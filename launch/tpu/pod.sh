# shellcheck shell=bash
# What the scripts of this folder share. Sourced by them after launch/env.sh.

[[ -n "$TPU_NAME" ]] || die 'TPU_NAME is empty; name the TPU in launch/env.sh'
pod_flags=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})

expect_pod() {  # ARGUMENTS of the script: `pod` alone
  [[ $# == 1 && "$1" == pod ]] || usage
}

need_gcloud() {
  [[ "$DRY_RUN" == 1 ]] || command -v gcloud > /dev/null \
    || die 'gcloud is not on PATH; install the Google Cloud CLI and log in: gcloud auth login'
}

queue_state() {  # of the queued resource: ACTIVE, WAITING_FOR_RESOURCES, …; NONE where none is
  local answer
  if answer="$(gcloud compute tpus queued-resources describe "$TPU_NAME" "${pod_flags[@]}" \
      --format='value(state.state)' 2>&1)"; then
    echo "${answer##*$'\n'}"
  elif [[ "$answer" == *NOT_FOUND* || "$answer" == *'not found'* ]]; then
    echo NONE
  else
    die "cannot ask for the state of $TPU_NAME: $answer"
  fi
}

on_workers() {  # WORKERS (all or a number) COMMAND, run by bash in the home of each host
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --worker="$1" "${pod_flags[@]}" --quiet \
    --command="$2"
}

# What launch/env.sh says here counts on the hosts, too, committed or not.
HOST_VARIABLES=(WORKDIR RETRIEVER RETRIEVER_PORT RETRIEVER_ARGS RETRIEVER_WAIT_S MAX_RESTARTS
  RESTART_DELAY_S TPU_PYTHON)

on_host() {  # SUBCOMMAND ARGUMENTS…: the command that runs launch/tpu/host.sh there
  local name text='cd mem1 &&'
  for name in "${HOST_VARIABLES[@]}"; do
    printf -v text '%s %s=%q' "$text" "$name" "${!name}"
  done
  printf -v text '%s RESUME=%q bash launch/tpu/host.sh' "$text" "${RESUME:-0}"
  printf '%s' "$text"
  printf ' %q' "$@"
}

delete_pod() {
  run gcloud compute tpus queued-resources delete "$TPU_NAME" "${pod_flags[@]}" --force --quiet
}

find_commit() {  # the full hash of COMMIT
  if [[ -n "$REPO" && "$COMMIT" =~ ^[0-9a-f]{40}$ ]]; then  # need not be in this checkout
    echo "$COMMIT"
  else
    git rev-parse --verify --quiet "$COMMIT^{commit}" \
      || die "COMMIT=$COMMIT is not a commit of this checkout; give another"
  fi
}

main_arguments() {  # ARGUMENTS of main: sets `arguments`, with what every host needs
  case "${1:-}" in
    train | sft | evaluate) ;;
    *) die "$1 is not what a pod can run: train, sft or evaluate, with its options" ;;
  esac
  [[ " $* " != *' --workdir'* ]] || die 'the run folder is WORKDIR of launch/env.sh; no --workdir'
  # shellcheck disable=SC2034  # the caller's
  arguments=("$1" --distributed --workdir="$WORKDIR" "${@:2}")
}

host_states() {  # a line for each host: HOST STATE | LAST LINE OF ITS LOG
  on_workers all "$(on_host status)" | grep -E '^[^ ]+ (running|done|ended [0-9]+|cut-off|none)'
}

check_workdir() {  # STATES of the hosts
  if [[ "$WORKDIR" != *://* && "$WORKDIR" != /* ]] && (( $(grep -c . <<< "$1") > 1 )); then
    die "WORKDIR=$WORKDIR would be another folder on each host; set BUCKET=gs://NAME, or" \
      'WORKDIR to a folder that all of them have mounted'
  fi
}
