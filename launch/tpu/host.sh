#!/usr/bin/env bash
# What happens on a host of the pod. The other scripts of this folder call it there by ssh.
#
#   bash launch/tpu/host.sh install            Python, tmux and the locked packages
#   bash launch/tpu/host.sh start COMMAND …    main's, in a tmux session; refused while one is
#   bash launch/tpu/host.sh ensure COMMAND …   likewise, but left alone while one is
#   bash launch/tpu/host.sh status             HOST running | done | ended N | cut-off | none
#   bash launch/tpu/host.sh log [-f]           of the last start
#   bash launch/tpu/host.sh stop               SIGTERM: the run saves itself and ends
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export VENV="${VENV:-$HOME/mem1-venv}"  # beside the checkout, which is replaced
source launch/env.sh

STATE="$HOME/mem1-state"  # log, the worker's process id and, when it has ended, its status
SESSION=mem1

session() {  # SUBCOMMAND of tmux, on a server of our own
  tmux -L mem1 "$@"
}

is_running() {
  session has-session -t "=$SESSION" 2>/dev/null
}

install_on_host() {
  if ! command -v tmux > /dev/null; then
    say 'installing tmux'
    run sudo apt-get update -q
    run sudo apt-get install -y -q tmux
  fi
  if [[ -z "${PYTHON:-}" && ! -x "$VENV/bin/python" ]]; then
    if command -v "python$TPU_PYTHON" > /dev/null; then
      PYTHON="python$TPU_PYTHON"
    else  # images have 3.10, which jax no longer runs on
      say "fetching Python $TPU_PYTHON"
      run python3 -m pip install --user --quiet uv
      run python3 -m uv python install --quiet "$TPU_PYTHON"
      PYTHON="$(python3 -m uv python find "$TPU_PYTHON")"
    fi
    export PYTHON
  fi
  bash launch/install.sh tpu
}

start() {  # COMMAND …
  [[ -x "$VENV/bin/python" ]] || die "$VENV is not there: bash launch/tpu/setup.sh pod"
  mkdir -p "$STATE"
  rm -f "$STATE/status"
  date '+%F %T' > "$STATE/started"
  # Variables are exported: tmux starts a server of its own, which hands them on.
  export WORKDIR RETRIEVER RETRIEVER_PORT RETRIEVER_ARGS RETRIEVER_WAIT_S MAX_RESTARTS
  export RESTART_DELAY_S RESUME
  session new-session -d -s "$SESSION" bash launch/tpu/host.sh inside "$@"
  say "$(hostname): started"
}

inside() {  # COMMAND …, within the session
  local worker status=0
  if [[ -f "$HOME/mem1.env" ]]; then
    set -a
    # shellcheck disable=SC1091
    source "$HOME/mem1.env"
    set +a
  fi
  MEM1_COMMIT="$(< "$STATE/commit")"  # a copy has no git to ask
  export MEM1_COMMIT
  exec >> "$STATE/log" 2>&1
  printf '\n=== %s, commit %.10s: %s\n' "$(< "$STATE/started")" "$MEM1_COMMIT" "$*"
  trap '' HUP
  bash launch/worker.sh "$WORKDIR" -- "$VENV/bin/python" -m mem1_jax.main "$@" &
  worker=$!
  echo "$worker" > "$STATE/pid"
  wait "$worker" || status=$?
  echo "$status" > "$STATE/status"
}

status() {
  local state last=''
  if is_running; then
    state=running
  elif [[ -f "$STATE/status" ]]; then
    state="ended $(< "$STATE/status")"
    if [[ "$state" == 'ended 0' ]]; then state='done'; fi
  elif [[ -f "$STATE/started" ]]; then
    state='cut-off'  # the host was started anew, say
  else
    state=none
  fi
  if [[ -f "$STATE/log" ]]; then
    last="$(tail -c 400 "$STATE/log" | tr '\r' '\n' | awk 'NF {line = $0} END {print line}')"
  fi
  echo "$(hostname) $state${last:+ | $last}"
}

stop() {
  local waited
  if ! is_running; then
    say "$(hostname): nothing runs"
    return
  fi
  kill -TERM "$(< "$STATE/pid")" 2>/dev/null || true
  for (( waited = 0; waited < 120; waited++ )); do
    if ! is_running; then
      say "$(hostname): stopped, status $(< "$STATE/status")"
      return
    fi
    sleep 1
  done
  die "$(hostname): still saving after 120 s; ask again"
}

case "${1:-}" in
  install) install_on_host ;;
  start)
    if is_running; then
      die "$(hostname): a run is under way since $(< "$STATE/started"); bash launch/tpu/stop.sh" \
        'pod saves and ends it'
    fi
    start "${@:2}" ;;
  ensure) is_running || start "${@:2}" ;;
  inside) inside "${@:2}" ;;
  status) status ;;
  log) tail -n 50 ${2:+"$2"} "$STATE/log" ;;
  stop) stop ;;
  *) usage ;;
esac
