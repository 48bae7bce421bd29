"""Single questions → tasks of N questions, as a pure function of (seed, index).

    slots     0 1 2 3 4 5 6 7 8 9 …     one permutation of the questions per epoch
    tasks     [ 0 ] [ 1   ] [2] …       each task takes the next N slots
    N's            a block of tasks holds every N of the range once, shuffled

Nothing is stored between tasks, so that seeking is O(1), and hosts and restarts
cannot change the order. All randomness is integer hashing defined here: NumPy does
not promise that its generators' streams stay the same across versions.
"""

from collections.abc import Sequence

from mem1_jax import types

_MASK64 = (1 << 64) - 1


def hash64(*values: int) -> int:
  """A 64-bit hash of integers: splitmix64's finaliser (https://doi.org/10.1145/2660193.2660195)."""
  state = 0
  for value in values:
    state = (state + (value & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK64
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & _MASK64
    state ^= state >> 31
  return state


def permute(position: int, size: int, key: int) -> int:
  """Where `position` goes in the key's permutation of range(size), in O(1).

  A Feistel network over the next even number of bits, walked until it lands inside
  (Black and Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).

  Raises:
    ValueError: the position is outside range(size).
  """
  if not 0 <= position < size:
    raise ValueError(f'position={position} is outside [0, {size}); give one inside')
  half = max(1, ((size - 1).bit_length() + 1) // 2)
  mask = (1 << half) - 1
  while True:
    left, right = position >> half, position & mask
    for round_ in range(6):
      left, right = right, left ^ hash64(key, round_, right) & mask
    position = left << half | right
    if position < size:
      return position


class Composer:
  """Tasks over a list of questions; `task(index)` is the whole interface.

  Attributes:
    epoch_slots: questions in one pass over the list.
  """

  def __init__(
      self,
      questions: Sequence[types.Question],
      num_objectives: int | tuple[int, int],
      seed: int,
      labels: Sequence[str],
      source: str = '',
  ):
    """Checks that every task can be made.

    Args:
      questions: with different ids.
      num_objectives: questions per task, or the inclusive range to spread evenly.
      seed: another seed gives other tasks.
      labels: to draw from without repetition, one per question of a task.
      source: where the questions come from; kept in tasks and their ids.

    Raises:
      ValueError: repeated ids or labels, an empty range, or too few questions (with
        different starts of their chains) or labels for the largest task.
    """
    low, high = ((num_objectives, num_objectives) if isinstance(num_objectives, int)
                 else num_objectives)
    if not 1 <= low <= high:
      raise ValueError(f'num_objectives={num_objectives} is no range of numbers ≥ 1; give N or'
                       ' (low, high) with 1 ≤ low ≤ high')
    self.questions, self.labels = tuple(questions), tuple(labels)
    _check_unique('question ids', [question.id for question in self.questions])
    _check_unique('labels', self.labels)
    num_starts = len({_start(question) for question in self.questions})
    for name, count in (('questions of different starts', num_starts), ('labels', len(labels))):
      if count < high:
        raise ValueError(f'num_objectives={high} needs as many {name}, there are {count};'
                         ' lower it or give more')
    self._sizes = tuple(range(low, high + 1))
    self._seed, self._source = seed, source
    self.epoch_slots = len(self.questions)

  def task(self, index: int) -> types.Task:
    """Task number `index` ≥ 0. Raises ValueError where it is negative."""
    if index < 0:
      raise ValueError(f'index={index} is negative; tasks are counted from 0')
    first, size = self._slots(index)
    chosen: dict[object, types.Question] = {}
    for slot in range(first, first + size):
      question = self._at(slot)
      if _start(question) in chosen:
        question = self._substitute(slot, chosen)
      chosen[_start(question)] = question
    key = hash64(self._seed, 3, index)
    labels = tuple(self.labels[permute(i, len(self.labels), key)] for i in range(size))
    return types.Task(f'{self._source}-{self._seed}-{index}', tuple(chosen.values()), labels,
                      self._source)

  def _slots(self, index: int) -> tuple[int, int]:
    """The task's first slot and its number of questions."""
    block, within = divmod(index, len(self._sizes))
    key = hash64(self._seed, 1, block)
    sizes = [self._sizes[permute(i, len(self._sizes), key)] for i in range(within + 1)]
    return block * sum(self._sizes) + sum(sizes[:-1]), sizes[-1]

  def _at(self, slot: int) -> types.Question:
    epoch, position = divmod(slot, len(self.questions))
    return self.questions[permute(position, len(self.questions), hash64(self._seed, 2, epoch))]

  def _substitute(self, slot: int, chosen: dict[object, types.Question]) -> types.Question:
    """Another question, at a random place, whose start is not yet in the task."""
    num = len(self.questions)
    begin, key = hash64(self._seed, 4, slot) % num, hash64(self._seed, 5, slot)
    candidates = (self.questions[permute((begin + i) % num, num, key)] for i in range(num))
    return next(question for question in candidates if _start(question) not in chosen)


def _start(question: types.Question) -> object:
  """Two questions of one task must not begin at the same document."""
  return ('chain', question.chain[0]) if question.chain else ('id', question.id)


def _check_unique(name: str, values: Sequence[str]) -> None:
  seen: set[str] = set()
  for value in values:
    if value in seen:
      raise ValueError(f'{name} must differ, {value!r} comes twice; drop one')
    seen.add(value)
