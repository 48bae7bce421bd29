#!/usr/bin/env bash
# Sees a run through: creates the pod, sets it up, starts the run, and does so again with --resume
# whenever the TPU was taken away or a host was started anew, until the run is done. It must stay
# alive itself (on a small VM, say); ended and started again it goes on.
#
#   bash launch/tpu/watch.sh train --config=qwen2p5_7b_2obj  as launch/tpu/run.sh
#   DELETE_WHEN_DONE=1 bash launch/tpu/watch.sh train …      deletes the TPU in the end
#   DRY_RUN=1 bash launch/tpu/watch.sh train …               prints the commands of one start
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

if (( $# == 0 )); then
  usage
fi
need_gcloud
main_arguments "$@"
RESUME=1

start() {  # on all hosts where nothing runs
  local states
  bash launch/tpu/create.sh pod && bash launch/tpu/setup.sh pod || return 1
  if [[ "$DRY_RUN" != 1 ]]; then
    states="$(host_states)" || return 1
    check_workdir "$states"
  fi
  on_workers all "$(on_host ensure "${arguments[@]}")"
}

finish() {
  say "done: $WORKDIR"
  if [[ "$DELETE_WHEN_DONE" == 1 && "$WORKDIR" == *://* ]]; then
    bash launch/tpu/delete.sh pod --yes
  else
    say "$TPU_NAME still costs; bash launch/tpu/fetch.sh FOLDER, then delete.sh pod"
  fi
  exit 0
}

look() {  # one look at the pod, and what follows from it; false where something did not answer
  local state states kinds
  state="$(queue_state)" || return 1
  if [[ "$state" != ACTIVE ]] || (( ! is_set_up )); then
    say "$TPU_NAME: $state"
    is_set_up=0
    start || return 1
    is_set_up=1
    return
  fi
  states="$(host_states)" || return 1
  kinds="$(awk '{print ($2 == "ended") ? "ended-" $3 : $2}' <<< "$states" | sort -u)"
  if [[ "$kinds" == 'done' ]]; then
    finish
  elif [[ "$kinds" == running ]]; then
    say "$(head -n 1 <<< "$states")"
  elif grep -qxE 'ended-[0-9]+' <<< "$(grep -vxE 'ended-(75|1[3-9][0-9])' <<< "$kinds")"; then
    # An error. Where others run, they will meet it, too, or the death of that one; where others
    # are done, so is this one, as it sees when it is started.
    if grep -qx running <<< "$kinds"; then
      say "a host ended with an error; waiting for the others:
$states"
    elif grep -qx 'done' <<< "$kinds"; then
      on_workers all "$(on_host ensure "${arguments[@]}")" || return 1
    else
      die "the run ended with an error; bash launch/tpu/logs.sh all
$states"
    fi
  else
    say "not all hosts run; starting with --resume:
$states"
    on_workers all "$(on_host ensure "${arguments[@]}")" || return 1
  fi
}

if [[ "$DRY_RUN" == 1 ]]; then
  start
  exit 0
fi
is_set_up=0
failures=0  # in a row: a pod that is being taken away does not answer, nor does a cut network
while true; do
  if look; then
    failures=0
  elif (( ++failures >= 20 )); then
    die "$failures looks in a row failed, see above; started again, this script goes on"
  fi
  sleep "$POLL_S"
done
