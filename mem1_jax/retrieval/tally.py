"""What parts that several threads use have in common: counts, what is kept, and a pace."""

import collections
from collections.abc import Callable, Hashable, Sequence
import logging
import threading
import time
from typing import Any

_TELL_EVERY_S = 60.0


class Tally:
  """Counts by name. Safe to use from several threads.

  Args:
    what: heads the line in the log: `search so far: 3 queries, 1 timeouts`; and the names of
      metrics: `search_queries`.
    names: everything that is counted, the first of which the line begins with.
    quiet: of those, what is by itself no trouble.
  """

  def __init__(self, what: str, names: Sequence[str], quiet: Sequence[str],
               clock: Callable[[], float] = time.monotonic):
    self._what, self._names, self._quiet, self._clock = what, tuple(names), quiet, clock
    self._lock = threading.Lock()
    self._counts: collections.Counter[str] = collections.Counter()
    self._told, self._told_s = {}, -_TELL_EVERY_S

  @property
  def counts(self) -> dict[str, int]:
    """Of every name, since it was made."""
    with self._lock:
      return {name: self._counts[name] for name in self._names}

  def metrics(self) -> dict[str, int]:
    """The same, by names that say what they are of."""
    return {f'{self._what}_{name}': number for name, number in self.counts.items()}

  def count(self, name: str, number: int = 1):
    with self._lock:
      self._counts[name] += number

  def tell(self):
    """Now and then a line in the log, where there is more trouble than was told."""
    with self._lock:
      trouble = {name: n for name, n in self._counts.items() if n and name not in self._quiet}
      if trouble == self._told or self._clock() - self._told_s < _TELL_EVERY_S:
        return
      self._told, self._told_s = trouble, self._clock()
    first = self._names[0]
    logging.warning('%s so far: %d %s, %s', self._what, self._counts[first], first, ', '.join(
        f'{n} {name}' for name, n in sorted(trouble.items())))


class Kept:
  """Values by key, the least recently used go first. Safe to use from several threads."""

  def __init__(self, size: int):
    self._size, self._lock = size, threading.Lock()
    self._values: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

  def get(self, key: Hashable) -> Any:
    """The value, or None."""
    with self._lock:
      if key in self._values:
        self._values.move_to_end(key)
      return self._values.get(key)

  def keep(self, key: Hashable, value: Any):
    with self._lock:
      self._values[key] = value
      self._values.move_to_end(key)
      if len(self._values) > self._size:
        self._values.popitem(last=False)


class Pace:
  """Spaces requests evenly. Safe to use from several threads.

  Args:
    per_s: at most so many a second; 0: no limit.
  """

  def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic,
               sleep: Callable[[float], None] = time.sleep):
    self._gap_s, self._clock, self._sleep = 1 / per_s if per_s else 0.0, clock, sleep
    self._lock, self._next_s = threading.Lock(), clock()

  def wait(self, deadline: float) -> bool:
    """Waits for the next turn; False, at once, where that would not begin before `deadline`."""
    with self._lock:
      now = self._clock()
      start = max(now, self._next_s)
      if start >= deadline:
        return False
      self._next_s = start + self._gap_s
    if start > now:
      self._sleep(start - now)
    return True
