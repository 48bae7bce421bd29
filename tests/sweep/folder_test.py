"""What a sweep's folder remembers, and what it refuses."""

import json
import multiprocessing

import pytest

from mem1_jax import configs
from mem1_jax.sweep import folder
from mem1_jax.sweep.points import named, sweep

POINTS = named(sweep('optim.policy_lr', [1e-3, 1e-4]))


def define(tmp_path, points=POINTS, commands=('train',), knobs=()):
  folder.define(tmp_path, points, commands, configs.load('base', list(knobs)), 'mine')


def test_a_sweep_is_read_as_it_was_written_and_may_be_defined_again(tmp_path):
  define(tmp_path)
  define(tmp_path)
  points, said = folder.read_definition(tmp_path)
  assert points == POINTS and said['commands'] == ['train'] and said['sweep'] == 'mine'
  assert said['config']['agent'] == 'mem1' and said['config']['ppo.clip'] == '0.2'
  assert [path.name for path in tmp_path.iterdir()] == ['points.json']


@pytest.mark.parametrize('change, message', [
    ({'points': named(sweep('optim.policy_lr', [1e-3, 2e-4]))},
     'point 1 had optim.policy_lr=0.0001, not 0.0002'),
    ({'points': named(sweep('seed', [1, 2]))}, 'point 0 had optim.policy_lr=0.001, not as it is'),
    ({'points': named(sweep('optim.policy_lr', [1e-3]))}, 'it had 2 points, not 1'),
    ({'commands': ('train', 'evaluate')}, "its command was 'train', not 'train then evaluate'"),
    ({'knobs': ['--config.ppo.clip=0.1']}, 'ppo.clip was 0.2, not 0.1'),
    ({'knobs': ['--config.init=atlas/mem1']}, 'init was empty, not atlas/mem1')])
def test_another_sweep_is_refused_by_what_differs(tmp_path, change, message):
  define(tmp_path)
  with pytest.raises(ValueError, match='holds another sweep') as error:
    define(tmp_path, **change)
  assert message in str(error.value) and '--workdir' in str(error.value)
  define(tmp_path)  # what was there is there


def test_a_knob_that_is_new_in_the_code_is_no_difference(tmp_path):
  define(tmp_path)
  said = json.loads((tmp_path / 'points.json').read_text())
  del said['config']['ppo.clip']
  (tmp_path / 'points.json').write_text(json.dumps(said))
  define(tmp_path)


def test_a_folder_without_a_sweep(tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no sweep'):
    folder.read_definition(tmp_path)


def test_running_without_a_process_is_interrupted(tmp_path):
  point = POINTS[0]
  assert folder.status(tmp_path, point) == folder.Status()
  running = folder.Status('running', ('train',), 2.5, 1)
  with folder.locked(tmp_path, point) as lock:
    assert lock is not None
    folder.write_status(tmp_path, point, running)
    assert folder.status(tmp_path, point) == running
  assert folder.status(tmp_path, point).state == 'interrupted'
  assert folder.status(tmp_path, point).stages == ('train',)


def _state_elsewhere(tmp_path, results):
  with folder.locked(tmp_path, POINTS[0]) as lock:
    results.put(lock is None)


def test_a_point_is_run_by_one_process(tmp_path):
  context = multiprocessing.get_context('spawn')
  results = context.Queue()
  with folder.locked(tmp_path, POINTS[0]) as lock:
    assert lock is not None
    process = context.Process(target=_state_elsewhere, args=(tmp_path, results))
    process.start()
    assert results.get(timeout=60)
    process.join()
