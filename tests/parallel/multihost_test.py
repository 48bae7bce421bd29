"""Real processes, as on several hosts: they compute together what one process computes alone."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mem1_jax import checkpoint, evaluate, metrics, sft, train
from mem1_jax.parallel import multihost
from tests.parallel import programs
from tests.tiny import training_config
from tests.xla_flags import xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(scenario, folder, num_devices, num_processes=2, timeout_s=150):
  """What the processes of a scenario of multihost_worker.py found, with `num_devices` each.

  All are killed once one has failed, or when the time is over.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  logs = [folder / f'{scenario}-{index}.log' for index in range(num_processes)]
  processes = []
  for index, log in enumerate(logs):
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1',
        'XLA_FLAGS': xla_flags(num_devices),
        'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
        'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(num_processes),
        'JAX_PROCESS_ID': str(index)}
    with log.open('w') as file:
      processes.append(subprocess.Popen(
          [sys.executable, '-m', 'tests.parallel.multihost_worker', scenario, str(folder)],
          cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT))
  end = time.monotonic() + timeout_s
  try:
    while any(process.poll() is None for process in processes):
      assert not any(process.poll() for process in processes), 'a process failed'
      assert time.monotonic() < end, f'not done after {timeout_s} s'
      time.sleep(0.1)
    assert [process.returncode for process in processes] == [0] * num_processes
  except AssertionError as error:
    text = '\n'.join(f'--- process {i}\n{log.read_text()[-4000:]}' for i, log in enumerate(logs))
    raise AssertionError(f'{error}\n{text}') from None
  finally:
    for process in processes:
      process.kill()
      process.wait()
  return [json.loads(log.read_text().splitlines()[-1]) for log in logs]


def test_rows_and_objects(tmp_path):
  both = run('helpers', tmp_path, num_devices=2)
  for name, owners in dict(split=[0, 0, 1, 1], shared=[0, 0, 1, 1], across=[0] * 4,
                           whole=[0] * 4).items():
    for me, found in enumerate(part[name] for part in both):
      assert found['owners'] == owners and found['lies']
      assert found['own'] == [row for row in range(4) if owners[row] == me]
      want = np.arange(4) + 100 * np.array(owners)
      assert found['all']['y'] == want.tolist()
      assert found['all']['x'] == (np.arange(8).reshape(4, 2)
                                   + 100 * np.array(owners)[:, None]).tolist()
      assert found['mine'] == [row + 100.0 * me for row in found['own']]
  for found in both:
    assert found['key'] == jax.random.key_data(jax.random.key(3)).tolist()
    assert 'uses 1 of 4 devices, none of processes [1]; set a size to -1' in found['refusal']
    assert found['lengths'] == [[0, 0], [1, 2 * multihost._CHUNK_BYTES + 1]]
    assert found['nothing'] == [None, None]


@pytest.mark.parametrize('scenario, rank', [
    ('ppo_step', 0), ('lora_ppo_step', programs.RANK)])
@pytest.mark.slow
def test_a_ppo_step_is_that_of_one_device(scenario, rank, tmp_path):
  run(scenario, tmp_path, num_devices=4)
  state, want = programs.ppo_step(programs.ppo(1, 1, 1, rank=rank))
  got = np.load(tmp_path / 'metrics.npz')
  for name in ('policy_loss', 'value_loss', 'kl_loss', 'entropy', 'policy_grad_norm',
               'value_grad_norm', 'kl', 'value_mean', 'target_mean'):
    assert abs(got[name] - want[name]) <= 1e-5 * max(1e-2, abs(want[name])), name
  got = np.load(tmp_path / 'state.npz').values()
  for x, y in zip(got, jax.tree.leaves(state), strict=True):  # parameters and gradients
    assert np.linalg.norm(np.float64(x) - y) <= 1e-5 * np.linalg.norm(y)


def test_an_episode_that_goes_on_keeps_no_host_waiting(tmp_path):
  both = run('uneven', tmp_path, num_devices=1)
  assert [found['begun'] for found in both] == [[0, 2, 4], [1, 3]]
  for found in both:
    assert found['turns'] == [1, 9, 1, 9, 1] and found['counts'] == [21, 63]
    assert found['tasks'] == found['heard'] == ['t0', 't1', 't2', 't3', 't4']
    assert found['after'] == 5
  assert [found['begun_across'] for found in both] == [[0, 1, 2, 3, 4], []]
  assert [found['turns_across'] for found in both] == [[1, 9, 1, 9, 1]] * 2
  assert [found['error'] for found in both] == [
      "RuntimeError: process 1 stopped the rollout: ValueError('no such book')",
      'ValueError: no such book']


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """A training of four iterations by one process."""
  folder = tmp_path_factory.mktemp('alone')
  train.run(training_config(4, 1, 1, 1), folder)
  return folder


