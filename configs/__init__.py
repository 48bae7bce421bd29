"""Run configurations: `base.py` lists every knob, the others differ from it.

The folder is also the package `mem1_jax.configs`, so that an installed wheel
carries it: a configuration imports its base as `from mem1_jax.configs import base`.
"""

import ast
import importlib.util
import pathlib

from ml_collections import ConfigDict


def resolve(name: str, kind: str = 'config') -> str:
  """The file that `--config` or `--sweep` names: a path (`configs/atlas.py`) or a name (`atlas`).

  What follows a colon (the argument of `get_config`) is kept. A path that exists
  wins; otherwise the file of that name that is installed with the package.

  Args:
    kind: config, or sweep for those in `sweeps/`.

  Raises:
    ValueError: neither exists; the message lists the names that do.
  """
  path, colon, argument = name.partition(':')
  if path.endswith('.py') and pathlib.Path(path).is_file():
    return name
  folder = pathlib.Path(__file__).resolve().parent
  place, folder = {'config': ('configs/', folder),
                   'sweep': ('configs/sweeps/', folder / 'sweeps')}[kind]
  stem = path.removeprefix(place).removesuffix('.py')
  packaged = folder / f'{stem}.py'
  if stem.startswith(('.', '_')) or '/' in stem or not packaged.is_file():
    known = sorted(file.stem for file in folder.glob('[!_]*.py'))
    raise ValueError(
        f'--{kind}={name!r} is neither a file nor a {kind} of this package; give a '
        f'path to a .py file, or one of: {", ".join(known)}'
    )
  return str(packaged) + colon + argument


def load(name: str, overrides: list[str]) -> ConfigDict:
  """The config of a file or a packaged name, with `--config.key=value` overrides applied.

  Raises:
    ValueError: on an argument that is no override, an unknown knob or a value of another type.
  """
  path, _, argument = resolve(name).partition(':')
  spec = importlib.util.spec_from_file_location('mem1_jax_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(argument) if argument else module.get_config()
  for text in overrides:
    key, equals, value = text.removeprefix('--config.').partition('=')
    if not text.startswith('--config.') or not equals:
      raise ValueError(f'argument {text!r} is unknown; overrides look like --config.ppo.clip=0.1')
    _override(config, key, value)
  return config


def _override(config: ConfigDict, key: str, text: str):
  *groups, leaf = key.split('.')
  try:
    node = config
    for group in groups:
      node = node[group]
    old = node[leaf]
  except (KeyError, AttributeError, TypeError) as error:
    raise ValueError(f'--config.{key}: {error.args[0] if error.args else error}') from error
  value = text if isinstance(old, str) else _literal(key, text)
  if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if isinstance(old, tuple) and isinstance(value, int):
    value = (value,)
  if type(value) is not type(old):
    raise ValueError(f'--config.{key}={text}: expected {type(old).__name__}, like {old!r}.')
  node[leaf] = value


def _literal(key: str, text: str):
  try:
    return ast.literal_eval({'true': 'True', 'false': 'False'}.get(text.lower(), text))
  except (ValueError, SyntaxError) as error:
    raise ValueError(f'--config.{key}={text}: not a Python literal; quote strings.') from error
