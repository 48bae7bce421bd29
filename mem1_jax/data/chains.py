"""Dependent tasks: what one question asks about is the answer to the one before.

    [kf] Name the capital of Norway.
    [zb] What is the population of the answer to [kf]?

A chain's questions say `#1` for the answer to its first (as MuSiQue's decompositions do,
https://arxiv.org/abs/2108.00573); the label stands there once the task is drawn. No text of
the chains that are kept holds an answer that one of them hands on: it has to be found.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import re

import numpy as np

from mem1_jax.data import compose
from mem1_jax.data.order import Order, draw_labels, spread
from mem1_jax.data.permutation import hash64
from mem1_jax.data.schedule import Objectives, Schedule
from mem1_jax.types import Question, Task

_REFERENCE = re.compile(r'#([1-9][0-9]?)(?![0-9])')
_MAX_SUCCESSORS = 8  # tried for each question before its chain is given up


@dataclasses.dataclass(frozen=True)
class Chain:
  """Questions that build on each other. `id` is unique within its source.

  `#k` in the text of a question stands for the answer to question k of the chain, counted
  from 1, where that comes before it; else it is just text.
  """

  id: str
  questions: tuple[Question, ...]

  def cut(self, length: int) -> 'Chain':
    """Its first questions: they need none of the others."""
    return Chain(self.id, self.questions[:length])


def written(questions: Sequence[Question], labels: Sequence[str]) -> tuple[Question, ...]:
  """A chain's questions as the agent reads them: `the answer to [kf]` for `#1`."""
  return tuple([_written(question, labels[:before]) for before, question in enumerate(questions)])


def _written(question: Question, labels: Sequence[str]) -> Question:
  pieces = _pieces(question.text)
  if len(pieces) == 1:
    return question
  text = ''.join([piece if isinstance(piece, str) else f'the answer to {labels[piece - 1]}'
                  if piece <= len(labels) else f'#{piece}' for piece in pieces])
  # dataclasses.replace takes ten times as long.
  return Question(question.id, text, question.answers, question.hops, question.chain,
                  question.found, question.relations)


@functools.lru_cache(maxsize=1 << 17)
def _pieces(text: str) -> tuple[str | int, ...]:
  """The text, with the numbers behind its `#`s in between."""
  return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(_REFERENCE.split(text)))


def link(questions: Sequence[Question], length: int, seed: int) -> list[Chain]:
  """Chains of `length` single questions that know their documents (`Question.chain`).

  A question's answer is the title that the next one begins at, and its name there becomes
  `#k`. Each question is in one chain at most, and no answer that is handed on can be read
  anywhere (`Kept`). Which are linked depends on the seed.

  Raises:
    ValueError: the length is below 2.
  """
  if length < 2:
    raise ValueError(f'length={length} of a chain is below 2; ask single questions instead')
  successors = collections.defaultdict(list)
  ordered = [questions[i] for i in sorted(range(len(questions)), key=lambda i: hash64(seed, 6, i))]
  for question in ordered:
    if question.chain and question.text.count(question.chain[0]) == 1:
      successors[question.chain[0]].append(question)
  kept, used, found = Kept(), set(), []
  for first in ordered:
    if first.id in used or not first.chain:
      continue
    for chosen in _paths([first], successors, used, length):
      chain = Chain(first.id, _with_references(chosen))
      if kept.add(chain):
        found.append(chain)
        used.update(question.id for question in chosen)
        break
  return found


def _paths(path: list[Question], successors: dict[str, list[Question]], used: set[str],
           length: int) -> Iterator[list[Question]]:
  """Every way to go on from a path to that length, a few of each step's."""
  if len(path) == length:
    yield path
    return
  fresh = [question for question in successors[path[-1].answers[0]] if question.id not in used]
  for question in fresh[:_MAX_SUCCESSORS]:
    yield from _paths([*path, question], successors, used, length)


def _with_references(questions: Sequence[Question]) -> tuple[Question, ...]:
  return (questions[0], *(
      dataclasses.replace(question, text=question.text.replace(question.chain[0], f'#{before}'))
      for before, question in enumerate(questions[1:], 1)))


def usable(chains: Iterable[Chain], length: int) -> list[Chain]:
  """The first `length` questions of each chain that has so many and may be kept (`Kept`).

  Raises:
    ValueError: the length is below 2.
  """
  if length < 2:
    raise ValueError(f'length={length} of a chain is below 2; ask single questions instead')
  kept = Kept()
  cut = (chain.cut(length) for chain in chains if len(chain.questions) >= length)
  return [chain for chain in cut if _is_linked(chain) and kept.add(chain)]


