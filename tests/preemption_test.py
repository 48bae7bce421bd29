"""A run that is told to end is saved, and goes on as if nothing had happened. Real signals."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from mem1_jax import metrics, preemption, sft, train
from mem1_jax.checkpoint import Checkpointer
from mem1_jax.rollout import collect
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What differs between two runs of the same numbers: times, and what depends on them.
_OF_TIME = ('time', 'seconds', '_per_s', '_share', 'occupancy', 'reused_tokens')


def tell():
  """SIGTERM to this process; returns once it is heard."""
  signal.raise_signal(signal.SIGTERM)
  while not preemption.is_told():
    time.sleep(0.001)


def told_at(monkeypatch, where, name, count):
  """Tells this process to end at the `count`-th call of `where.name`, which is then made."""
  real, calls = getattr(where, name), []

  def call(*args, **options):
    calls.append(1)
    if len(calls) == count:
      tell()
    return real(*args, **options)

  monkeypatch.setattr(where, name, call)


def numbers(folder):
  """The lines of metrics.jsonl without what depends on time."""
  return [{name: x for name, x in line.items() if not name.endswith(_OF_TIME)}
          for line in metrics.read_metrics(folder)]


def same_bits(some, others):
  jax.tree.map(np.testing.assert_array_equal, some, others)


def test_a_notice_lasts_as_long_as_the_run(capsys):
  before = signal.getsignal(signal.SIGTERM)
  with preemption.listening():
    assert not preemption.is_told() and not preemption.is_any_told()
    tell()
    signal.raise_signal(signal.SIGTERM)  # of a supervisor, beside that of a process group
    signal.raise_signal(signal.SIGHUP)  # of systemd, beside its SIGTERM
    assert preemption.is_any_told()
  assert not preemption.is_told() and signal.getsignal(signal.SIGTERM) is before
  assert 'another one kills it' in capsys.readouterr().err


def test_the_second_notice_kills_at_once_even_in_the_middle_of_a_program():
  program = textwrap.dedent('''
      import hashlib
      from mem1_jax import preemption
      preemption._SAME_NOTICE_S = 0.0
      with preemption.listening():
        print('ready', flush=True)
        hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)  # a quarter of an hour outside Python
      ''')
  with subprocess.Popen([sys.executable, '-c', program], cwd=ROOT, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
    assert child.stdout.readline() == 'ready\n'
    child.send_signal(signal.SIGTERM)
    assert child.stderr.readline().startswith('told to end: ')
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 128 + signal.SIGTERM


# Where the run is told to end each time, and which iteration it says is saved. The random model
# answers nothing: an iteration has many calls of the environment.
STOPS = (
    (collect, 'step_many', 1, 0),  # before anything is done
    (train, 'policy_params', 2, 1),  # as the second rollout begins
    (train, 'learn', 1, 2),  # the update ends, the evaluation that is due does not begin
    (collect, 'step_many', 1, 2),  # in the middle of that evaluation
    (train, 'rollout', 1, 2),  # after it: all is on disk already
)


@pytest.mark.parametrize('stops, iterations', [
    (STOPS[1:2], 2), pytest.param(STOPS, 4, marks=pytest.mark.slow)])
def test_a_run_told_to_end_again_and_again_is_the_undisturbed_one(
    stops, iterations, tmp_path, monkeypatch):
  config = tiny_config()
  config.ppo.iterations = iterations
  whole = train.run(config, tmp_path / 'whole')
  folder = tmp_path / 'run'

  for where, name, count, saved in stops:
    message = f'iteration {saved} is saved in .*run; ' if saved else 'before iteration 1, nothing'
    with monkeypatch.context() as patch, pytest.raises(preemption.Preempted, match=message):
      told_at(patch, where, name, count)
      train.run(config, folder, is_resumed=True)
  resumed = train.run(config, folder, is_resumed=True)
  assert resumed.iteration == whole.iteration == iterations
  same_bits(whole.state, resumed.state)
  assert numbers(folder) == numbers(tmp_path / 'whole')
  for name in [f'iteration-{i:05d}.jsonl' for i in range(2, iterations + 1, 2)]:
    of = [[json.loads(line)['turns'] for line in (run / 'samples' / name).open()]
          for run in (folder, tmp_path / 'whole')]
    assert of[0] == of[1]


@pytest.mark.slow
def test_supervised_training_ends_after_its_step_and_goes_on(tmp_path, monkeypatch):
  config = tiny_config()
  config.sft.steps, config.sft.checkpoint_every = 3, 100
  whole = sft.run(config, tmp_path / 'whole')
  with monkeypatch.context() as patch, pytest.raises(preemption.Preempted, match='step 1 is saved'):
    told_at(patch, sft.multihost, 'put', 1)
    sft.run(config, tmp_path / 'run')
  resumed = sft.run(config, tmp_path / 'run', is_resumed=True)
  assert (whole / 'model.safetensors').read_bytes() == (resumed / 'model.safetensors').read_bytes()
  assert numbers(tmp_path / 'run') == numbers(tmp_path / 'whole')


# The same by the command line, in processes of their own.

_CONFIG = '''
import os, pathlib
from mem1_jax import preemption, train
from mem1_jax.checkpoint import Checkpointer
from mem1_jax.rollout import collect
from tests.tiny import tiny_config

MARKER, WHERE = pathlib.Path({marker!r}), {where!r}


def stop(real, count, calls=[]):
  """Says that it is at the `count`-th call, and waits: for the notice, or the kill."""
  def call(*args, **options):
    calls.append(1)
    if len(calls) == count:
      MARKER.touch()
      preemption._told.wait()
    return real(*args, **options)
  return call


def get_config():
  config = tiny_config()
  config.checkpoint.every = 3
  config.compilation_cache = {cache!r}
  if not MARKER.exists():
    if WHERE == 'rollout':  # of iteration 2: an environment does not answer before the notice
      real = train.iterate
      def iterate(trainer, *args):
        if trainer.iteration == 1:
          collect.step_many = stop(collect.step_many, 1)
        return real(trainer, *args)
      train.iterate = iterate
    elif WHERE == 'update':
      train.learn = stop(train.learn, 2)
    elif WHERE == 'save':  # some of the files are written
      import orbax.checkpoint._src.path.atomicity as atomicity
      for name, kind in vars(atomicity).items():
        if isinstance(kind, type) and 'finalize' in vars(kind):
          kind.finalize = stop(kind.finalize, 1)
  return config
'''


def command(folder, where):
  """`main train` with a config that stops once, there."""
  folder.mkdir(exist_ok=True)
  config = folder / f'{where}.py'
  config.write_text(_CONFIG.format(marker=str(folder / f'{where}.marker'), where=where,
                                   cache=str(ROOT / '.cache' / 'jax')))
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(
      [str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  return dict(args=[sys.executable, '-m', 'mem1_jax.main', 'train', f'--config={config}',
                    f'--workdir={folder / where}'],
              cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def last_state(folder):
  """{name: array} of the newest checkpoint."""
  keeper = Checkpointer(folder / 'checkpoints', 2, train._BEST)
  assert keeper.steps()[-1] == 4
  state, _ = keeper.restore_latest(jax.eval_shape(lambda: train.build(tiny_config()).state))
  return state


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  subprocess.run(**command(folder, 'whole'), check=True)
  return folder / 'whole'


@pytest.mark.slow
@pytest.mark.parametrize('where, sent, status', [
    ('rollout', signal.SIGTERM, preemption.STATUS), ('update', signal.SIGTERM, preemption.STATUS),
    ('save', signal.SIGKILL, -signal.SIGKILL)])
def test_a_command_is_stopped_and_resumed(tmp_path, undisturbed, where, sent, status):
  marker, begun = tmp_path / f'{where}.marker', time.monotonic()
  with subprocess.Popen(**command(tmp_path, where)) as child:
    while not marker.exists():
      assert child.poll() is None and time.monotonic() - begun < 300
      time.sleep(0.05)
    child.send_signal(sent)
    told = time.monotonic()
    said = child.stderr.read()
    assert child.wait() == status, said
  if status == preemption.STATUS:
    assert time.monotonic() - told < 30
    assert '--resume goes on from there' in said.splitlines()[-1]
  else:
    assert any('tmp' in path.name for path in (tmp_path / where / 'checkpoints').iterdir())
  run = command(tmp_path, where)
  run['args'].append('--resume')
  subprocess.run(**run, check=True)
  same_bits(last_state(undisturbed), last_state(tmp_path / where))
  assert numbers(tmp_path / where) == numbers(undisturbed)
  assert all(path.name.isdigit() for path in (tmp_path / where / 'checkpoints').iterdir()
             if path.is_dir())
