"""What is kept of a sweep: its definition, and how far each point has come.

    points.json          what is swept: a folder holds one sweep
    POINT/status.json    how far it has come
    POINT/lock           held by the process that runs the point, and by its commands
    POINT/log.txt        what its commands print
    POINT/train, sft, evaluate    their run folders; POINT/params is what training exports
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mem1_jax.sweep.points import Point

DEFINITION, STATUS, LOCK, LOG = 'points.json', 'status.json', 'lock', 'log.txt'
_SHOWN = 5  # differences of a refused sweep
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Status:
  """How far a point has come.

  Attributes:
    state: waiting | running | done | failed | interrupted; running of a process that is no more
      is interrupted.
    stages: those of its commands that have ended well.
    seconds: of wall time, all its starts together.
    starts: how often it was started.
    exit_status: of the command that ended last: negative is a signal's number.
  """

  state: str = 'waiting'
  stages: tuple[str, ...] = ()
  seconds: float = 0.0
  starts: int = 0
  exit_status: int | None = None


def folder_of(workdir: pathlib.Path, point: Point) -> pathlib.Path:
  """Where a point's runs are."""
  return workdir / point.name


def define(workdir: pathlib.Path, points: Sequence[Point], commands: Sequence[str],
           config: ConfigDict, sweep_name: str):
  """Writes down what is swept, or compares it with what is there.

  Args:
    commands: of each point, in their order.
    config: of all points, before their overrides.

  Raises:
    ValueError: the folder holds another sweep; the message says what differs.
  """
  ours = {
      'sweep': sweep_name, 'commands': list(commands), 'config': _flat(config),
      'points': [{'name': point.name, 'overrides': point.overrides} for point in points],
  }
  workdir.mkdir(parents=True, exist_ok=True)
  new = workdir / f'{DEFINITION}.{os.getpid()}'
  new.write_text(json.dumps(ours, indent=2) + '\n')
  try:
    os.link(new, workdir / DEFINITION)  # of many that begin at once, one is first
  except FileExistsError:
    theirs = json.loads((workdir / DEFINITION).read_text())
    if found := differences(theirs, ours):
      more = f'; and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
      raise ValueError(f'{workdir} holds another sweep: {"; ".join(found[:_SHOWN])}{more}. Begin '
                       'the new one in another --workdir, or go back to the old one') from None
  finally:
    new.unlink()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """What differs between two definitions, a phrase each; nothing if they mean the same.

  Knobs that only one of the configs has are passed over: they came or went with the code.
  """
  found = []
  if old['commands'] != new['commands']:
    found.append(f'its command was {" then ".join(old["commands"])!r}, not '
                 f'{" then ".join(new["commands"])!r}')
  for knob in old['config'].keys() & new['config'].keys():
    if old['config'][knob] != new['config'][knob]:
      found.append(f'{knob} was {old["config"][knob] or "empty"}, not '
                   f'{new["config"][knob] or "empty"}')
  found.sort()
  if len(old['points']) != len(new['points']):
    found.append(f'it had {len(old["points"])} points, not {len(new["points"])}')
  for i, (one, other) in enumerate(zip(old['points'], new['points'])):
    before, after = one['overrides'], other['overrides']
    found += [f'point {i} had {knob}={before.get(knob, "as it is")}, not '
              f'{after.get(knob, "as it is")}'
              for knob in (before | after) if before.get(knob) != after.get(knob)]
  return found


def _flat(config: Any, prefix: str = '') -> dict[str, str]:
  flat = {}
  for name, value in config.items():
    if hasattr(value, 'items'):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value if isinstance(value, str) else repr(value)
  return flat


def read_definition(workdir: pathlib.Path) -> tuple[tuple[Point, ...], dict[str, Any]]:
  """(points, all that points.json says).

  Raises:
    FileNotFoundError: the folder holds no sweep.
  """
  file = workdir / DEFINITION
  if not file.exists():
    raise FileNotFoundError(f'{workdir} holds no sweep; begin one with --sweep=NAME, or give '
                            '--workdir its folder')
  said = json.loads(file.read_text())
  return tuple(Point(i, one['name'], one['overrides'])
               for i, one in enumerate(said['points'])), said


def status(workdir: pathlib.Path, point: Point) -> Status:
  """How far a point has come."""
  folder = folder_of(workdir, point)
  if not (folder / STATUS).exists():
    return Status()
  found = json.loads((folder / STATUS).read_text())
  found = Status(**found | {'stages': tuple(found['stages'])})
  if found.state == 'running' and not is_locked(folder):
    return dataclasses.replace(found, state='interrupted')
  return found


def write_status(workdir: pathlib.Path, point: Point, new: Status):
  """Written beside and renamed: a kill leaves the old one or the new one."""
  path = folder_of(workdir, point) / STATUS
  beside = path.with_suffix('.tmp')
  beside.write_text(json.dumps(dataclasses.asdict(new), indent=2) + '\n')
  beside.replace(path)


@contextlib.contextmanager
def locked(workdir: pathlib.Path, point: Point) -> Iterator[int | None]:
  """The descriptor of a point's lock while it is held; None if another process has it.

  A process that gets the descriptor holds the lock until it has ended, too: what a killed
  sweep leaves running is not started beside itself.
  """
  folder = folder_of(workdir, point)
  folder.mkdir(exist_ok=True)
  with (folder / LOCK).open('w') as file:
    for _ in range(_TRIES):  # `is_locked` of another process holds it for a moment
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        time.sleep(0.1)
    else:
      yield None
      return
    yield file.fileno()


def is_locked(folder: pathlib.Path) -> bool:
  """Whether a process runs the point now."""
  if not (folder / LOCK).exists():
    return False
  with (folder / LOCK).open() as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False
