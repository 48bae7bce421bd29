#!/usr/bin/env bash
# Keeps one worker of a run going until the run is done. TPU hosts, GKE, Slurm and a pod of local
# processes all start it; what follows -- is the command, a Python first.
#
#   bash launch/worker.sh WORKDIR -- python -m mem1_jax.main train --workdir=WORKDIR --distributed
#   DRY_RUN=1 bash launch/worker.sh …                  prints the command
#
# The status that the command ends with decides:
#   0                    done: WORKDIR/done says so, and the same command is not run there again
#   75, or a signal      it was saved, or killed: started again with --resume
#   1 of one of many     another process may have died: likewise
#   anything else        an error: passed on
# After MAX_RESTARTS without a new checkpoint in between it gives up and passes the status on.
# SIGTERM is passed on once, then nothing is started again: whoever sent it starts the worker
# anew, with RESUME=1. FORWARD_TERM=0 is for those who signal the command, too (Slurm).
# RETRIEVER=each starts a search server first; RETRIEVER=URL waits for one (launch/env.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh
source launch/retriever.sh

if (( $# < 3 )) || [[ "$2" != -- ]]; then
  usage
fi
workdir="$1"
command=("${@:3}")

resume=(--resume)
is_one_of_many=0
(( ${JAX_NUM_PROCESSES:-1} == 1 )) || is_one_of_many=1
for argument in "${command[@]}"; do
  case "$argument" in
    evaluate) resume=() ;;  # has no such option
    --distributed) is_one_of_many=1 ;;
  esac
done

in_workdir() {  # NAME: the text of a file there, or the names in a folder; nothing where none is
  if [[ "$workdir" == *://* ]]; then
    "${command[0]}" - "$workdir" "$1" << 'PY' 2>/dev/null || true
import sys
from etils import epath
path = epath.Path(sys.argv[1]) / sys.argv[2]
print(*sorted(p.name for p in path.iterdir()) if path.is_dir() else [path.read_text()], sep='\n')
PY
  elif [[ -d "$workdir/$1" ]]; then
    ls "$workdir/$1"
  else
    cat "$workdir/$1" 2>/dev/null || true
  fi
}

mark_done() {
  if [[ "$workdir" == *://* ]]; then
    "${command[0]}" - "$workdir" "${command[*]}" << 'PY'
import sys
from etils import epath
(epath.Path(sys.argv[1]) / 'done').write_text(sys.argv[2] + '\n')
PY
  else
    mkdir -p "$workdir"
    printf '%s\n' "${command[*]}" > "$workdir/done"
  fi
}

checkpoints() {  # those that are whole: others have longer names
  in_workdir checkpoints | grep -E '^[0-9]+$' || true
}

may_resume() {  # STATUS
  (( $1 == 75 || ($1 > 128 && $1 <= 192) || ($1 == 1 && is_one_of_many) ))
}

child=''
is_stopping=0
is_told=0
tell() {  # SIGTERM to the command, once: the second would end it without saving
  if [[ -z "$child" ]] || (( is_told++ )); then return 0; fi
  kill -TERM "$child" 2>/dev/null || true
}

# shellcheck disable=SC2329  # `trap` calls it
stop() {
  # 0 is said: in a trap, `return` passes on the status of what it interrupted. And one command
  # both asks and counts, since another signal may come between two.
  if (( is_stopping++ )); then return 0; fi
  say 'stopping: the run saves itself'
  tell
}

run_once() {  # the command; its status
  local status=0
  if [[ "${FORWARD_TERM:-1}" != 1 ]]; then
    "$@" < /dev/null || status=$?  # in the foreground: `stop` is called when it has ended
    return "$status"
  fi
  "$@" < /dev/null &
  child=$!
  if (( is_stopping )); then tell; fi  # it came just before
  await_child "$child" || status=$?
  child=''
  return "$status"
}

if [[ "$DRY_RUN" == 1 ]]; then
  run "${command[@]}"
  exit 0
fi
if [[ "$(in_workdir 'done')" == "${command[*]}" ]]; then
  say "$workdir is done already; remove $workdir/done to run this command there again"
  exit 0
fi
trap stop TERM INT HUP
trap stop_retriever EXIT
start_retriever "${command[0]}"
command_now=("${command[@]}" ${retriever_url:+--config.env.retriever="$retriever_url"})
# Slurm and JobSet count how often they have started it.
if (( ${RESUME:-0} > 0 || ${SLURM_RESTART_COUNT:-0} > 0 || ${JOBSET_RESTART_ATTEMPT:-0} > 0 )); then
  command_now+=("${resume[@]}")
  resume=()
fi
# A group of its own: a terminal's Ctrl-C comes to the command by way of `stop`, once.
if [[ "${FORWARD_TERM:-1}" == 1 ]]; then set -m; fi

restarts=0
saved="$(checkpoints)"
while (( ! is_stopping )); do
  status=0
  run_once "${command_now[@]}" || status=$?
  if (( status == 0 )); then
    mark_done
    say "done: $workdir"
    exit 0
  fi
  if (( is_stopping )) || ! may_resume "$status"; then break; fi
  now="$(checkpoints)"
  if [[ "$now" != "$saved" ]]; then restarts=0; fi
  saved="$now"
  if (( ++restarts > MAX_RESTARTS )); then
    say "ended with status $status, $MAX_RESTARTS restarts without a new checkpoint: giving up"
    break
  fi
  command_now+=("${resume[@]}")
  resume=()
  say "ended with status $status; restart $restarts of $MAX_RESTARTS in $RESTART_DELAY_S s"
  sleep "$RESTART_DELAY_S" &
  wait $! || true
done
exit "${status:-75}"
