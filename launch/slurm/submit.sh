#!/usr/bin/env bash
# Submits a run to Slurm, or all points of a sweep as a job array, with what launch/env.sh says.
# Before that, once, on a machine that has the same files: bash launch/install.sh cuda
#
#   bash launch/slurm/submit.sh train --config=qwen2p5_1p5b_2obj
#   JOB_NODES=2 bash launch/slurm/submit.sh train --config=… --config.mesh.fsdp=-1
#   RUN_NAME=lr bash launch/slurm/submit.sh sweep --sweep=learning_rate
#   DRY_RUN=1 bash launch/slurm/submit.sh train …            prints the command
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/env.sh

if (( $# == 0 )); then
  usage
fi
[[ " $* " != *' --workdir'* ]] || die 'the run folder is WORKDIR of launch/env.sh; no --workdir'
[[ "$DRY_RUN" == 1 || -x "$VENV/bin/python" ]] \
  || die "$VENV is not there: bash launch/install.sh cuda"

options=(--job-name="$RUN_NAME" --gpus-per-node="$JOB_GPUS_PER_NODE" --mem="$JOB_MEMORY"
  --time="$JOB_TIME" --signal="B:TERM@$JOB_NOTICE_S"
  ${JOB_PARTITION:+--partition="$JOB_PARTITION"} ${JOB_ACCOUNT:+--account="$JOB_ACCOUNT"}
  ${JOB_CPUS_PER_TASK:+--cpus-per-task="$JOB_CPUS_PER_TASK"})
run mkdir -p runs/slurm
case "$1" in
  train | sft | evaluate)
    # singleton: a second run of that name waits instead of writing into the same folder.
    run sbatch "${options[@]}" --nodes="$JOB_NODES" --dependency=singleton \
      --output='runs/slurm/%x-%j.log' launch/slurm/train.sbatch "$@" ;;
  sweep)
    if [[ "$DRY_RUN" == 1 ]]; then
      run "$VENV/bin/python" -m mem1_jax.main "$@" --list
      last=N
    else
      points="$("$VENV/bin/python" -m mem1_jax.main "$@" --list)" || die 'the sweep has no points'
      last=$(( $(grep -c . <<< "$points") - 1 ))
    fi
    run sbatch "${options[@]}" --array="0-$last%$JOB_SWEEP_JOBS" \
      --output='runs/slurm/%x-%A-%a.log' launch/slurm/sweep.sbatch "$@" ;;
  *) die "$1 is not what a job can run: train, sft, evaluate or sweep, with its options" ;;
esac
say "squeue --me shows it, tail -f runs/slurm/$RUN_NAME-*.log what it says; results in $WORKDIR"
