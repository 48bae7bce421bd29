#!/usr/bin/env bash
# Asks for the TPU pod that launch/env.sh describes and waits until it is there. One that is there
# or in the queue is kept; one that failed or was taken away is deleted and asked for anew.
# It costs from the moment it is ACTIVE until launch/tpu/delete.sh.
#
#   bash launch/tpu/create.sh pod
#   TPU_CAPACITY=on-demand bash launch/tpu/create.sh pod
#   DRY_RUN=1 bash launch/tpu/create.sh pod                 prints the commands
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/tpu/pod.sh

expect_pod "$@"
need_gcloud
case "$TPU_CAPACITY" in
  spot) capacity=--spot ;;
  on-demand) capacity='' ;;
  reserved) capacity=--reserved ;;
  *) die "TPU_CAPACITY=$TPU_CAPACITY is neither spot nor on-demand nor reserved" ;;
esac

create() {
  say "asking for $TPU_NAME: $TPU_TYPE, $TPU_CAPACITY, in $ZONE"
  run gcloud compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
    "${pod_flags[@]}" --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_RUNTIME" \
    ${capacity:+"$capacity"}
}

if [[ "$DRY_RUN" == 1 ]]; then
  create
  exit 0
fi

seen=''
begun=$SECONDS
asked_at=''
while true; do
  state="$(queue_state)"
  if [[ "$state" != "$seen" ]]; then
    say "$TPU_NAME: $state, after $(( (SECONDS - begun) / 60 )) min"
  elif [[ -t 2 ]]; then
    printf '\r\033[K[mem1] %s: %s, %d min' "$TPU_NAME" "$state" $(( (SECONDS - begun) / 60 )) >&2
  fi
  seen="$state"
  case "$state" in
    ACTIVE) exit 0 ;;
    NONE)
      create
      asked_at=$SECONDS ;;
    FAILED)
      if [[ -n "$asked_at" ]]; then
        gcloud compute tpus queued-resources describe "$TPU_NAME" "${pod_flags[@]}" >&2 || true
        die "the request failed, see above; correct launch/env.sh, then create.sh asks anew"
      fi
      say "$TPU_NAME failed earlier: deleting that request"
      delete_pod
      continue ;;
    SUSPENDED)
      say "$TPU_NAME was taken away: deleting what is left of it"
      delete_pod
      continue ;;
  esac
  sleep "$POLL_S"
done
