"""Who is in which slot: the host's side of the engine's rows.

Episodes wait for a slot, decode a turn in it, wait for their environment, and for a slot again.
Where slots are split over groups of devices, an episode stays with the group that has its question.
"""

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from mem1_jax.memory import state
from mem1_jax.rollout.decode import DROPPED, Questions, Refill
from mem1_jax.types import Context, Segment, Task, TurnRecord

_UNEVEN = 1.5  # times enough turns: so many do not wait until every group has its part


@dataclasses.dataclass(frozen=True)
class Job:
  """One episode to run: a task, its number in the feed, and which sample of it."""

  task: Task
  index: int
  sample: int = 0


@dataclasses.dataclass(eq=False)
class Question:
  """A row of a group's store of questions."""

  row: int
  prompt: Segment
  num_episodes: int = 0  # that need it
  is_read: bool = False
  is_used: bool = False  # some turn has begun with it


@dataclasses.dataclass(eq=False)
class Episode:
  """An episode under way."""

  job: Job
  order: int
  episode: Any  # of the environment
  question: Question
  rng: np.random.Generator | None
  context: Context
  keep: int
  is_append_only: bool
  begun: float
  slot: int | None = None  # of its group; append-only agents keep theirs
  turns: list[TurnRecord] = dataclasses.field(default_factory=list)
  answer: str | None = None
  fault: str = ''  # what its environment failed with
  outgrew: bool = False  # another turn might not have fitted
  is_decoding: bool = False

  @property
  def prompt(self) -> Segment:
    return self.question.prompt

  @property
  def keeps_slot(self) -> bool:
    """Whether its slot holds its earlier turns, which it goes on seeing."""
    return self.is_append_only and bool(self.turns)


class Group:
  """The slots and questions of one group of devices."""

  def __init__(self, number: int, num_slots: int, num_questions: int):
    self.number = number
    self.slots: list[Episode | None] = [None] * num_slots
    self.free_rows = list(range(num_questions))
    self.questions: dict[Any, Question] = {}
    self.ready: collections.deque[Episode] = collections.deque()  # their next turn can begin
    self.num_episodes = 0

  def ask(self, prompt: Segment) -> Question | None:
    """The row of this question, a new one if it has none; None if all are taken."""
    key = prompt.ids, prompt.positions
    if key not in self.questions:
      if not self.free_rows:
        return None
      self.questions[key] = Question(self.free_rows.pop(), prompt)
    self.questions[key].num_episodes += 1
    self.num_episodes += 1
    return self.questions[key]

  def leave(self, episode: Episode):
    """The episode needs its question, and its slot, no more."""
    question = episode.question
    question.num_episodes -= 1
    self.num_episodes -= 1
    if episode.slot is not None:
      self.slots[episode.slot] = None
    if not question.num_episodes:
      del self.questions[question.prompt.ids, question.prompt.positions]
      self.free_rows.append(question.row)

  def choose(self, tick: 'Tick', is_last: bool):
    """Writes down which episodes might begin their turns, and in which slots.

    Those that are ahead come first, so that they end and others can start; once none is to start,
    those that are behind, so that all end together.
    """
    most, reads, refills = tick.refill_rows, tick.reads[self.number], tick.refills[self.number]
    free = collections.deque(b for b, episode in enumerate(self.slots) if episode is None)
    in_order = sorted(self.ready, key=lambda e: len(e.turns), reverse=not is_last)  # it is stable
    for episode in in_order:
      if episode.slot is None and not free:
        continue
      slot = free.popleft() if episode.slot is None else episode.slot
      tick.counts['ready'] += 1
      if len(refills) < most:
        refills.append((episode, slot))
    unread = dict.fromkeys(
        e.question for e in (*(e for e, _ in refills), *in_order) if not e.question.is_read)
    if any(not episode.question.is_read for episode, _ in refills):
      reads += list(unread)[:most]  # of later episodes, too: it costs as much
    tick.counts['reads'] += len(reads)
    tick.counts['refills'] += len(refills)

  def begin(self, tick: 'Tick'):
    """Gives those episodes the slots."""
    for episode, slot in tick.refills[self.number]:
      episode.slot, self.slots[slot] = slot, episode
      self.ready.remove(episode)


