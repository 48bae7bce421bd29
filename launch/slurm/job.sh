# shellcheck shell=bash
# What the batch scripts share: a step that is told when time runs out, and the queue again if it
# was saved. Sourced by them; the folder is the one that submit.sh was in.

source launch/env.sh

is_stopping=0
# shellcheck disable=SC2329  # `trap` calls it
notice() {  # SIGTERM of --signal=B:TERM, to this script alone: to all processes of the step
  if (( is_stopping++ )); then return 0; fi  # in a trap, 0 must be said
  say 'time runs out: the run saves itself'
  scancel --signal=TERM "$SLURM_JOB_ID" || true
}

run_step() {  # OPTIONS of srun and the command; ends the job
  local step status=0
  trap notice TERM
  # Slurm signals every process of a step: the worker need not pass SIGTERM on.
  export FORWARD_TERM=0
  # One that has saved must not end another that still saves.
  srun --ntasks-per-node=1 --kill-on-bad-exit=0 "$@" &
  step=$!
  await_child "$step" || status=$?
  # 75: saved. Killed while it was to save itself: it goes on from the checkpoint before.
  if (( status == 75 || (is_stopping && status > 128) )); then
    say "status $status: back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$status"
}
