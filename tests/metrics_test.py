"""Metrics survive kills and resumes; the run folder says what it is; compilations are heard."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import metrics


def test_writes_numbers_of_every_kind_and_null_for_nan(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, tensorboard=False)
  writer.write(1, {'a': jnp.float32(0.5), 'b': np.int64(2), 'c': 3, 'd': float('nan')})
  line, = metrics.read_metrics(tmp_path)
  assert {k: line[k] for k in 'abcd'} == {'a': 0.5, 'b': 2.0, 'c': 3.0, 'd': None}
  assert line['step'] == 1 and line['time'] > 1e9


def test_resuming_drops_what_will_be_done_again(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, tensorboard=False)
  for step in range(1, 6):
    writer.write(step, {'x': step})
  writer.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "x"')  # killed while writing
  assert [line['step'] for line in metrics.read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
  writer = metrics.MetricsWriter(tmp_path, tensorboard=False, resume_step=3)
  writer.write(4, {'x': 40})
  assert [line['x'] for line in metrics.read_metrics(tmp_path)] == [1, 2, 3, 40]


def test_appending_after_a_kill_starts_a_line_of_its_own(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"st')
  metrics.MetricsWriter(tmp_path, tensorboard=False).write(2, {})
  assert [line['step'] for line in metrics.read_metrics(tmp_path)] == [1, 2]


def test_the_gain_of_a_run_has_the_intervals_of_its_tasks():
  rng, tasks = np.random.default_rng(0), [f't{i // 4}' for i in range(400)]  # four samples of each
  def rewards(mean):
    return np.repeat(rng.normal(mean, 0.5, 100), 4) + rng.normal(0, 0.1, 400)

  steps = [{'reward': r.mean(), 'reward_error': metrics.standard_error(r, tasks)}
           for r in map(rewards, (1, 1.2, 5, 5, 5, 5, 2, 2.4))]
  gain = metrics.reward_gain(steps)
  assert gain['reward_first'] == pytest.approx((steps[0]['reward'] + steps[1]['reward']) / 2)
  assert gain['reward_last'] == pytest.approx(2.2, abs=0.1)
  for name in ('first', 'last'):  # of 200 tasks, not of 800 episodes
    assert gain[f'reward_{name}_ci'] == pytest.approx(1.96 * 0.5 / np.sqrt(200), rel=0.15)
  assert metrics.standard_error([1.0, 2.0], ['a', 'a']) == 0.0


def test_tensorboard_files_are_written_without_tensorflow(tmp_path):
  had_tensorflow = 'tensorflow' in sys.modules
  writer = metrics.MetricsWriter(tmp_path, tensorboard=True)
  writer.write(1, {'reward': 2.0})
  writer.close()
  file, = (tmp_path / 'tensorboard').iterdir()
  assert b'reward' in file.read_bytes()
  assert ('tensorflow' in sys.modules) == had_tensorflow


def test_wandb_that_is_not_installed_is_an_error_with_a_remedy(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match='pip install wandb'):
    metrics.MetricsWriter(tmp_path, tensorboard=False, wandb={'project': 'x'})


def test_compile_counter_hears_new_shapes_only():
  def double_it(x):
    return x + x

  double = jax.jit(double_it)
  three, four = np.zeros(3, np.float32), np.zeros(4, np.float32)
  counter = metrics.CompileCounter()
  double(three)
  assert counter.count == 1 and 'double_it' in counter.names[0]
  counter.reset()
  double(three)
  counter.assert_none()
  double(four)
  with pytest.raises(RuntimeError, match='1 programs were compiled after warm-up: .*double_it'):
    counter.assert_none()
  counter.assert_none(allowed=tuple(counter.names))


def test_a_copy_without_git_is_told_its_commit(monkeypatch):
  monkeypatch.setenv('PATH', '')  # no git, as in an image
  monkeypatch.delenv('MEM1_COMMIT', raising=False)
  assert metrics.commit() == 'unknown'
  monkeypatch.setenv('MEM1_COMMIT', 'ab' * 20)
  assert metrics.commit() == 'ab' * 20


def test_run_folder_explains_itself(tmp_path):
  for _ in range(2):  # started, then resumed
    described = metrics.describe_run(
        tmp_path, 'lr = 1\n', seed=3, extra={'config': 'atlas.py'},
        files={'checkpoints/': 'one per step'})
  assert json.loads((tmp_path / 'run.json').read_text()) == described
  assert described['seed'] == 3 and described['config'] == 'atlas.py'
  assert len(described['starts']) == 2
  start = described['starts'][0]
  assert start['versions']['jax'] == jax.__version__
  assert start['machine']['num_devices'] == jax.device_count()
  assert re.fullmatch(r'[0-9a-f]{40}(\+changes)?|unknown', start['commit'])
  assert (tmp_path / 'config.txt').read_text() == 'lr = 1\n'
  readme = (tmp_path / 'README.txt').read_text()
  for name in ('run.json', 'config.txt', 'metrics.jsonl', 'checkpoints/    one per step'):
    assert name in readme