@dataclasses.dataclass(frozen=True)
class Timing:
  """When turns begin: many at a time, since a part of a refill costs as much as a whole one.

  Args:
    refill_size: turns that may begin at a time, in all groups.
    num_slots: of all groups.
    is_lockstep: only when all slots are free and all environments have answered.
  """

  refill_size: int
  num_slots: int
  is_lockstep: bool = False

  def is_due(self, counts: dict[str, int], num_active: int, is_filling: bool) -> bool:
    """Whether a tick's refills are done, by its counts over all processes.

    Args:
      counts: `Tick.counts`, and 'pending' replies of environments.
      num_active: slots that decode.
      is_filling: the tick before left enough ready turns for this one.
    """
    if self.is_lockstep and not is_filling and (num_active or counts['pending']):
      return False
    if not num_active:
      return counts['refills'] > 0
    worth = self._worth(num_active)
    return counts['refills'] >= worth or counts['ready'] >= _UNEVEN * worth

  def lack(self, counts: dict[str, int], num_active: int, is_done: bool) -> int:
    """Turns that must get ready before the next refill is due; none if 0 or less."""
    left = counts['ready'] - is_done * counts['refills']
    return self._worth(num_active) - left

  def _worth(self, num_active: int) -> int:
    """Turns that are enough: a whole refill while all slots are active, the fewer the fewer are."""
    if self.is_lockstep:
      return 1
    return max(1, round(self.refill_size * num_active / self.num_slots))


class Tick:
  """What is read and refilled at a time, by the number of the group, and how much that is.

  Args:
    refill_rows, num_groups: as the engine's.
    groups: those of this process.

  Attributes:
    reads: questions.
    refills: episodes and the slots that they would get.
    counts: of 'reads' and 'refills'; 'ready', episodes for which there is a slot, were the tick
      large enough; 'left', episodes that are not over.
  """

  def __init__(self, refill_rows: int, num_groups: int, groups: Sequence[Group]):
    self.refill_rows, self.num_groups = refill_rows, num_groups
    self.reads: dict[int, list[Question]] = {group.number: [] for group in groups}
    self.refills: dict[int, list[tuple[Episode, int]]] = {group.number: [] for group in groups}
    self.counts = {'reads': 0, 'refills': 0, 'ready': 0, 'left': 0}

  def questions(self, capacity: int) -> Questions:
    """What `Engine.read` reads, [rows of all groups, capacity]."""
    rows = self._rows(self.reads)
    tokens = np.zeros((len(rows), capacity), np.int32)
    position, length = np.zeros_like(tokens), np.zeros(len(rows), np.int32)
    for i, question in enumerate(rows):
      if question is not None:
        n = length[i] = len(question.prompt)
        tokens[i, :n], position[i, :n] = question.prompt.ids, question.prompt.positions
    row = [DROPPED if question is None else question.row for question in rows]
    return Questions(np.array(row, np.int32), tokens, position, length)

  def refill(self, capacity: int) -> Refill:
    """What `Engine.refill` reads, [rows of all groups, capacity].

    Raises:
      ValueError: if a context is longer than the capacity.
    """
    pairs = [row or (None, DROPPED) for row in self._rows(self.refills)]
    rows, slot = [episode for episode, _ in pairs], [slot for _, slot in pairs]
    memory = state.batch([e and e.context for e in rows], [e.keep if e else 0 for e in rows],
                         capacity, 0)
    question = [e.question.row if e else 0 for e in rows]
    is_own = [e is not None and e.keeps_slot for e in rows]
    ids = [(e.job.index, e.job.sample, len(e.turns)) if e else (0, 0, 0) for e in rows]
    return Refill(np.array(slot, np.int32), np.array(question, np.int32), np.array(is_own), memory,
                  np.array(ids, np.int32))

  def _rows(self, chosen: dict[int, list]) -> list:
    """`refill_rows` of each group, None where fewer were chosen."""
    rows = []
    for number in range(self.num_groups):
      some = chosen.get(number, [])
      rows += some + [None] * (self.refill_rows - len(some))
    return rows
