"""What run folders hold: evaluated cells, their trajectories, samples of training, curves.

    NAME-N.json      means of NAME's trajectories on N questions   (evaluate)
    NAME-N.jsonl     those trajectories; any .jsonl of trajectories counts, the MEM1 release's too
    metrics.jsonl    numbers by training step                      (train, sft)
    samples/*.jsonl  trajectories met in training, shown and in no table
    run.json         how the run was started
"""

from collections.abc import Iterable, Sequence
import dataclasses
import itertools
import json
import math
import os
import re
from typing import Any

from mem1_jax import storage
from mem1_jax.report import intervals, records

_CELL = re.compile(r'(.+)-(\d+)')
_PASSED_OVER = {'checkpoints', 'params', 'tensorboard'}  # large, and nothing for this


@dataclasses.dataclass(frozen=True)
class Cell:
  """An agent on tasks of one size.

  Attributes:
    run: the name of its run.
    agent: the name of its file.
    objectives: questions in each task.
    estimates: {metric: mean and interval}; no intervals where there are no trajectories.
    records: its trajectories, in the file's order.
    is_sample: met in training: to be looked at, in no table.
  """

  run: str
  agent: str
  objectives: int
  estimates: dict[str, intervals.Estimate]
  records: tuple[dict[str, Any], ...] = ()
  is_sample: bool = False