class Kept:
  """Chains of which none lets another's answer be read: texts and answers side by side."""

  def __init__(self):
    self._handed_on: set[str] = set()  # answers that stand behind a `#k`
    self._read: set[str] = set()  # every run of words of the texts
    self._texts: set[str] = set()
    self._longest = 1  # answer handed on, words

  def add(self, chain: Chain) -> bool:
    """Whether it may be kept; it is then."""
    handed_on = {' '.join(words) for words in _handed_on(chain)}
    longest = max([self._longest, *(len(answer.split()) for answer in handed_on)])
    if longest > self._longest:
      self._longest = longest
      self._read = set().union(*(_runs(text, longest) for text in self._texts))
    read = set().union(*(_runs(question.text, longest) for question in chain.questions))
    whole = [question.text for question in chain.questions if not _REFERENCE.search(question.text)]
    if ('' in handed_on or handed_on & read or handed_on & self._read or read & self._handed_on
        or self._texts.intersection(whole)):
      return False
    self._handed_on |= handed_on
    self._read |= read
    self._texts.update(question.text for question in chain.questions)
    return True


def _references(chain: Chain) -> set[int]:
  """The numbers, from 0, of the questions whose answers others of the chain ask about."""
  return {int(k) - 1 for before, question in enumerate(chain.questions)
          for k in _REFERENCE.findall(question.text) if int(k) <= before}


def _is_linked(chain: Chain) -> bool:
  return bool(_references(chain))


def _handed_on(chain: Chain) -> Iterator[list[str]]:
  return (_words(answer) for number in _references(chain)
          for answer in chain.questions[number].answers)


def _words(text: str) -> list[str]:
  return re.findall(r'\w+', text.casefold())


def _runs(text: str, longest: int) -> set[str]:
  """All runs of up to so many words."""
  words = _words(text)
  return {' '.join(words[i:i + n]) for n in range(1, longest + 1)
          for i in range(len(words) - n + 1)}


class DependentComposer:
  """Tasks of whole chains, one after another; the last one is cut where N leaves less room.

  Attributes:
    epoch_slots: chains in one pass over them; no question comes twice in it.
  """

  def __init__(self, chains: Sequence[Chain], num_objectives: Objectives, seed: int,
               labels: Sequence[str], source: str = ''):
    """Arguments as `compose.Composer` has them, with chains of one length (`link`, `usable`).

    Raises:
      ValueError: no chains or different lengths, repeated ids or labels, or too few of either
        for the largest task.
    """
    lengths = sorted({len(chain.questions) for chain in chains})
    if len(lengths) != 1:
      raise ValueError(f'{len(chains)} chains have lengths {lengths}; give some, all of one length')
    self._schedule = Schedule(num_objectives, seed, lengths[0])
    self.chains, self.labels = tuple(chains), tuple(labels)
    compose.check_unique('chain ids', [chain.id for chain in chains])
    compose.check_unique('labels', self.labels)
    compose.check_enough(self._schedule.most, {'labels': len(labels)})
    least = 4 * self._schedule.max_slots  # what `Order` needs to repeat none in a task
    if len(chains) < least:
      raise ValueError(f'num_objectives={self._schedule.most} needs {least} chains of {lengths[0]},'
                       f' there are {len(chains)}; lower it or give more')
    self._seed, self._source, self.epoch_slots = seed, source, len(chains)
    self._order = Order(self.epoch_slots, seed, self._schedule, swaps=True)

  def task(self, index: int) -> Task:
    """Task number `index` ≥ 0. Raises ValueError where it is negative, or 2^53 or more."""
    return self.tasks([index])[0]

  def tasks(self, indices: Sequence[int]) -> tuple[Task, ...]:
    """The tasks of these numbers. Raises ValueError as `task` does."""
    index = compose.checked(indices)
    first, size = self._schedule.at(index)
    num_chains = self._schedule.num_slots(size)
    items = self._order.items(spread(first, num_chains)[0])
    _, which, rank = spread(first, size)
    drawn = draw_labels(self._seed, index, which, rank, len(self.labels))
    parts = zip(index.tolist(), np.split(items, np.cumsum(num_chains)[:-1]),
                np.split(drawn, np.cumsum(size)[:-1]))
    return tuple(self._task(*part) for part in parts)

  def _task(self, index: int, items: np.ndarray, drawn: np.ndarray) -> Task:
    labels, questions = [self.labels[i] for i in drawn], []
    for item in items:
      room = labels[len(questions):]
      questions += written(self.chains[item].questions[:len(room)], room)
    return Task(f'{self._source}-{self._seed}-{index}', tuple(questions), tuple(labels),
                self._source)
