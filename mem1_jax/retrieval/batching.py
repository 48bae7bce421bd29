"""Many small calls at once as few large ones."""

import collections
from collections.abc import Callable, Hashable, Sequence
import concurrent.futures
import dataclasses
import queue
import threading
import time
from typing import Any


@dataclasses.dataclass(eq=False)
class _Job:
  """One call of `submit`."""

  items: Sequence[Any]
  key: Hashable
  answer: concurrent.futures.Future = dataclasses.field(
      default_factory=concurrent.futures.Future)


class Batcher:
  """Does `work(items, key)`, a result for each item, in one thread of its own.

  What comes while a call is under way makes the next one, all that has the same key. So a batch
  is as large as the load, and nothing ever waits for one to fill. Whatever is in a batch fails
  alone: where a call raises, its jobs are done one by one.

  Args:
    work: (items, key) → results; gets at most `max_items` items.
    max_items: of one call of `work`.
    max_waiting: items that may wait.

  Attributes:
    num_calls: of `work`.
    num_items: that it was given.
  """

  def __init__(self, work: Callable[[Sequence[Any], Any], Sequence[Any]], max_items: int,
               max_waiting: int):
    self._work, self._max_items, self._max_waiting = work, max_items, max_waiting
    self._waiting: collections.deque[_Job] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self._begun: float | None = None  # of the call under way
    self.num_calls = self.num_items = 0
    # A daemon: a search that hangs must not keep the process alive.
    self._thread = threading.Thread(target=self._run, name='batcher', daemon=True)
    self._thread.start()

  def submit(self, items: Sequence[Any], key: Hashable) -> concurrent.futures.Future:
    """The future results of these items, in order.

    Raises:
      queue.Full: too many wait.
      RuntimeError: it is closed.
    """
    job = _Job(items, key)
    with self._changed:
      if self._is_closed:
        raise RuntimeError('the batcher is closed')
      if self.num_waiting + len(items) > self._max_waiting:
        raise queue.Full(f'{self.num_waiting} queries wait already, at most {self._max_waiting} '
                         'may; ask again later')
      self._waiting.append(job)
      self._changed.notify()
    return job.answer

  @property
  def num_waiting(self) -> int:
    """Items whose call has not begun."""
    with self._changed:
      return sum(len(job.items) for job in self._waiting)

  @property
  def busy_s(self) -> float:
    """How long the call under way has taken so far, seconds; 0 for none."""
    begun = self._begun
    return 0.0 if begun is None else time.monotonic() - begun

  def close(self, wait_s: float = 5.0):
    """Ends the thread once it has done what waits, or leaves it behind."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join(wait_s)

  def _run(self):
    while jobs := self._take():
      self._do([job for job in jobs if job.answer.set_running_or_notify_cancel()])

  def _take(self) -> list[_Job]:
    """The oldest job and those that fit beside it; none once it is closed and done."""
    with self._changed:
      self._changed.wait_for(lambda: self._waiting or self._is_closed)
      taken, left, num_items = [], collections.deque(), 0
      for job in self._waiting:
        fits = not taken or (
            job.key == taken[0].key and num_items + len(job.items) <= self._max_items)
        (taken if fits else left).append(job)
        num_items += fits * len(job.items)
      self._waiting = left
      return taken

  def _do(self, jobs: Sequence[_Job]):
    items = [item for job in jobs for item in job.items]
    try:
      results = iter(self._results(items, jobs[0].key)) if jobs else iter(())
    except Exception as error:  # pylint: disable=broad-except
      if len(jobs) == 1:
        jobs[0].answer.set_exception(error)
        return
      for job in jobs:
        self._do([job])
      return
    for job in jobs:
      job.answer.set_result([next(results) for _ in job.items])

  def _results(self, items: Sequence[Any], key: Any) -> list[Any]:
    results = []
    for start in range(0, len(items), self._max_items):
      some = items[start:start + self._max_items]
      self._begun = time.monotonic()
      self.num_calls += 1
      self.num_items += len(some)
      try:
        found = self._work(some, key)
      finally:
        self._begun = None
      if len(found) != len(some):
        raise ValueError(f'{len(found)} results of {len(some)} items')
      results += found
    return results