@dataclasses.dataclass(frozen=True)
class Curve:
  """What a training run wrote down: {name: [(step, finite number), …]}."""

  run: str
  lines: dict[str, list[tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class Found:
  """All that was found.

  Attributes:
    cells: by run, agent and objectives.
    curves: one for each metrics.jsonl.
    origins: seed, commit and machine of the runs that say so, a line each.
    problems: what could not be read or does not agree, a line each.
  """

  cells: tuple[Cell, ...]
  curves: tuple[Curve, ...] = ()
  origins: tuple[str, ...] = ()
  problems: tuple[str, ...] = ()

  @property
  def evaluated(self) -> list[Cell]:
    """The cells that belong in tables."""
    return [cell for cell in self.cells if not cell.is_sample]


def find(paths: Sequence[storage.Path]) -> Found:
  """Everything in run folders, or files of trajectories.

  Raises:
    FileNotFoundError: one of them is not there.
    ValueError: there is nothing to report in any of them, or a file that was named holds no
      trajectory.
  """
  cells, curves, origins, problems = [], [], [], []
  for path, run in zip(paths, _names(paths), strict=True):
    if not path.exists():
      raise FileNotFoundError(f'{path} is not there; name a run folder or a .jsonl of trajectories')
    if path.is_file():
      reading = records.read(path)
      cells += _cells_of(run, reading, path.stem)
      problems += reading.problems
      continue
    found = _in_folder(path, run)
    for one, all_ in zip(found, (cells, curves, origins, problems), strict=True):
      all_ += one
  if not cells and not curves:
    raise ValueError(f'nothing to report in {", ".join(map(str, paths))}: no NAME-N.json or .jsonl '
                     'of trajectories (`main evaluate` writes them) and no metrics.jsonl')
  order = sorted(cells, key=lambda c: (c.is_sample, c.run, c.agent, c.objectives))
  return Found(tuple(order), tuple(curves), tuple(origins), tuple(problems))


def _names(paths: Sequence[storage.Path]) -> list[str]:
  """The shortest ends of the paths that tell them apart."""
  whole = [path if storage.is_remote(path) else path.resolve() for path in paths]
  parts = [path.with_suffix('').parts if path.is_file() else path.parts for path in whole]
  for length in itertools.count(1):
    names = ['/'.join(part[-length:]) for part in parts]
    if len(set(names)) == len(set(parts)) or length > max(map(len, parts)):
      return names


def _in_folder(folder: storage.Path, run: str):
  """(cells, curves, origins, problems) of one run folder."""
  files = sorted(_files(folder))
  cells, curves, origins, problems = [], [], [], []
  holders = {file.parent for file in files if _means(file) is not None
             or file.parent.name != 'samples' and _has_trajectories(file)}

  def name(file: storage.Path) -> str:
    inside = file.parent.relative_to(folder).as_posix()
    return run if inside == '.' else f'{run}/{inside}'

  for file in files:
    if file.name == 'metrics.jsonl':
      lines, bad = _curve(file)
      curves.append(Curve(name(file), lines))
      problems += bad
    elif file.name in ('run.json', 'summary.json'):
      origins += _origin(file, name(file))
    elif _has_trajectories(file):
      reading = records.read(file)
      is_sample = file.parent.name == 'samples'
      # One folder of cells needs no name beside its run's.
      where = name(file.parent) if is_sample else run if len(holders) == 1 else name(file)
      new = _cells_of(where, reading, file.stem, is_sample)
      cells += new
      problems += [*reading.problems, *_disagreements(file, new)]
    elif (means := _means(file)) and not _has_trajectories(file.with_suffix('.jsonl')):
      agent, objectives = _CELL.fullmatch(file.stem).groups()
      estimates = {key: intervals.Estimate(value) for key, value in means.items()}
      cells.append(Cell(run if len(holders) == 1 else name(file), agent, int(objectives),
                        estimates))
  return cells, curves, origins, problems


def _files(folder: storage.Path) -> Iterable[storage.Path]:
  for entry in folder.iterdir():
    if entry.name.endswith(('.json', '.jsonl')):
      yield entry
    elif not (entry.name in _PASSED_OVER or entry.name.startswith('.') or os.path.islink(entry)):
      yield from _files(entry) if entry.is_dir() else ()


def _has_trajectories(file: storage.Path) -> bool:
  return file.suffix == '.jsonl' and file.name != 'metrics.jsonl' and records.is_file_of(file)


def _means(file: storage.Path) -> dict[str, float] | None:
  """The numbers of a cell's file; None if it is none."""
  if file.suffix != '.json' or not _CELL.fullmatch(file.stem):
    return None
  found = _json(file)
  is_cell = isinstance(found, dict) and {'em', 'episodes'} <= found.keys()
  return records.numbers(found) if is_cell else None


def _json(file: storage.Path) -> Any:
  """What a file says; None where it is not there or no JSON."""
  if not file.exists():
    return None
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError:
    return None


def _cells_of(run: str, reading: records.Reading, stem: str, is_sample: bool = False) -> list[Cell]:
  """A cell for each number of questions that the file's tasks have."""
  match, cells = _CELL.fullmatch(stem), []
  is_named = match and records.is_one_size(reading.records, int(match[2]))
  agent = match[1] if is_named else stem
  for size in sorted(set(map(records.objectives, reading.records))):
    some = tuple(r for r in reading.records if records.objectives(r) == size)
    scores = [records.numbers(record['score']) for record in some]
    estimates = intervals.estimates(scores)
    if judged := [{'judged': one['judged']} for one in scores if 'judged' in one]:
      estimates |= intervals.estimates(judged)  # the others have no verdict, which is not a no
    estimates['episodes'] = intervals.Estimate(float(len(some)))
    cells.append(Cell(run, agent, size, estimates, some, is_sample))
  return cells


def _disagreements(file: storage.Path, cells: Sequence[Cell]) -> list[str]:
  """Where the means of NAME-N.json are not those of its trajectories, which are what is shown."""
  means = _means(file.with_suffix('.json'))
  if not means or len(cells) != 1:
    return []
  found = {key: one.mean for key, one in cells[0].estimates.items()}
  return [f'{file.stem}.json has {key} {means[key]:.4g} and its trajectories {found[key]:.4g}: '
          'these are shown' for key in ('episodes', 'em')
          if key in found and not math.isclose(means[key], found[key], abs_tol=1e-6)]


def _curve(file: storage.Path) -> tuple[dict[str, list[tuple[float, float]]], list[str]]:
  """({name: points}, problems) of a metrics.jsonl."""
  lines, problems = {}, []
  for number, line in enumerate(file.read_text(encoding='utf-8').split('\n'), 1):
    if not line.strip():
      continue
    try:
      found = json.loads(line)
      step = found['step']
    except (ValueError, KeyError, TypeError):
      problems.append(f'{file.parent.name}/{file.name}, line {number}: no JSON object with `step`; '
                      'was it cut short?')
      continue
    for key, value in records.numbers(found).items():
      if key not in ('step', 'time'):
        lines.setdefault(key, []).append((step, value))
  return lines, problems


def _origin(file: storage.Path, name: str) -> list[str]:
  """Where a run's numbers come from, of run.json or a quickstart's summary.json."""
  found = _json(file)
  if not isinstance(found, dict):
    return []
  start = (found.get('starts') or [found])[-1]
  machine = start.get('machine')
  if isinstance(machine, dict):
    machine = ', '.join(f'{machine[key]}{unit}' for key, unit in (
        ('system', ''), ('cpu_cores', ' CPU cores'), ('device', '')) if key in machine)
  parts = [f'seed {found["seed"]}' if 'seed' in found else '',
           f'commit {str(start["commit"])[:12]}' if start.get('commit') else '', machine or '']
  said = ', '.join(filter(None, parts))
  return [f'{name}: {said}'] if said else []