def same_metrics(one, many):
  """Checks that the lines of two runs agree but for times and schedules, rounding apart."""
  one, many = (metrics.read_metrics(folder) for folder in (one, many))
  assert [line['step'] for line in many] == list(range(1, len(many) + 1))
  for want, got in zip(one, many):
    # A run evaluates after its last iteration, too.
    for name in got.keys() & want.keys():
      if name == 'time' or name.endswith((
          'seconds', '_per_s', '_share', 'occupancy', 'reused_tokens')):
        continue
      # A gradient clipped to norm 1 in Adam's first steps: what is near 0 has any sign.
      tolerance = 1e-6 if name.startswith('logprob_gap') else 1e-3 * max(1e-2, abs(want[name]))
      assert abs(got[name] - want[name]) <= tolerance, (want['step'], name, want[name], got[name])


@pytest.mark.slow
def test_a_run_goes_from_one_process_to_two_and_back(tmp_path, alone):
  folder = tmp_path / 'run'
  train.run(training_config(1, 1, 1, 1), folder)
  both = run('resume', tmp_path, num_devices=1)
  for found in both:
    assert (found['iteration'], found['next_index']) == (3, 18)
    assert len(found['steps']) > 6  # both have their share
  steps = [tuple(step) for found in both for step in found['steps']]
  assert len(set(steps)) == len(steps)  # none is taken twice
  trainer = train.run(training_config(4, 1, 1, 1), folder, is_resumed=True)
  assert trainer.iteration == 4
  same_metrics(alone, folder)
  starts = json.loads((folder / 'run.json').read_text())['starts']
  assert [start['machine']['num_processes'] for start in starts] == [1, 2, 2, 1]
  for name in ('iteration-00002.jsonl', 'iteration-00004.jsonl'):
    want, got = ([json.loads(line)['turns'] for line in (where / 'samples' / name).open()]
                 for where in (alone, folder))
    assert len(want) == 4 and got == want


@pytest.mark.slow
def test_a_notice_to_one_process_ends_both_at_the_same_iteration(tmp_path, alone):
  for found in run('told', tmp_path, num_devices=1):
    assert 'iteration 1 is saved' in found['said'] and found['iterations'] == [0, 1, 1, 2]
  same_metrics(alone, tmp_path / 'run')


@pytest.mark.slow
def test_supervised_training_and_evaluation(tmp_path):
  cells, _ = run('commands', tmp_path, num_devices=1)
  config = training_config(1, 1, 1, 1)
  config.lora.rank = 2
  one, _ = checkpoint.load_params(sft.run(config, tmp_path / 'one'))
  many, _ = checkpoint.load_params(tmp_path / 'sft/params')
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), many, one)
  lines = [json.loads(line)['step'] for line in (tmp_path / 'sft/metrics.jsonl').open()]
  assert lines == [1, 2, 3, 4]
  config.init = str(tmp_path / 'sft/params')
  want = evaluate.run(config, tmp_path / 'one-evaluation')
  assert set(cells) == set(want) == {'1', '2'}
  for n, cell in want.items():
    assert {k: v for k, v in cell.items() if k != 'seconds'} == {
        k: v for k, v in cells[n].items() if k != 'seconds'}
    assert len((tmp_path / f'evaluation/mem1-{n}.jsonl').read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_training_whose_tensor_axis_is_across_processes(tmp_path, alone):
  main, other = run('across', tmp_path, num_devices=1)
  assert main['steps'] and not other['steps']  # process 0 owns all slots
  same_metrics(alone, tmp_path / 'run')
  assert len(set(map(tuple, main['steps']))) == len(main['steps'])  # none is stepped twice


@pytest.mark.parametrize('variables, is_cluster, message', [
    ({'JAX_PROCESS_ID': '0'}, False, 'JAX_PROCESS_ID set, JAX_COORDINATOR_ADDRESS, JAX_NUM_PRO'),
    ({'JAX_NUM_PROCESSES': 'two'}, False, 'JAX_NUM_PROCESSES=two must be a whole number ≥ 1'),
    ({'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '2'}, False, 'JAX_PROCESS_ID=2 must be below'),
    ({'JAX_COORDINATOR_ADDRESS': 'host0'}, False, 'JAX_COORDINATOR_ADDRESS=host0 has no port'),
    ({}, True, 'found no TPU pod, Slurm, .* set them')])
def test_wrong_settings_say_what_to_do(variables, is_cluster, message, monkeypatch):
  def find_nothing(*arguments, **options):  # jax, where it has no cluster
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(jax.distributed, 'initialize', find_nothing)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    multihost.initialize(is_cluster)


def test_one_process_alone_needs_no_other():
  multihost.initialize()
  assert multihost.is_main() and multihost.gather('x') == ['x']
  multihost.barrier()
