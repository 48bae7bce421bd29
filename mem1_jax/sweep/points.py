"""Points of a sweep: lists of overrides, made of a few functions, and their names.

A file in configs/sweeps/ says which:

    from mem1_jax.sweep.points import product, sweep

    def get_sweep():
      return product(sweep('optim.policy_lr', [1e-4, 3e-4]), sweep('seed', range(2)))

Each function returns a list of `{knob: value}`, so that they nest, and a plain list will do, too.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib.util
import itertools
import re
from typing import Any

from mem1_jax import configs

Overrides = Mapping[str, Any]  # dotted knob → value
REPLICATE = 'seed'  # points that differ in nothing else are one setting, done again
_MAX_NAME = 120  # characters of a folder's; file systems take 255 bytes


def sweep(knob: str, values: Iterable[Any]) -> list[Overrides]:
  """A point for each value of one knob."""
  return [{knob: value} for value in values]


def product(*parts: Sequence[Overrides]) -> list[Overrides]:
  """Each point of each part with each of the others; the last part varies fastest."""
  return [_joined(some) for some in itertools.product(*parts)]


def zipped(*parts: Sequence[Overrides]) -> list[Overrides]:
  """The first points of all parts together, then the second ones, and so on.

  Raises:
    ValueError: the parts are of different lengths.
  """
  lengths = [len(part) for part in parts]
  if len(set(lengths)) > 1:
    raise ValueError(f'zipped parts have {lengths} points; make them equally many')
  return [_joined(some) for some in zip(*parts)]


def chain(*parts: Sequence[Overrides]) -> list[Overrides]:
  """The points of one part after those of another."""
  return list(itertools.chain(*parts))


def _joined(some: Sequence[Overrides]) -> Overrides:
  knobs = [knob for one in some for knob in one]
  if twice := sorted({knob for knob in knobs if knobs.count(knob) > 1}):
    raise ValueError(f'{", ".join(twice)} is given twice for one point; leave it in one part')
  return {knob: value for one in some for knob, value in one.items()}


@dataclasses.dataclass(frozen=True)
class Point:
  """One run of a sweep.

  Attributes:
    index: its place, from 0.
    name: of its folder: `03-policy_lr=0.0003,seed=1`.
    overrides: {dotted knob: its value as text}.
  """

  index: int
  name: str
  overrides: dict[str, str]

  @property
  def arguments(self) -> list[str]:
    """Of the command line."""
    return [f'--config.{knob}={text}' for knob, text in self.overrides.items()]


def load(name: str) -> tuple[Point, ...]:
  """The points of `--sweep`: a file, or the name of one in configs/sweeps/.

  Raises:
    ValueError: there is no such file, it has no `get_sweep`, or what that returns is no sweep.
  """
  file, _, argument = configs.resolve(name, 'sweep').partition(':')
  spec = importlib.util.spec_from_file_location('mem1_jax_sweep', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_sweep'):
    raise ValueError(f'{file} has no function get_sweep(), which returns the points')
  try:
    return named(module.get_sweep(argument) if argument else module.get_sweep())
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from error


def named(sweep_: Sequence[Overrides]) -> tuple[Point, ...]:
  """The points of a sweep, in its order.

  Raises:
    ValueError: there is none, or two are the same.
  """
  if not sweep_ or not all(isinstance(one, Mapping) for one in sweep_):
    raise ValueError(f'the sweep is {sweep_!r}; it must be a list of at least one {{knob: value}}')
  texts = [{knob: _text(value) for knob, value in one.items()} for one in sweep_]
  for i, one in enumerate(texts):
    if one in texts[:i]:
      raise ValueError(f'points {texts.index(one)} and {i} are both {one or "without overrides"}; '
                       'leave one out')
  short = short_names({knob for one in texts for knob in one})
  varied = leading(texts)
  digits = max(2, len(str(len(texts) - 1)))
  points = []
  for i, one in enumerate(texts):
    said = ','.join(f'{short[knob]}={_plain(text)}' for knob, text in one.items()
                    if knob in varied)
    points.append(Point(i, f'{i:0{digits}d}-{said or "as-it-is"}'[:_MAX_NAME], one))
  return tuple(points)


def swept(texts: Sequence[Mapping[str, str]]) -> list[str]:
  """Knobs that differ between points, in the order in which they come up."""
  knobs = dict.fromkeys(knob for one in texts for knob in one)
  return [knob for knob in knobs if len({one.get(knob) for one in texts}) > 1]


def leading(texts: Sequence[Mapping[str, str]]) -> list[str]:
  """Those of them that no earlier one determines: knobs that were zipped go by the first one."""
  found = []
  for knob in swept(texts):
    pairs = lambda other: {(one.get(other), one.get(knob)) for one in texts}
    if not any(len(pairs(other)) == len({one.get(other) for one in texts}) for other in found):
      found.append(knob)
  return found


def short_names(knobs: Iterable[str]) -> dict[str, str]:
  """{knob: its last part, or the whole where that is not unique}."""
  knobs = list(knobs)
  leaves = [knob.rpartition('.')[2] for knob in knobs]
  return {knob: leaf if leaves.count(leaf) == 1 else knob for knob, leaf in zip(knobs, leaves)}


def _text(value: Any) -> str:
  """As the command line takes it."""
  if hasattr(value, 'item'):  # NumPy's
    value = value.item()
  return value if isinstance(value, str) else repr(tuple(value) if isinstance(value, list)
                                                   else value)


def _plain(text: str) -> str:
  """A value as part of a file's name."""
  return re.sub(r'[^\w.+-]+', '-', text).strip('-') or 'none'


def check(points: Sequence[Point], config_name: str, given: Sequence[str], sweep_name: str):
  """That each point has a config.

  Args:
    config_name: `--config`.
    given: overrides of all points, from the command line.
    sweep_name: `--sweep`, for messages.

  Raises:
    ValueError: a point sets a knob that does not exist, or one that `given` sets, too, or to a
      value of another type.
  """
  taken = {text.removeprefix('--config.').partition('=')[0] for text in given}
  for point in points:
    if both := sorted(taken & point.overrides.keys()):
      raise ValueError(f'--config.{both[0]} is swept by {sweep_name}, so it has no one value; '
                       'leave it out of the command line, or out of the sweep')
    try:
      configs.load(config_name, [*given, *point.arguments])
    except ValueError as error:
      file = configs.resolve(sweep_name, 'sweep')
      raise ValueError(f'point {point.index} of the sweep {file}: '
                       + ': '.join(str(error).splitlines())) from error
