"""Tasks that `verl:FILE` sources have composed already, as they are: of a split, of a size.

    specs = ['verl:train.parquet', 'verl:validation.parquet']
    make(specs, (), 'train', (1, 2), 0, 'qa')       # a TaskSource; files without such are left out
"""

import collections
import dataclasses
import functools
import sys
from collections.abc import Sequence

from mem1_jax.data import verl
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.compose import Ready
from mem1_jax.data.mixture import Mixture, TaskSource
from mem1_jax.types import Task


def sizes(specs: Sequence[str], split: str) -> tuple[int, int]:
  """Fewest and most questions of a task of the split.

  Raises:
    FileNotFoundError, ImportError, ValueError: as `make` does.
  """
  found = [len(task.questions) for spec in specs for task in _tasks(spec).get(split, ())]
  if not found:
    raise _nothing(specs, split, 'any number of')
  return min(found), max(found)


def make(specs: Sequence[str], weights: Sequence[float], split: str,
         objectives: int | tuple[int, int], seed: int, domain: str) -> TaskSource:
  """The tasks of a split with `objectives` questions (a number, or fewest and most).

  Args:
    specs: `verl:FILE` each.
    weights: how often tasks are of each; those without such tasks are left out.
    seed: of their order, and of the labels of those that have none.
    domain: that they are asked in.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: Parquet without pyarrow.
    ValueError: another source than a file of tasks, or none has such a task.
  """
  fewest, most = (objectives, objectives) if isinstance(objectives, int) else objectives
  parts, shares = [], []
  for spec, weight in zip(specs, weights, strict=True):
    found = [_asked_in(task, domain) for task in _tasks(spec).get(split, ())
             if fewest <= len(task.questions) <= most]
    if found:
      parts.append(Ready(found, seed, LABELS))
      shares.append(weight)
  if not parts:
    raise _nothing(specs, split, objectives)
  return parts[0] if len(parts) == 1 else Mixture(parts, shares, seed)


def _asked_in(task: Task, domain: str) -> Task:
  return dataclasses.replace(task, questions=tuple(
      dataclasses.replace(question, domain=domain) for question in task.questions))


def _tasks(spec: str) -> dict[str, tuple[Task, ...]]:
  name, _, path = spec.partition(':')
  if name != 'verl':
    raise ValueError(f'data.objectives=() takes tasks as files have them, data.source {spec!r} has '
                     'single questions; write verl:FILE, or say how many questions a task has')
  return _read(path)


@functools.lru_cache(maxsize=16)
def _read(path: str) -> dict[str, tuple[Task, ...]]:
  splits, report = verl.read_splits(path)
  print(report, file=sys.stderr)
  return splits


def _nothing(specs: Sequence[str], split: str, objectives: object) -> ValueError:
  there = collections.Counter((name, len(task.questions)) for spec in specs
                              for name, tasks in _tasks(spec).items() for task in tasks)
  shown = ', '.join(f'{count} of {name} with {size}'
                    for (name, size), count in sorted(there.items()))
  return ValueError(f'data.source {",".join(specs)!r} has no task of split {split!r} with '
                    f'{objectives} questions, but {shown}; name a file with such beside it, by a '
                    'comma, or ask for these')
