"""launch/slurm: what is submitted, and what happens in a job, with stubs of Slurm's programs."""

import os
import subprocess
import time

import pytest

from tests.launch import stubs
from tests.launch.stubs import RUNNING, SAVED

# Runs the command on each "node" and ends with the highest status, as srun does.
SRUN = """#!/bin/bash
set -m
echo "srun $*" >> "$SLURM_LOG"
while [[ "$1" == --* ]]; do shift; done
for (( i = 0; i < SLURM_JOB_NUM_NODES; i++ )); do
  SLURM_PROCID=$i LOG="$LOG$i" PLAN="$PLAN$i" "$@" &
  pids+=($!)
done
printf '%s\\n' "${pids[@]}" > "$SLURM_LOG.pids"
most=0
for pid in "${pids[@]}"; do
  status=0; wait "$pid" || status=$?
  (( status <= most )) || most=$status
done
exit "$most"
"""
# SIGTERM to all processes of the step: each task has a group.
SCANCEL = """#!/bin/bash
echo "scancel $*" >> "$SLURM_LOG"
while read -r pid; do kill -TERM -- "-$pid"; done < "$SLURM_LOG.pids"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$SLURM_LOG"
if [[ "$1 $2" == 'show hostnames' ]]; then printf 'node7\\nnode8\\n'; fi
"""
OPTIONS = '--job-name=ppo --gpus-per-node=8 --mem=0 --time=24:00:00 --signal=B:TERM@120'


