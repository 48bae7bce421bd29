"""launch/local_pod.sh: processes that are started, stopped and started again together."""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mem1_jax import metrics, train
from mem1_jax.checkpoint import Checkpointer
from tests.preemption_test import numbers
from tests.tiny import training_config
from tests.xla_flags import xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A Python whose process 1 ends, the n-th time, as the n-th line of `plan` says. Process 0 ends well
# if process 1 does, and hangs else, as in a collective.
STUB = '''#!/bin/bash
if [[ "$1" == -c ]]; then echo 12345; exit; fi
echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $*" >> "$HERE/log"
step="$(head -n 1 "$HERE/plan")"
if [[ "$JAX_PROCESS_ID" == 0 ]]; then
  touch "$HERE/read"
  [[ "$step" == 0 ]] || sleep 60
  exit 0
fi
until [[ -e "$HERE/read" ]]; do sleep 0.05; done
rm "$HERE/read"
sed -i 1d "$HERE/plan"
if [[ "$step" == save ]]; then mkdir -p "$HERE/run/checkpoints/$SECONDS$RANDOM"; step=75; fi
if [[ "$step" == kill ]]; then kill -KILL $$; fi
exit "$step"
'''


class Pod:
  """A pod of two stubs in a folder."""

  def __init__(self, folder):
    self.folder = folder
    python = folder / 'venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

  def run(self, *plan, **settings):
    (self.folder / 'plan').write_text('\n'.join([*plan, '']))
    return subprocess.run(
        ['bash', 'launch/local_pod.sh', '2', '--', 'train', f'--workdir={self.folder}/run'],
        cwd=ROOT, env={'PATH': os.environ['PATH'], 'HERE': str(self.folder), 'GRACE_S': '0',
             'VENV': str(self.folder / 'venv'), 'RESTART_DELAY_S': '0', **settings},
        capture_output=True, text=True, check=False)

  def logged(self):
    log = self.folder / 'log'
    lines = sorted(log.read_text().splitlines())
    log.unlink()
    return lines


@pytest.fixture
def pod(tmp_path):
  return Pod(tmp_path)


def test_both_are_started_and_told_who_they_are(pod):
  done = pod.run('0')
  assert done.returncode == 0, done.stderr
  assert pod.logged() == [f'{i}/2 at localhost:12345: -m mem1_jax.main train '
                          f'--workdir={pod.folder}/run' for i in range(2)]


def test_when_one_dies_all_are_started_again_with_resume(pod):
  done = pod.run('kill', '75', '0')
  assert done.returncode == 0, done.stderr
  assert 'process 1 ended with status 137' in done.stderr
  lines = pod.logged()
  assert len(lines) == 6 and sum(line.endswith(' --resume') for line in lines) == 4


def test_what_another_start_would_not_change_is_passed_on(pod):
  assert pod.run('2', '0').returncode == 2
  assert len(pod.logged()) == 2


def test_it_gives_up_after_restarts_without_progress(pod):
  done = pod.run('75', 'save', '75', '75', '75', MAX_RESTARTS='1')
  assert done.returncode == 75 and 'giving up' in done.stderr
  assert len(pod.logged()) == 2 * 3  # a new checkpoint begins the count anew


def test_the_commands_are_printed_and_bad_ones_are_refused(pod):
  done = pod.run(DRY_RUN='1')
  processes = [line.partition('JAX_PROCESS_ID=')[2][0] for line in done.stdout.splitlines()]
  assert processes == ['0', '1']
  assert not (pod.folder / 'run').exists()
  for arguments, message in (([], 'launch/local_pod.sh 2 -- train'),
                             (['2', '--', 'train'], 'add --workdir')):
    refused = subprocess.run(['bash', 'launch/local_pod.sh', *arguments], cwd=ROOT, text=True,
                             capture_output=True, check=False)
    assert refused.returncode and message in refused.stderr


# The real thing.

_CONFIG = '''
import os, pathlib, time
from mem1_jax import train
from mem1_jax.rollout import collect
from tests.tiny import training_config

MARKER = pathlib.Path({marker!r})


def get_config():
  config = training_config(4, 2, 1, 1)
  config.checkpoint.every = 2
  config.compilation_cache = {cache!r}
  if not MARKER.exists() and os.environ['JAX_PROCESS_ID'] == '1':
    iterate = train.iterate
    def stopping(trainer, *args):
      if trainer.iteration == 2:  # an environment answers only to a kill
        def wait(*args):
          MARKER.write_text(str(os.getpid()))
          time.sleep(1000)
        collect.step_many = wait
      return iterate(trainer, *args)
    train.iterate = stopping
  return config
'''


def start(folder, name):
  """A real pod of two processes on the tiny config."""
  config = folder / f'{name}.py'
  config.write_text(_CONFIG.format(marker=str(folder / f'{name}.marker'),
                                   cache=str(ROOT / '.cache' / 'jax')))
  path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
  return subprocess.Popen(
      ['bash', 'launch/local_pod.sh', '2', '--', 'train', f'--config={config}',
       f'--workdir={folder / name}'], cwd=ROOT, text=True, stderr=subprocess.PIPE,
      env=os.environ | {'VENV': sys.prefix, 'PYTHONPATH': path, 'XLA_FLAGS': xla_flags(1),
                        'GRACE_S': '2', 'RESTART_DELAY_S': '0'})


def last_state(folder):
  keeper = Checkpointer(folder / 'checkpoints', 2, train._BEST)
  assert keeper.steps()[-1] == 4
  like = jax.eval_shape(lambda: train.build(training_config(4, 1, 1, 1)).state)
  return keeper.restore_latest(like)[0]


@pytest.mark.slow
def test_a_pod_whose_process_is_killed_ends_as_if_it_had_not_been(tmp_path):
  (tmp_path / 'whole.marker').touch()
  with start(tmp_path, 'whole') as pod:
    said = pod.stderr.read()
    assert pod.wait() == 0, said
  marker, begun = tmp_path / 'killed.marker', time.monotonic()
  with start(tmp_path, 'killed') as pod:
    while not (marker.exists() and marker.read_text()):
      assert pod.poll() is None and time.monotonic() - begun < 600
      time.sleep(0.1)
    os.kill(int(marker.read_text()), signal.SIGKILL)
    said = pod.stderr.read()
    assert pod.wait() == 0, said
  assert 'process 1 ended with status 137' in said and 'started again with --resume' in said
  states = [last_state(tmp_path / name) for name in ('whole', 'killed')]
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert numbers(tmp_path / 'killed') == numbers(tmp_path / 'whole')
  assert [line['step'] for line in metrics.read_metrics(tmp_path / 'killed')] == [1, 2, 3, 4]
