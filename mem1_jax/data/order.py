"""Which item each slot holds: all of them once per epoch, and none twice in one task.

    slots     0 1 2 3 4 5 6 7 8 9 …      one permutation of the items per epoch
    tasks     [ 0 ] [ 1   ] [2] …        each task takes the next slots

A task may reach across the end of an epoch. What the new epoch would repeat in it then
changes places with an item a little further on, so that every epoch stays whole.
"""

from collections.abc import Iterator

import numpy as np

from mem1_jax.data.permutation import hash64, hashes, permute, permuted
from mem1_jax.data.schedule import Schedule

_MAX_TABLE = 1 << 17  # items; the permutation of so many takes tens of milliseconds


class Order:
  """Slots → items, int64 in [0, num_items), as a pure function of the seed.

  Attributes:
    is_exact: whether no item comes twice in a task; else the caller has to see to it.
  """

  def __init__(self, num_items: int, seed: int, schedule: Schedule, swaps: bool):
    """With `swaps`, and four times as many items as the largest task, the order is exact."""
    self._num, self._seed, self._schedule = num_items, seed, schedule
    self.is_exact = swaps and num_items >= 4 * schedule.max_slots
    # A new epoch's head: at most max_slots of it lie in the task that reaches into it, and
    # one of twice as many more can take the place of each item that this task already has.
    self._head = 3 * schedule.max_slots
    self._tables: dict[int, np.ndarray] = {}

  def items(self, slot: np.ndarray) -> np.ndarray:
    """The items of these slots [n]."""
    found = np.empty(len(slot), np.int64)
    epoch, within = np.divmod(slot, self._num)
    for number in np.unique(epoch).tolist():
      here = epoch == number
      found[here] = self._drawn(number, within[here])
      is_head = here & (within < self._head)
      if number and self.is_exact and is_head.any():
        found[is_head] = self._heads(number)[within[is_head]]
    return found

  def _drawn(self, epoch: int, within: np.ndarray) -> np.ndarray:
    """Items by their places in an epoch, before anything changes places."""
    if self._num <= _MAX_TABLE:
      return self._table(epoch)[within]
    return self._permuted(epoch, within)

  def _permuted(self, epoch: int, within: np.ndarray) -> np.ndarray:
    return permuted(within, self._num, hashes(self._seed, 2, epoch), np.zeros_like(within))

  def _table(self, epoch: int) -> np.ndarray:
    """An epoch's whole permutation. The last two are kept: that is faster, and all it changes."""
    table = self._tables.get(epoch)
    if table is None:
      table = self._permuted(epoch, np.arange(self._num))
      self._tables = dict([*self._tables.items()][-1:]) | {epoch: table}
    return table

  def _heads(self, epoch: int) -> np.ndarray:
    """The first items of an epoch, with those changed that the task before them already has."""
    border = epoch * self._num
    first, size = self._schedule.at(np.array([self._schedule.task_at(border)]))
    begin = int(first[0])
    inside = begin + self._schedule.num_slots(int(size[0])) - border
    before = np.arange(begin, border) - border + self._num
    taken = set(self._drawn(epoch - 1, before).tolist())
    head = self._drawn(epoch, np.arange(self._head))
    spare = iter([k for k in range(inside, self._head) if int(head[k]) not in taken])
    for k in range(inside if taken else 0):
      if int(head[k]) in taken:
        other = next(spare)
        head[k], head[other] = head[other], head[k]
    return head


def spread(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(first + 0 … first + count - 1 of each, which one it is of, 0 … count - 1), all flat."""
  which = np.repeat(np.arange(len(count)), count)
  rank = np.arange(len(which)) - (np.cumsum(count) - count)[which]
  return first[which] + rank, which, rank


def draw_labels(seed: int, index: np.ndarray, which: np.ndarray, rank: np.ndarray,
                num_labels: int) -> np.ndarray:
  """Numbers of labels, different within each task: for place `rank` of task `index[which]`."""
  return permuted(rank, num_labels, hashes(seed, 3, index), which)


def substitutes(seed: int, slot: int, num_items: int) -> Iterator[int]:
  """All items, from a random one on, for a slot whose own item does not suit its task."""
  begin, key = hash64(seed, 4, slot) % num_items, hash64(seed, 5, slot)
  return (permute((begin + i) % num_items, num_items, key) for i in range(num_items))
