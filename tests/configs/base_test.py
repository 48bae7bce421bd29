"""configs/: every packaged config loads, is locked, and every knob is read by something."""

import pathlib
import re

import pytest

from mem1_jax import configs

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / 'configs').glob('[!_]*.py'))


def _knobs(config, prefix=''):
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from _knobs(value, f'{prefix}{name}.')
    else:
      yield prefix + name


@pytest.mark.parametrize('name', NAMES)
def test_every_config_loads_and_refuses_unknown_knobs(name):
  config = configs.load(name, [])
  assert set(_knobs(config)) == set(_knobs(configs.load('base', [])))
  with pytest.raises(AttributeError):
    config.nonsense = 1


@pytest.mark.parametrize('knob', sorted(_knobs(configs.load('base', []))))
def test_every_knob_is_read(knob):
  leaf = knob.rpartition('.')[2]
  readers = [path for path in (ROOT / 'mem1_jax').glob('*.py')
             if re.search(rf'\.{leaf}\b', path.read_text())]
  assert readers, f'{knob} is read by nothing'


