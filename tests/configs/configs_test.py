"""configs/: `--config=atlas` finds the packaged copy, a path finds the path."""

import importlib
import os
import pathlib

import pytest

from mem1_jax import configs

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A package of configurations, as after an installation, away from the repository."""
  packaged = tmp_path / 'site' / 'configs'
  (packaged / 'sweeps').mkdir(parents=True)
  for name in ('__init__', 'base', 'atlas', 'sweeps/lr'):
    (packaged / f'{name}.py').write_text('')
  monkeypatch.setattr(configs, '__file__', str(packaged / '__init__.py'))
  monkeypatch.chdir(tmp_path)
  return packaged


@pytest.mark.parametrize('name', ['atlas', 'atlas.py', 'configs/atlas.py', 'configs/atlas'])
def test_a_name_finds_the_packaged_file(folder, name):
  assert configs.resolve(name) == str(folder / 'atlas.py')


def test_the_argument_after_a_colon_is_kept(folder):
  assert configs.resolve('atlas:3') == str(folder / 'atlas.py') + ':3'


@pytest.mark.parametrize('name', ['lr', 'lr.py', 'configs/sweeps/lr.py'])
def test_a_sweep_is_found_among_sweeps(folder, name):
  assert configs.resolve(name, 'sweep') == str(folder / 'sweeps' / 'lr.py')
  with pytest.raises(ValueError, match="--sweep='atlas' is neither .* a sweep .* one of: lr"):
    configs.resolve('atlas', 'sweep')


def test_a_file_that_exists_wins(folder, tmp_path):
  (tmp_path / 'atlas.py').write_text('')
  assert configs.resolve('atlas.py:x') == 'atlas.py:x'
  assert configs.resolve('atlas') == str(folder / 'atlas.py')


@pytest.mark.parametrize('name', ['atlsa', '../atlas', '/atlas', '__init__', 'sweeps/lr', ''])
def test_an_unknown_name_lists_the_known(folder, name):
  with pytest.raises(ValueError, match='one of: atlas, base$'):
    configs.resolve(name)


def test_the_package_is_the_folder():
  assert os.path.samefile(pathlib.Path(configs.__file__).parent, ROOT / 'configs')
  for file in (ROOT / 'configs').glob('[!_]*.py'):
    importlib.import_module(f'mem1_jax.configs.{file.stem}')
