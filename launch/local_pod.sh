#!/usr/bin/env bash
# A pod on this machine: N processes that train together on its CPU, each started by launch/worker.sh
# as on a host of a TPU pod. When one dies the others cannot go on: all are stopped and started again
# with --resume, until the run is done.
#
#   bash launch/local_pod.sh 2 -- train --workdir=runs/pod --config.mesh.data=-1
#   DRY_RUN=1 bash launch/local_pod.sh …           prints the commands
#
# What process I says is in WORKDIR/worker-I.log. After MAX_RESTARTS (5) without a new checkpoint in
# between it gives up. SIGTERM is passed on: the run saves itself, and the status is 75.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

if (( $# < 3 )) || [[ ! "$1" =~ ^[1-9][0-9]*$ || "$2" != -- ]]; then
  usage
fi
count="$1"
command=("$VENV/bin/python" -m mem1_jax.main "${@:3}")
workdir=''
for argument in "${@:4}"; do
  if [[ "$argument" == --workdir=* ]]; then workdir="${argument#*=}"; fi
done
[[ -n "$workdir" ]] || die 'the run folder is missing; add --workdir=FOLDER'
restart_limit="${MAX_RESTARTS:-5}"
GRACE_S="${GRACE_S:-15}"  # that others have after the first to end, to end by themselves

free_port() {
  "${command[0]}" -c 'import socket
with socket.socket() as s:
  s.bind(("localhost", 0))
  print(s.getsockname()[1])'
}

start() {  # PORT RESUME: all processes, each in a process group of its own
  local i settings worker=(bash launch/worker.sh "$workdir" -- "${command[@]}")
  pids=()
  statuses=()
  for ((i = 0; i < count; i++)); do
    # The worker does not start anything again: that is done here, for all.
    settings=("JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}" "JAX_COORDINATOR_ADDRESS=localhost:$1"
      "JAX_NUM_PROCESSES=$count" "JAX_PROCESS_ID=$i" "RESUME=$2" MAX_RESTARTS=0 FORWARD_TERM=0)
    if [[ "$DRY_RUN" == 1 ]]; then
      run env "${settings[@]}" "${worker[@]}"
    else
      env "${settings[@]}" "${worker[@]}" >> "$workdir/worker-$i.log" 2>&1 &
      pids[i]=$!
    fi
  done
}

signal_all() {  # SIGNAL: to the groups of those that have not ended
  local i
  for i in "${!pids[@]}"; do
    if [[ -z "${statuses[i]:-}" ]]; then kill "-$1" -- "-${pids[i]}" 2> /dev/null || true; fi
  done
}

await() {  # until all have ended; the status of the first that failed, or 0
  local i first=0 deadline=0
  while (( ${#statuses[@]} < count )); do
    sleep 0.2
    for i in "${!pids[@]}"; do
      if [[ -n "${statuses[i]:-}" ]] || kill -0 "${pids[i]}" 2> /dev/null; then continue; fi
      statuses[i]=0
      wait "${pids[i]}" || statuses[i]=$?
      if (( statuses[i] && ! first )); then
        first="${statuses[i]}"
        deadline=$(( SECONDS + GRACE_S ))
        say "process $i ended with status $first, see $workdir/worker-$i.log"
      fi
    done
    if (( first && SECONDS > deadline )); then signal_all KILL; fi
  done
  return "$first"
}

checkpoints() {  # those that are whole: others have longer names
  find "$workdir/checkpoints" -mindepth 1 -maxdepth 1 -name '[0-9]*' ! -name '*[!0-9]*' \
    2> /dev/null | sort || true
}

is_stopping=0
# shellcheck disable=SC2329  # `trap` calls it
stop() {
  if (( is_stopping )); then return; fi
  is_stopping=1
  say 'stopping: the run saves itself'
  signal_all TERM
}

if [[ "$DRY_RUN" == 1 ]]; then
  start PORT "${RESUME:-0}"
  exit
fi
mkdir -p "$workdir"
trap stop TERM INT HUP
trap 'signal_all KILL' EXIT
set -m  # a group for each process: a signal reaches all that it has started

resume="${RESUME:-0}"
for ((restarts = 0; ; restarts++)); do
  saved="$(checkpoints)"
  say "$count processes; see $workdir/worker-*.log"
  start "$(free_port)" "$resume"
  if (( is_stopping )); then signal_all TERM; fi  # told just before
  status=0
  await || status=$?
  if (( status == 0 )); then
    say "done: $workdir"
    exit 0
  fi
  # Saved, killed, or ended by jax after another's death (1). What main says of bad input is 2.
  if (( is_stopping )) || ! (( status == 75 || status > 128 || (status == 1 && count > 1) )); then
    exit "$status"
  fi
  if [[ "$(checkpoints)" != "$saved" ]]; then restarts=0; fi
  if (( restarts >= restart_limit )); then
    say "$restart_limit restarts without a new checkpoint: giving up"
    exit "$status"
  fi
  say 'all are started again with --resume'
  resume=1
done
