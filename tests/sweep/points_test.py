"""Sweeps by hand: what the functions make, how points are called, what is refused."""

import pathlib

import numpy as np
import pytest

from mem1_jax import configs
from mem1_jax.sweep import points
from mem1_jax.sweep.points import chain, named, product, sweep, zipped

SWEEPS = sorted(path.stem for path in (
    pathlib.Path(configs.__file__).resolve().parent / 'sweeps').glob('*.py'))


def test_a_product_varies_its_last_part_fastest():
  assert product(sweep('a', [1, 2]), sweep('b', 'xy')) == [
      {'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}, {'a': 2, 'b': 'y'}]


def test_zipped_goes_side_by_side_and_chain_one_after_another():
  assert zipped(sweep('a', [1, 2]), sweep('b', [3, 4])) == [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
  assert chain(sweep('a', [1]), [{'b': 2}]) == [{'a': 1}, {'b': 2}]
  with pytest.raises(ValueError, match=r'\[1, 2\] points'):
    zipped(sweep('a', [1]), sweep('b', [3, 4]))


@pytest.mark.parametrize('join', [product, zipped])
def test_a_knob_has_one_value(join):
  with pytest.raises(ValueError, match='a is given twice'):
    join(sweep('a', [1]), sweep('a', [2]))


def test_points_are_named_by_what_differs():
  found = named(product(sweep('optim.policy_lr', [1e-4, 3e-4]), sweep('rows.length', [64]),
                        sweep('data.objectives', [(1, 2), [1, 4]])))
  assert [point.name for point in found] == [
      '00-policy_lr=0.0001,objectives=1-2', '01-policy_lr=0.0001,objectives=1-4',
      '02-policy_lr=0.0003,objectives=1-2', '03-policy_lr=0.0003,objectives=1-4']
  assert found[1].arguments == ['--config.optim.policy_lr=0.0001', '--config.rows.length=64',
                                '--config.data.objectives=(1, 4)']


def test_zipped_knobs_go_by_the_first_one():
  texts = [point.overrides for point in named(product(
      zipped(sweep('a', [1, 2]), sweep('b', [8, 9]), sweep('c', [5, 5])), sweep('seed', [0, 1])))]
  assert points.swept(texts) == ['a', 'b', 'seed'] and points.leading(texts) == ['a', 'seed']
  chained = chain(sweep('agent', ['x']), product(sweep('agent', ['y']), sweep('budget', [1, 2])))
  assert points.leading(chained) == ['agent', 'budget']


def test_names_are_fit_for_folders():
  found = named(product(sweep('init', ['atlas/mem1', '']), sweep('ppo.epochs', [1, 2]),
                        sweep('other.epochs', ['é' * 200, '..'])))
  assert found[0].name.startswith('00-init=atlas-mem1,ppo.epochs=1,other.epochs=')
  assert found[7].name == '07-init=none,ppo.epochs=2,other.epochs=..'
  assert all(len(point.name) <= 120 and '/' not in point.name for point in found)
  assert named([{}])[0].name == '00-as-it-is'
  assert named(sweep('seed', range(101)))[7].name == '007-seed=7'


def test_numbers_of_numpy_are_plain():
  assert named(sweep('a', np.float64([0.5])))[0].overrides == {'a': '0.5'}


@pytest.mark.parametrize('made, message', [
    ([], 'at least one'), ([3], 'at least one'), ([{'a': 1}, {'a': 1}], 'points 0 and 1 are both')])
def test_what_is_no_sweep(made, message):
  with pytest.raises(ValueError, match=message):
    named(made)


def write(tmp_path, text):
  file = tmp_path / 'mine.py'
  file.write_text('from mem1_jax.sweep.points import sweep\n' + text)
  return str(file)


def test_a_file_is_read_and_its_mistakes_are_told_with_its_name(tmp_path):
  file = write(tmp_path, 'def get_sweep():\n  return sweep("seed", range(3))\n')
  assert len(points.load(file)) == 3
  file = write(tmp_path, 'def get_sweep(most="2"):\n  return sweep("seed", range(int(most)))\n')
  assert len(points.load(file)) == 2 and len(points.load(f'{file}:4')) == 4
  with pytest.raises(ValueError, match=r'mine\.py has no function get_sweep'):
    points.load(write(tmp_path, ''))
  with pytest.raises(ValueError, match=r'mine\.py: .*at least one'):
    points.load(write(tmp_path, 'def get_sweep():\n  return []\n'))


@pytest.mark.parametrize('knob, value, message', [
    ('optim.polcy_lr', 1.0, r'point 0 of the sweep .*mine\.py: .*Did you mean "policy_lr"'),
    ('ppo.epochs', 1.5, r'point 0 of the sweep .*mine\.py: .*expected int'),
    ('ppo.clip', 0.1, r'--config\.ppo\.clip is swept by .*mine\.py')])
def test_a_point_that_no_config_has_is_refused(tmp_path, knob, value, message):
  file = write(tmp_path, f'def get_sweep():\n  return sweep({knob!r}, [{value!r}])\n')
  with pytest.raises(ValueError, match=message):
    points.check(points.load(file), 'base', ['--config.ppo.clip=0.1'], file)


@pytest.mark.parametrize('name', SWEEPS)
def test_every_packaged_sweep_is_one(name):
  found = points.load(name)
  points.check(found, 'atlas', [], name)
  assert len(found) > 1
