"""Single questions → tasks of N questions, as a pure function of (seed, index).

    slots     0 1 2 3 4 5 6 7 8 9 …     one permutation of the questions per epoch
    tasks     [ 0 ] [ 1   ] [2] …       each task takes the next N slots
    N's            a block of tasks holds every N of the range once, shuffled

Nothing is stored between tasks, so that seeking is O(1), and hosts and restarts
cannot change the order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mem1_jax import types
from mem1_jax.data.order import Order, draw_labels, spread, substitutes
from mem1_jax.data.permutation import hash64, permute
from mem1_jax.data.schedule import Objectives, Schedule

_MAX_INDEX = 1 << 53  # slots are counted in int64


class Composer:
  """Tasks over a list of questions; `task(index)` and `tasks(indices)` are the whole interface.

  Every epoch of `epoch_slots` slots has every question exactly once. There are two exceptions,
  where a question would come twice in one task, or would begin at another one's document:
  questions that share starts, and lists of fewer than four times the largest task. Such a
  question is then replaced by any other one.

  Attributes:
    epoch_slots: questions in one pass over the list.
  """

  def __init__(
      self,
      questions: Sequence[types.Question],
      num_objectives: Objectives,
      seed: int,
      labels: Sequence[str],
      source: str = '',
  ):
    """Checks that every task can be made.

    Args:
      questions: with different ids.
      num_objectives: questions per task, or the inclusive range to spread evenly, or a
        curriculum of stages (`schedule.Stage`).
      seed: another seed gives other tasks.
      labels: to draw from without repetition, one per question of a task.
      source: where the questions come from; kept in tasks and their ids.

    Raises:
      ValueError: repeated ids or labels, an empty range, or too few questions (with
        different starts of their chains) or labels for the largest task.
    """
    self._schedule = Schedule(num_objectives, seed)
    self.questions, self.labels = tuple(questions), tuple(labels)
    check_unique('question ids', [question.id for question in self.questions])
    check_unique('labels', self.labels)
    self._starts = [_start(question) for question in self.questions]
    num_starts = len(set(self._starts))
    check_enough(self._schedule.most, {'questions of different starts': num_starts,
                                       'labels': len(labels)})
    self._seed, self._source = seed, source
    self.epoch_slots = len(self.questions)
    # Where starts are shared, a task may not take questions as they come anyway.
    self._order = Order(self.epoch_slots, seed, self._schedule, num_starts == self.epoch_slots)

  def task(self, index: int) -> types.Task:
    """Task number `index` ≥ 0. Raises ValueError where it is negative, or 2^53 or more."""
    return self.tasks([index])[0]

  def tasks(self, indices: Sequence[int]) -> tuple[types.Task, ...]:
    """The tasks of these numbers, much faster than one at a time.

    Raises:
      ValueError: a number is negative, or 2^53 or more.
    """
    index = checked(indices)
    first, size = self._schedule.at(index)
    slot, which, rank = spread(first, size)
    items = self._order.items(slot).tolist()
    labels = draw_labels(self._seed, index, which, rank, len(self.labels)).tolist()
    found, begin = [], 0
    for number, slot, end in zip(index.tolist(), first.tolist(), np.cumsum(size).tolist()):
      questions = self._chosen(slot, items[begin:end])
      found.append(types.Task(
          f'{self._source}-{self._seed}-{number}', questions,
          tuple([self.labels[label] for label in labels[begin:end]]), self._source))
      begin = end
    return tuple(found)

  def _chosen(self, slot: int, items: list[int]) -> tuple[types.Question, ...]:
    """The questions of a task that begins at `slot`."""
    if not self._order.is_exact and len({self._starts[item] for item in items}) < len(items):
      items = self._distinct(slot, items)
    return tuple([self.questions[item] for item in items])

  def _distinct(self, slot: int, items: list[int]) -> list[int]:
    """The same, with those replaced whose start is already in the task."""
    taken, found = set(), []
    for i, item in enumerate(items, slot):
      if self._starts[item] in taken:
        item = next(other for other in substitutes(self._seed, i, self.epoch_slots)
                    if self._starts[other] not in taken)
      taken.add(self._starts[item])
      found.append(item)
    return found


class Ready:
  """Tasks that are there already (`verl.read_tasks`), once per epoch, in another order each.

  Attributes:
    epoch_slots: tasks in one pass over them.
  """

  def __init__(self, ready: Sequence[types.Task], seed: int, labels: Sequence[str]):
    """Tasks without labels get theirs from `labels`, drawn anew each time.

    Raises:
      ValueError: no tasks, repeated ids or labels, or too few labels for the largest task.
    """
    if not ready:
      raise ValueError('there are 0 tasks; give at least one')
    self._ready, self.labels, self._seed = tuple(ready), tuple(labels), seed
    check_unique('task ids', [task.id for task in ready])
    check_unique('labels', self.labels)
    most = max(len(task.questions) for task in ready)
    check_enough(most, {'labels': len(labels)})
    self.epoch_slots = len(ready)
    self._order = Order(self.epoch_slots, seed, Schedule(1, seed), swaps=False)

  def task(self, index: int) -> types.Task:
    """Task number `index` ≥ 0. Raises ValueError where it is negative, or 2^53 or more."""
    return self.tasks([index])[0]

  def tasks(self, indices: Sequence[int]) -> tuple[types.Task, ...]:
    """The tasks of these numbers. Raises ValueError as `task` does."""
    index = checked(indices)
    items = self._order.items(index).tolist()
    return tuple(self._labelled(self._ready[item], i) for item, i in zip(items, index.tolist()))

  def _labelled(self, task: types.Task, index: int) -> types.Task:
    labels = task.labels or tuple(
        self.labels[permute(i, len(self.labels), hash64(self._seed, 3, index))]
        for i in range(len(task.questions)))
    return types.Task(f'{task.id}-{self._seed}-{index}', task.questions, labels, task.source,
                      task.listing)


def _start(question: types.Question) -> object:
  """Two questions of one task must not begin at the same document."""
  return ('chain', question.chain[0]) if question.chain else ('id', question.id)


def checked(indices: Sequence[int]) -> np.ndarray:
  """Task indices as int64 [n]. Raises ValueError where one is negative, or 2^53 or more."""
  for index in indices:
    if index < 0:
      raise ValueError(f'index={index} is negative; tasks are counted from 0')
    if index >= _MAX_INDEX:
      raise ValueError(f'index={index} is 2^53 or more; count tasks from 0')
  return np.asarray(indices, np.int64)


def check_enough(most: int, counts: Mapping[str, int]) -> None:
  """Raises ValueError where there are fewer of something than the largest task has questions."""
  for name, count in counts.items():
    if count < most:
      raise ValueError(f'num_objectives={most} needs as many {name}, there are {count};'
                       ' lower it or give more')


def check_unique(name: str, values: Sequence[str]) -> None:
  """Raises ValueError where a value comes twice."""
  seen: set[str] = set()
  for value in values:
    if value in seen:
      raise ValueError(f'{name} must differ, {value!r} comes twice; drop one')
    seen.add(value)
