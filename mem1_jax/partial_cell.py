"""What is done of a cell that is not whole, on disk: a run that is killed does only the rest.

    NAME-N.partial    {"made_by": {knob: value}}                  first: what the numbers depend on
                      {"index": 7, "record": {…}, "told": {…}}    a trajectory, as it ends

A line is written at once and flushed. A last one that was cut short is dropped, and its task done
again. `told` is what was counted (searches, a server's tokens) since the line before.
"""

import json
from collections.abc import Mapping
from typing import Any

from mem1_jax import storage

Told = dict[str, Any]
_SHOWN = 8  # knobs that differ
_EVERY_S = 30.0  # between two writes into a bucket


def path_of(cell: storage.Path) -> storage.Path:
  """NAME-N.json → NAME-N.partial, which reports pass over."""
  return cell.with_suffix('.partial')


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Told:
  """Both counts: numbers are added, lists united, objects merged."""
  found = dict(first)
  for name, value in second.items():
    old = found.get(name)
    if old is None:
      found[name] = value
    elif isinstance(value, Mapping):
      found[name] = merged(old, value)
    elif isinstance(value, list):
      found[name] = sorted({*old, *value})
    else:
      found[name] = old + value
  return found


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
  """Knobs that both have and that differ, a text each; one that is new changes nothing old."""
  wanted = json.loads(json.dumps(wanted))  # tuples become lists
  return [f'{name} {there[name]!r} there, {wanted[name]!r} here' for name in sorted(wanted)
          if name in there and there[name] != wanted[name]]


def check(path: storage.Path, there: Mapping[str, Any], wanted: Mapping[str, Any]):
  """Raises ValueError where what is there was made by another config or model, and how it differs."""
  if found := differences(there, wanted):
    more = f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
    raise ValueError(f'{path} was made by another run: {"; ".join(found[:_SHOWN])}{more}. Give '
                     'another --workdir, or delete it')


class PartialCell:
  """The trajectories that a file has, and more of them.

  Args:
    path: `NAME-N.partial`; it need not be there.
    made_by: knobs, and whatever else the numbers depend on, as JSON.

  Attributes:
    records: {index of its task: record}.
    told: all that was counted for them.

  Raises:
    ValueError: the file is of another run, or damaged.
  """

  def __init__(self, path: storage.Path, made_by: Mapping[str, Any]):
    self._path, self._made_by = path, made_by
    self.records: dict[int, dict[str, Any]] = {}
    self.told: Told = {}
    self._whole, self._lines = '', None
    if path.exists():
      self._read(path.read_bytes())

  def _read(self, data: bytes):
    whole, _, _ = data.rpartition(b'\n')  # what follows was cut short
    for number, line in enumerate(whole.split(b'\n') if whole else (), 1):
      try:
        found = json.loads(line)
        if number == 1:
          check(self._path, found['made_by'], self._made_by)
        else:
          self.records.setdefault(found['index'], found['record'])
          self.told = merged(self.told, found['told'])
      except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{self._path}, line {number} is damaged ({error!r}); delete the line, or '
                         'the file') from error
    self._whole = f'{whole.decode()}\n' if whole else ''

  def open(self):
    """Makes ready to add; by one process alone."""
    storage.write_whole(self._path, self._whole)
    self._lines = storage.Lines(self._path, _EVERY_S)
    if not self._whole:
      self._write({'made_by': self._made_by})

  def add(self, index: int, record: Mapping[str, Any], told: Mapping[str, Any]):
    """Writes a trajectory."""
    self._write({'index': index, 'record': record, 'told': told})
    # As it will be read: the same whether it was written now or before.
    self.records[index] = json.loads(json.dumps(record))

  def _write(self, line: Mapping[str, Any]):
    self._lines.add(json.dumps(line))

  def close(self):
    """Stops adding."""
    if self._lines:
      self._lines.close()
      self._lines = None

  def remove(self):
    """Once its cell is whole."""
    self.close()
    self._path.unlink(missing_ok=True)
