"""How many questions each task has, and which slots of the epochs it takes: a curriculum.

    tasks     0 … 999     1000 …          stages: (0, 1, 2), (1000, 2, 8)
    N         1 and 2     2 to 8          each block of tasks holds every N of its stage once
    slots     [ 0 ][ 1 ]  [ 1000   ] …    a task takes the next N slots, across stages too

Both ways, task → slots and slot → task, cost O(1) (O(N) within a block).
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from mem1_jax.data.permutation import hashes, permuted


@dataclasses.dataclass(frozen=True)
class Stage:
  """From task `start` on, `fewest` to `most` questions per task, spread evenly.

  Raises:
    ValueError: the start is negative, or the numbers are no range of numbers ≥ 1.
  """

  start: int
  fewest: int
  most: int

  def __post_init__(self):
    if self.start < 0:
      raise ValueError(f'stage start={self.start} is negative; tasks are counted from 0')
    if not 1 <= self.fewest <= self.most:
      given = (self.fewest, self.most) if self.fewest != self.most else self.most
      raise ValueError(f'num_objectives={given} is no range of numbers ≥ 1; give N or (low, high)'
                       ' with 1 ≤ low ≤ high')


Objectives = int | tuple[int, int] | Sequence[Stage]


def stages(num_objectives: Objectives) -> tuple[Stage, ...]:
  """A number, an inclusive range, or a curriculum, as stages in their order.

  Raises:
    ValueError: no stage begins at task 0, or two begin at the same one.
  """
  if isinstance(num_objectives, int):
    num_objectives = (num_objectives, num_objectives)
  if len(num_objectives) == 2 and all(isinstance(n, int) for n in num_objectives):
    return (Stage(0, *num_objectives),)
  found = tuple(sorted(num_objectives, key=lambda stage: stage.start))
  starts = [stage.start for stage in found]
  if starts[:1] != [0] or len(set(starts)) < len(starts):
    raise ValueError(f'stages start at tasks {starts}; give each its own, the first 0')
  return found


class Schedule:
  """The slots of every task.

  Attributes:
    most: questions of the largest task.
    max_slots: slots of the largest task.
  """

  def __init__(self, num_objectives: Objectives, seed: int, per_slot: int = 1):
    """`per_slot` questions share a slot (the questions of a chain); the last one may be cut."""
    self._stages, self._seed, self._per_slot = stages(num_objectives), seed, per_slot
    self.most = max(stage.most for stage in self._stages)
    self.max_slots = self.num_slots(self.most)
    self._starts = np.array([stage.start for stage in self._stages], np.int64)
    offsets = [0]  # first slot of each stage: exactly behind what the stages before it use
    for number, start in enumerate(self._starts[1:]):
      end, _ = self._within(number, np.array([start - self._starts[number]]))
      offsets.append(offsets[-1] + int(end[0]))
    self._offsets = np.array(offsets, np.int64)

  def at(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First slot and number of questions, int64 [n] each, of the tasks `index` [n]."""
    stage = np.searchsorted(self._starts, index, 'right') - 1
    first, size = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
    for number in np.unique(stage).tolist():
      here = stage == number
      begin, size[here] = self._within(number, index[here] - self._starts[number])
      first[here] = begin + self._offsets[number]
    return first, size

  def task_at(self, slot: int) -> int:
    """The task that takes this slot."""
    number = int(np.searchsorted(self._offsets, slot, 'right')) - 1
    stage, slot = self._stages[number], slot - int(self._offsets[number])
    sizes = range(stage.fewest, stage.most + 1)
    block, rest = divmod(slot, sum(map(self.num_slots, sizes)))
    begins, _ = self._within(number, block * len(sizes) + np.arange(len(sizes)))
    within = int(np.searchsorted(begins - begins[0], rest, 'right')) - 1
    return stage.start + block * len(sizes) + within

  def num_slots(self, size: int | np.ndarray) -> int | np.ndarray:
    """Slots that so many questions take."""
    return -(-size // self._per_slot)

  def _within(self, number: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First slot and questions of a stage's own tasks, both counted from the stage's start."""
    stage = self._stages[number]
    num = stage.most - stage.fewest + 1
    block, within = np.divmod(index, num)
    if num == 1:
      return index * self.num_slots(stage.most), np.full(len(index), stage.most)
    blocks, which = np.unique(block, return_inverse=True)
    # The first stage's keys are those of composers without a curriculum.
    keys = hashes(self._seed, 1, blocks, *([number] if number else []))
    order = permuted(np.tile(np.arange(num), len(blocks)), num, keys,
                     np.repeat(np.arange(len(blocks)), num))
    sizes = stage.fewest + order.reshape(len(blocks), num)
    ends = np.cumsum(self.num_slots(sizes), axis=1)
    before = ends - self.num_slots(sizes)
    return block * ends[0, -1] + before[which, within], sizes[which, within]
