# shellcheck shell=bash
# The search server of a worker, as RETRIEVER in launch/env.sh says. Sourced by launch/worker.sh.

retriever_url=''
retriever_pid=''

is_up() {  # PYTHON URL; a server without /health, as Search-R1's own, says so and is up, too
  "$1" - "$2/health" << 'PY'
import sys
import urllib.error
import urllib.request
try:
  urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
  sys.exit(error.code >= 500)
except OSError:
  sys.exit(1)
PY
}

serve() {  # PYTHON; a server that dies is started again, one with bad arguments is not
  local arguments=() server='' status
  read -ra arguments <<< "$RETRIEVER_ARGS"
  trap 'kill "$server" 2>/dev/null; exit 0' TERM
  trap '' INT HUP  # worker.sh says when
  while true; do
    # On the CPU: the accelerators are the run's.
    JAX_PLATFORMS=cpu "$1" -m mem1_jax.main serve-retriever --port="$RETRIEVER_PORT" \
      "${arguments[@]}" < /dev/null &
    server=$!
    status=0
    wait "$server" || status=$?
    if (( status == 2 )); then return 2; fi
    say "the search server ended with status $status and is started again"
    sleep 5 &
    server=$!
    wait "$server" || true
  done
}

start_retriever() {  # PYTHON; sets retriever_url, '' where searches stay in the process
  local url begun=$SECONDS
  case "$RETRIEVER" in
    none) return ;;
    each)
      retriever_url="http://127.0.0.1:$RETRIEVER_PORT"
      if is_up "$1" "$retriever_url"; then
        say "a search server answers at $retriever_url already"
        return
      fi
      serve "$1" &
      retriever_pid=$! ;;
    http://* | https://*) retriever_url="$RETRIEVER" ;;
    *) die "RETRIEVER=$RETRIEVER is neither none nor each nor a URL (http://HOST:PORT)" ;;
  esac
  for url in ${retriever_url//,/ }; do
    say "waiting for the search server at $url"
    until is_up "$1" "$url"; do
      if (( ${is_stopping:-0} )); then exit 75; fi  # worker.sh had SIGTERM
      if [[ -n "$retriever_pid" ]] && ! kill -0 "$retriever_pid" 2>/dev/null; then
        die "the search server did not start; see above, and RETRIEVER_ARGS=$RETRIEVER_ARGS"
      fi
      if (( SECONDS - begun >= RETRIEVER_WAIT_S )); then
        die "no search server at $url after $RETRIEVER_WAIT_S s; start it, correct RETRIEVER," \
          "or wait longer (RETRIEVER_WAIT_S)"
      fi
      sleep 1
    done
  done
}

stop_retriever() {
  if [[ -n "$retriever_pid" ]]; then kill -TERM "$retriever_pid" 2>/dev/null || true; fi
}