class Slurm:

  def __init__(self, tmp_path):
    self.path, self.checkout = tmp_path, stubs.copy_checkout(tmp_path / 'checkout')
    (self.checkout / '.venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'bin').mkdir()
    stubs.put_python(self.checkout / '.venv' / 'bin' / 'python')
    for name, text in (('srun', SRUN), ('scancel', SCANCEL), ('scontrol', SCONTROL),
                       ('sbatch', '#!/bin/bash\necho "sbatch $*" >> "$SLURM_LOG"\n')):
      stubs.put(tmp_path / 'bin' / name, text)
    self.plan(*[()] * 2)

  def plan(self, *nodes):
    for i, steps in enumerate(nodes):
      (self.path / f'plan{i}').write_text(''.join(f'{step}\n' for step in steps))

  def start(self, script, *args, **env):
    env = {'PATH': f'{self.path}/bin:{os.environ["PATH"]}', 'SLURM_LOG': f'{self.path}/slurm',
           'LOG': f'{self.path}/log', 'PLAN': f'{self.path}/plan', 'WORKDIR': f'{self.path}/run',
           'SLURM_JOB_ID': '77', 'SLURM_JOB_NODELIST': 'node[7-8]', 'SLURM_JOB_NUM_NODES': '1',
           'RESTART_DELAY_S': '0', **env}
    return subprocess.Popen(
        ['bash', f'launch/slurm/{script}', *args], cwd=self.checkout, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

  def run(self, script, *args, **env):
    process = self.start(script, *args, **env)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors

  def logged(self, node=None):
    path = self.path / ('slurm' if node is None else f'log{node}')
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(tmp_path):
  return Slurm(tmp_path)


def test_a_run_is_submitted_with_what_env_says(slurm):
  assert slurm.run('submit.sh', 'train', '--config=web')[0] == 0
  assert slurm.logged() == [
      f'sbatch {OPTIONS} --nodes=1 --dependency=singleton --output=runs/slurm/%x-%j.log '
      'launch/slurm/train.sbatch train --config=web']
  more = {'JOB_NODES': '2', 'JOB_PARTITION': 'gpu', 'JOB_ACCOUNT': 'me', 'JOB_CPUS_PER_TASK': '32',
          'DRY_RUN': '1', 'RUN_NAME': 'long'}
  _, printed, _ = slurm.run('submit.sh', 'train', **more)
  assert printed.splitlines()[-1] == (
      f'+ sbatch {OPTIONS.replace("ppo", "long")} --partition=gpu --account=me --cpus-per-task=32 '
      '--nodes=2 --dependency=singleton --output=runs/slurm/%x-%j.log '
      'launch/slurm/train.sbatch train')
  assert len(slurm.logged()) == 1


def test_a_sweep_is_an_array_of_its_points(slurm):
  slurm.plan([])
  (slurm.path / 'plan').write_text('printf "0 a\\n1 b\\n2 c\\n"\n')
  assert slurm.run('submit.sh', 'sweep', '--sweep=learning_rate')[0] == 0
  assert (slurm.path / 'log').read_text() == '-m mem1_jax.main sweep --sweep=learning_rate --list\n'
  assert slurm.logged() == [
      f'sbatch {OPTIONS} --array=0-2%4 --output=runs/slurm/%x-%A-%a.log '
      'launch/slurm/sweep.sbatch sweep --sweep=learning_rate']
  (slurm.path / 'plan').write_text('exit 2\n')
  status, _, errors = slurm.run('submit.sh', 'sweep', '--sweep=lerning_rate')
  assert (status, 'the sweep has no points' in errors) == (1, True)
  assert len(slurm.logged()) == 1


@pytest.mark.parametrize(('args', 'status', 'message'), [
    ((), 2, 'bash launch/slurm/submit.sh train'),
    (('tasks',), 1, 'tasks is not what a job can run'),
    (('train', '--workdir=x'), 1, 'the run folder is WORKDIR of launch/env.sh')])
def test_what_cannot_be_submitted_is_refused(slurm, args, status, message):
  found, _, errors = slurm.run('submit.sh', *args)
  assert (found, message in errors) == (status, True)
  (slurm.checkout / '.venv' / 'bin' / 'python').unlink()
  assert 'bash launch/install.sh cuda' in slurm.run('submit.sh', 'train')[2]
  assert not slurm.logged()


def test_on_one_node_the_process_is_alone(slurm):
  assert slurm.run('train.sbatch', 'train', '--config=web')[0] == 0
  assert slurm.logged(0) == [f'-m mem1_jax.main train --workdir={slurm.path}/run --config=web']
  assert (slurm.path / 'run' / 'done').exists()
  assert not any('requeue' in line for line in slurm.logged())


def test_on_two_nodes_they_are_told_who_is_who(slurm):
  told = 'echo "$JAX_COORDINATOR_ADDRESS $JAX_PROCESS_ID of $JAX_NUM_PROCESSES" >> "$LOG"'
  slurm.plan([told], [told])
  status, _, errors = slurm.run('train.sbatch', 'train', SLURM_JOB_NUM_NODES='2')
  assert status == 0, errors
  main = f'-m mem1_jax.main train --workdir={slurm.path}/run --distributed'
  assert [slurm.logged(0), slurm.logged(1)] == [
      [main, f'node7:20077 {i} of 2'] for i in (0, 1)]


def test_a_job_whose_time_runs_out_is_saved_and_queued_again(slurm):
  slurm.plan([RUNNING], [RUNNING])
  job = slurm.start('train.sbatch', 'train', SLURM_JOB_NUM_NODES='2')
  until = time.monotonic() + 20
  while not all('ready' in slurm.logged(node) for node in (0, 1)):
    assert time.monotonic() < until
    time.sleep(0.02)
  job.terminate()
  _, errors = job.communicate(timeout=30)
  assert job.returncode == 75, errors
  assert [slurm.logged(node).count('TERM') for node in (0, 1)] == [1, 1]  # the second would kill
  assert slurm.logged()[-2:] == ['scancel --signal=TERM 77', 'scontrol requeue 77']
  assert 'time runs out' in errors
  assert slurm.run('train.sbatch', 'train', SLURM_RESTART_COUNT='1')[0] == 0
  assert slurm.logged(0)[-1].endswith(f'--workdir={slurm.path}/run --resume')


def test_nodes_that_are_taken_away_bring_the_job_back_into_the_queue(slurm):
  slurm.plan([SAVED])  # Slurm has sent SIGTERM to the step itself
  assert slurm.run('train.sbatch', 'train', MAX_RESTARTS='0')[0] == 75
  assert slurm.logged()[-1] == 'scontrol requeue 77'


def test_an_error_ends_the_job(slurm):
  slurm.plan(['exit 2'])
  assert slurm.run('train.sbatch', 'train')[0] == 2
  assert not any('requeue' in line for line in slurm.logged())


def test_a_point_of_a_sweep(slurm):
  job = slurm.run('sweep.sbatch', 'sweep', '--sweep=learning_rate', SLURM_ARRAY_TASK_ID='3')
  assert job[0] == 0, job
  assert slurm.logged(0) == ['-m mem1_jax.main sweep --sweep=learning_rate '
                             f'--workdir={slurm.path}/run --resume --point=3']
  assert (slurm.path / 'run' / 'array' / '3' / 'done').exists()
  assert 'done already' in slurm.run(
      'sweep.sbatch', 'sweep', '--sweep=learning_rate', SLURM_ARRAY_TASK_ID='3')[2]
