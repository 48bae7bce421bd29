"""Run folders in a bucket in memory; etils, fsspec, Orbax and tensorstore are the real ones."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from mem1_jax import checkpoint, evaluate, main, metrics, preemption, sft, storage, train
from mem1_jax.report import runs
from tests import bucket
from tests.preemption_test import numbers, told_at
from tests.tiny import tiny_config


@pytest.fixture
def store():
  with bucket.serving() as served:
    yield served.store


def test_paths_of_this_machine_are_those_of_pathlib(tmp_path):
  where = storage.path(str(tmp_path / 'a'))
  assert where == tmp_path / 'a' == storage.local(str(where)) and not storage.is_remote(where)
  assert storage.absolute(storage.path('a')).is_absolute()


def test_what_is_no_place_for_a_run_is_refused():
  with pytest.raises(ValueError, match='ftp:// is no place for a run; .* one of gs://, s3://'):
    storage.path('ftp://host/run')
  with pytest.raises(ValueError, match='gs://bucket/run is in a bucket; give a folder of this'):
    storage.local('gs://bucket/run')


@pytest.mark.skipif(importlib.util.find_spec('gcsfs') is not None, reason='gcsfs is installed')
def test_a_missing_package_is_named(capsys):
  with bucket.without_tensorflow(), pytest.raises(SystemExit) as error:
    main.run(['train', '--workdir=gs://bucket/run', '--config.compilation_cache='])
  said = capsys.readouterr().err
  assert error.value.code == 2
  assert 'gs://bucket/run cannot be reached without the package gcsfs' in said
  assert said.endswith('pip install gcsfs\n')


@pytest.mark.parametrize('is_remote', [False, True])
def test_lines_are_there_once_they_are_added(store, tmp_path, is_remote):
  where = storage.path('gs://bucket/a.jsonl' if is_remote else tmp_path / 'a.jsonl')
  for part in (('a', 'b'), ('c',)):
    lines = storage.Lines(where)
    for line in part:
      lines.add(line)
      assert where.read_text().endswith(f'{line}\n')
    lines.close()
  assert where.read_text() == 'a\nb\nc\n'
  storage.write_whole(where, 'd\n')
  assert where.read_text() == 'd\n' and where.with_suffix('.tmp').exists() is False


def test_long_files_of_a_bucket_are_written_now_and_then(store):
  where = storage.path('gs://bucket/long.jsonl')
  lines = storage.Lines(where, every_s=1000)
  for line in 'abc':
    lines.add(line)
  assert where.read_text() == 'a\n'
  lines.close()
  assert where.read_text() == 'a\nb\nc\n'


@pytest.mark.parametrize('is_remote', [False, True])
def test_what_is_written_on_a_disk_is_brought_to_the_bucket(store, tmp_path, is_remote):
  where = storage.path('gs://bucket/b' if is_remote else tmp_path / 'b')
  where.mkdir(exist_ok=True)
  with storage.staged(where) as here:
    assert (here == where) is not is_remote
    (here / 'deep').mkdir()
    (here / 'deep' / 'x').write_bytes(b'\0x')
  assert (where / 'deep' / 'x').read_bytes() == b'\0x'
  assert here.exists() is not is_remote


def test_metrics_and_checkpoints_in_a_bucket(store):
  run = storage.path('gs://bucket/run')
  metrics.describe_run(run, 'config', seed=3)
  described = metrics.describe_run(run, 'config', seed=3)
  assert json.loads((run / 'run.json').read_text()) == described and len(described['starts']) == 2
  for resume_step in (None, 1):  # a line that is done again is there once
    writer = metrics.MetricsWriter(run, resume_step=resume_step)
    for step in range(1 + (resume_step or 0), 4):
      writer.write(step, {'reward': step / 2})
    writer.close()
  assert [line['step'] for line in metrics.read_metrics(run)] == [1, 2, 3]
  assert any('events.out.tfevents' in name for name in store)
  state = {'x': np.arange(5, dtype=np.float32)}
  keeper = checkpoint.Checkpointer(run / 'checkpoints', keep=1, best_metric='em')
  for step in (1, 2, 3):
    keeper.save(step, jax.tree.map(lambda x: jax.numpy.asarray(x * step), state), {'at': step})
    if step == 1:
      keeper.rank(1, {'em': 0.5})
  keeper.close()
  del store[next(name for name in store if name.endswith('checkpoints/3/commit_success.txt'))]
  keeper = checkpoint.Checkpointer(run / 'checkpoints', keep=1, best_metric='em')
  assert keeper.steps() == [1]
  found, meta = keeper.restore_latest(state)
  np.testing.assert_array_equal(found['x'], state['x'])
  assert meta == {'at': 1}
  checkpoint.save_params(run / 'params', state, {'seed': 3}, 'float32')
  loaded, meta = checkpoint.load_params('gs://bucket/run/params')
  np.testing.assert_array_equal(loaded['x'], state['x'])
  curve, = runs.find([run]).curves
  assert curve.run == 'run' and curve.lines['reward'] == [(1, 0.5), (2, 1.0), (3, 1.5)]


@pytest.mark.slow
def test_training_in_a_bucket_is_told_to_end_and_goes_on_as_on_a_disk(store, tmp_path, monkeypatch):
  config = tiny_config()
  config.ppo.iterations, config.log.tensorboard = 2, True
  run = storage.path('gs://bucket/ppo')
  with monkeypatch.context() as patch, pytest.raises(preemption.Preempted, match='gs://bucket/ppo'):
    told_at(patch, train, 'policy_params', 2)
    train.run(config, run, profile=1)
  resumed = train.run(config, run, is_resumed=True)
  whole = train.run(config, tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)
  assert numbers(run) == numbers(tmp_path / 'whole')
  assert {name.split('/')[3] for name in store if name.startswith('/bucket/ppo/')} == {
      'run.json', 'config.txt', 'README.txt', 'metrics.jsonl', 'checkpoints', 'samples',
      'tensorboard', 'profile'}


@pytest.mark.slow
def test_supervised_parameters_in_a_bucket_are_evaluated_and_reported(store):
  config = tiny_config()
  config.sft.steps = 2
  config.init = str(sft.run(config, storage.path('gs://bucket/sft')))
  assert config.init == 'gs://bucket/sft/params'
  cells = evaluate.run(config, storage.path('gs://bucket/evaluation'))
  assert set(cells) == {'1', '2'}
  found = runs.find([storage.path('gs://bucket/evaluation'), storage.path('gs://bucket/sft')])
  assert [len(cell.records) for cell in found.evaluated] == [4, 4] and not found.problems
  assert [curve.run for curve in found.curves] == ['sft']
