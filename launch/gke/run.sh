#!/usr/bin/env bash
# Starts a run on a TPU slice of a GKE cluster that has JobSet. Saved or taken away, it starts again
# with --resume by itself. A cluster and the image: docs/pods.md.
#
#   bash launch/gke/run.sh train --config=qwen2p5_7b_2obj    what follows goes to main's command
#   RESUME=1 bash launch/gke/run.sh train …                  continues what is in WORKDIR
#   DRY_RUN=1 bash launch/gke/run.sh train …                 prints the manifest and the command
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh
source launch/gke/job.sh

if (( $# == 0 )); then
  usage
fi
case "$1" in
  train | sft | evaluate) ;;
  *) die "$1 is not what a slice can run: train, sft or evaluate, with its options" ;;
esac
[[ " $* " != *' --workdir'* ]] || die 'the run folder is WORKDIR of launch/env.sh; no --workdir'
[[ -n "$GKE_IMAGE" ]] || die 'GKE_IMAGE is empty; push an image and name it there (docs/pods.md)'
[[ "$WORKDIR" == *://* ]] || die "WORKDIR=$WORKDIR is lost with the pods; set BUCKET=gs://NAME"
[[ "$GKE_TOPOLOGY" =~ ^[0-9]+(x[0-9]+){1,2}$ ]] \
  || die "GKE_TOPOLOGY=$GKE_TOPOLOGY is no shape of a slice; 2x4x4, say"
case "$GKE_CAPACITY" in
  spot) is_spot=true ;;
  on-demand) is_spot='' ;;
  *) die "GKE_CAPACITY=$GKE_CAPACITY is neither spot nor on-demand" ;;
esac
num_hosts=$(( ${GKE_TOPOLOGY//x/*} / GKE_CHIPS_PER_HOST ))
(( num_hosts > 0 )) \
  || die "$GKE_TOPOLOGY has fewer chips than GKE_CHIPS_PER_HOST=$GKE_CHIPS_PER_HOST"

list=''
for argument in "$WORKDIR" -- python -m mem1_jax.main "$1" --distributed --workdir="$WORKDIR" \
    "${@:2}"; do
  list+="${list:+, }$(json "$argument")"
done
manifest="$(< launch/gke/jobset.yaml)"
fill() {  # NAME VALUE, as it stands in YAML
  local name="\${$1}"
  manifest="${manifest//"$name"/"$2"}"
}
fill NAME "$RUN_NAME"
fill NUM_HOSTS "$num_hosts"
fill MAX_RESTARTS "$GKE_MAX_RESTARTS"
fill CHIPS_PER_HOST "$GKE_CHIPS_PER_HOST"
fill SERVICE_ACCOUNT "$(json "$GKE_SERVICE_ACCOUNT")"
fill ACCELERATOR "$(json "$GKE_ACCELERATOR")"
fill TOPOLOGY "$(json "$GKE_TOPOLOGY")"
fill IMAGE "$(json "$GKE_IMAGE")"
fill SECRET "$(json "$GKE_SECRET")"
fill COORDINATOR "$(json "$RUN_NAME-worker-0-0.$RUN_NAME:8476")"
fill RESUME "$(json "${RESUME:-0}")"
fill RETRIEVER "$(json "$RETRIEVER")"
fill RETRIEVER_PORT "$(json "$RETRIEVER_PORT")"
fill RETRIEVER_ARGS "$(json "$RETRIEVER_ARGS")"
fill RETRIEVER_WAIT_S "$(json "$RETRIEVER_WAIT_S")"
if [[ -n "$is_spot" ]]; then
  fill IS_SPOT '"true"'
else
  manifest="$(grep -v IS_SPOT <<< "$manifest")"
fi
fill ARGUMENTS "[$list]"  # the last: nothing is filled in within them

if [[ "$DRY_RUN" == 1 ]]; then
  printf '%s\n' "$manifest"
else
  state="$(on_cluster get jobset "$RUN_NAME" --ignore-not-found \
    -o 'jsonpath={.metadata.name} {.status.terminalState}')"
  case "$state" in
    '') ;;
    *' Completed' | *' Failed')
      say "${state% *} is over (${state#* }): its pods and logs make room"
      on_cluster delete jobset "$RUN_NAME" ;;
    *) die "$RUN_NAME is under way; bash launch/gke/delete.sh job ends it; or set RUN_NAME" ;;
  esac
fi
on_cluster apply -f - <<< "$manifest"
say "started on $num_hosts hosts, results in $WORKDIR; bash launch/gke/logs.sh 0 -f shows it"
