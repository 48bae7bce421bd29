"""Run configurations: `base.py` lists every knob, the others differ from it.

The folder is also the package `mem1_jax.configs`, so that an installed wheel
carries it: a configuration imports its base as `from mem1_jax.configs import base`.
"""

import pathlib


def resolve(config: str) -> str:
  """The file that `--config` names: a path (`configs/atlas.py`) or a name (`atlas`).

  What follows a colon (the argument of `get_config`) is kept. A path that exists
  wins; otherwise the configuration of that name that is installed with the package.

  Raises:
    ValueError: neither exists; the message lists the names that do.
  """
  path, colon, argument = config.partition(':')
  if path.endswith('.py') and pathlib.Path(path).is_file():
    return config
  folder = pathlib.Path(__file__).resolve().parent
  name = path.removeprefix('configs/').removesuffix('.py')
  packaged = folder / f'{name}.py'
  if name.startswith(('.', '/', '_')) or not packaged.is_file():
    known = sorted(
        str(file.relative_to(folder).with_suffix('')) for file in folder.rglob('[!_]*.py')
    )
    raise ValueError(
        f'--config={config!r} is neither a file nor a configuration of this package; give a '
        f'path to a .py file, or one of: {", ".join(known)}'
    )
  return str(packaged) + colon + argument
