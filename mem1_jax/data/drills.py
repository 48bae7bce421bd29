"""Pre-training text for a small model: documents, lists and look-ups.

Real base models have read long lists and looked things up in them before they
become agents; a model trained from nothing has not. These drills give it that,
over the training split's documents and questions, without any tag, environment
or episode. What is predicted follows `prompt`; both are plain text.

    echo       [kf] Oslo[zb][xa] Iron                     → the same again
    list       *>[kf]: Oslo;>[zb]: 51;>.                  → the same again
    look-up    *>[kf]: Oslo;>[zb]: 51;>.         ?[zb]    → [zb]: 51
    next       *>[kf] [kf]>[zb] [zb]>. …         ?[kf]    → [kf]>[zb]
    recall     the same                          ?[kf]    → the same, and the question of [zb]
    advance    such questions, a list, a document         → what it says, the list carried on by it
    seek       the same, and the list carried on up to @  → where to look
    answer     the same, and that the list is at its end  → the whole list
    read       a question and its documents      → what each says, and what is left of the question
    documents  → the documents themselves
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mem1_jax.data.rewording import reworded
from mem1_jax.types import (END, UNKNOWN, Listing, Passage, Question, Task, entry, link, noted, read_off,
                            so_far, sought, taken_up, value_in)


NOTHING = ' No results.\n'  # what stands for a document where none was found
_BREAKS = ('\n', '\n\n', ';\n', '!\n', ' -\n', '|', ' /', '\n#')  # before what is sought


@dataclasses.dataclass(frozen=True)
class Drill:
  """A text whose second half is predicted from the first.

  What comes after a target is left open: an agent that reads it as an end would end there.
  """

  name: str
  prompt: str
  target: str


@dataclasses.dataclass(frozen=True)
class DrillMaker:
  """Drills as a pure function of (seed, index).

  Attributes:
    max_entries: longest list, entries.
    scatter: probability that documents stand between the entries of a list.
    reworded: probability that a question is asked in random words.
  """

  documents: Sequence[Passage]
  questions: Sequence[Question]
  labels: Sequence[str]
  seed: int
  max_entries: int
  scatter: float
  reworded: float

  def __post_init__(self):
    if not 2 <= self.max_entries <= len(self.labels):
      raise ValueError(f'max_entries {self.max_entries} must lie in [2, {len(self.labels)}], '
                       'the number of labels.')

  def drill(self, index: int) -> Drill:
    rng = np.random.default_rng([self.seed, index])
    return _KINDS[rng.integers(len(_KINDS))](self, rng)

  def pick(self, rng, items, n=None):
    """`n` different items, or one."""
    if n is None:
      return items[rng.integers(len(items))]
    return [items[i] for i in rng.choice(len(items), n, replace=False)]

  def num_entries(self, rng, most: int | None = None) -> int:
    """Short lists more often than long ones: log-uniform in [1, most]."""
    most = most or self.max_entries
    return int(np.exp(rng.uniform(0, np.log(most + 1))))

  def entries(self, rng, n: int) -> list[tuple[str, str]]:
    """n (label, value) pairs; values are answers and titles of the atlas."""
    labels = self.pick(rng, self.labels, n)
    return [(label, self.pick(rng, self.pick(rng, self.questions).found)) for label in labels]

  def asked(self, rng) -> Question:
    """A question, as worded or in random words."""
    question = self.pick(rng, self.questions)
    return reworded(question, rng, self._titles) if rng.random() < self.reworded else question

  @functools.cached_property
  def _titles(self) -> list[str]:
    return list(self._by_title)

  @functools.cached_property
  def _by_title(self) -> dict[str, Passage]:
    return {passage.title: passage for passage in self.documents}

  def document(self, title: str) -> Passage | None:
    return self._by_title.get(title)

  def text(self, passage: Passage) -> str:
    return f' {passage.title}: {passage.text}\n'

  def written(self, rng, entries) -> str:
    """The list as text, now and then with documents between its entries."""
    if rng.random() >= self.scatter:
      return _list(entries) + '\n'
    num_documents = rng.integers(1, 7)
    after = set(rng.integers(len(entries), size=num_documents).tolist())
    parts = []
    for i, entry in enumerate([*noted(entries), f'>{END}']):
      parts.append(entry + '\n')
      if i in after:
        parts.append(self.text(self.pick(rng, self.documents)))
    return ''.join(parts)


def shuffled(rng, items: Sequence) -> list:
  """Half of the time another order."""
  return [items[i] for i in (rng.permutation(len(items)) if rng.random() < 0.5
                             else range(len(items)))]


def cluttered(task: Task, rng, maker: DrillMaker) -> Task:
  """The task among links and questions that it does not lead to, like a page of a long list.

  As many as make `maker.max_entries` at most, half of the time none.
  """
  labels = [label for label in maker.pick(rng, maker.labels, maker.max_entries)
            if label not in task.labels]
  num = maker.num_entries(rng) if rng.random() < 0.5 else 0
  labels = labels[:min(num, maker.max_entries - len(task.labels))]
  links = [*link(task.labels), *((a, b) for a, b in zip(labels, (*labels[1:], END)))]
  lines = [*task.shown.lines, *((label, maker.asked(rng).text) for label in labels)]
  if labels:
    links, lines = shuffled(rng, links), shuffled(rng, lines)
  return dataclasses.replace(task, listing=Listing(tuple(links), tuple(lines)))


def _list(entries) -> str:
  return so_far(entries) + END


def _asked(labels) -> str:
  return ' '.join(f'?{label}' for label in labels) + '\n'


def _copy(maker: DrillMaker, rng) -> Drill:
  entries = maker.entries(rng, maker.num_entries(rng))
  return Drill('list', maker.written(rng, entries), _list(entries))


def _echo(maker: DrillMaker, rng) -> Drill:
  """Labels, names and sentences in no order at all: only copying predicts them."""
  parts = []
  for _ in range(maker.num_entries(rng, 2 * maker.max_entries) + 1):
    kind = rng.random()
    if kind < 0.5:
      parts.append(maker.pick(rng, maker.labels))
    elif kind < 0.6:
      parts.append(' ' + maker.pick(rng, maker.documents).text.split('. ')[0].rstrip('.') + '.')
    else:
      parts.append(' ' + maker.pick(rng, maker.documents).title)
  text = ''.join(parts) + '\n'
  return Drill('echo', text, text.rstrip('\n'))


def _look_up(maker: DrillMaker, rng) -> Drill:
  entries = maker.entries(rng, maker.num_entries(rng))
  asked = shuffled(rng, entries)[:4]
  return Drill('look-up', maker.written(rng, entries) + _asked(label for label, _ in asked),
               '\n'.join(f'{label}: {value}' for label, value in asked))


@dataclasses.dataclass(frozen=True)
class _Questions:
  """Questions under labels, as a task shows them.

  Attributes:
    questions: in their order.
    labels: theirs.
    starts: the start of every link, `*` first.
    steps: what each link leads to: `[kf]>[zb] Name the x of Y. = x @`, last `[zb]>.`.
    text: links and questions, in any order.
  """

  questions: list[Question]
  labels: list[str]
  starts: list[str]
  steps: list[str]
  text: str


def _questions(maker: DrillMaker, rng, n: int | None = None) -> _Questions:
  n = n or maker.num_entries(rng)
  labels, questions = maker.pick(rng, maker.labels, n), [maker.asked(rng) for _ in range(n)]
  lines = [f'{label} {question.text}\n' for label, question in zip(labels, questions)]
  links = ['>'.join(pair) for pair in link(labels)]
  steps = [f'{a} {taken_up(question)}' for a, question in zip(links, questions)] + [links[-1]]
  text = ' '.join(shuffled(rng, links)) + '\n' + ''.join(shuffled(rng, lines))
  return _Questions(questions, labels, ['*', *labels], steps, text)


def _next(maker: DrillMaker, rng) -> Drill:
  shown = _questions(maker, rng)
  asked = shuffled(rng, list(zip(shown.starts, shown.steps)))[:6]
  return Drill('next', shown.text + _asked(label for label, _ in asked),
               '\n'.join(step.split(' ')[0] for _, step in asked))


def _recall(maker: DrillMaker, rng) -> Drill:
  shown = _questions(maker, rng)
  asked = shuffled(rng, list(zip(shown.starts, shown.steps)))[:4]
  return Drill('recall', shown.text + _asked(label for label, _ in asked),
               '\n'.join(step for _, step in asked))


def _advance(maker: DrillMaker, rng) -> Drill:
  """A list of answers is carried on by what one document says.

  First comes what the document says, and the entry that it makes, if it is an answer. After `=`
  the whole list is written again then, after `+` only what is new, and so at its end: then the
  whole list may be asked for. Now and then it is another document, or none: what that does not
  say is unknown. Half of the time the list is given up to `@`, and where to look is asked for.
  """
  num = int(rng.integers(maker.max_entries)) + 1 if rng.random() < 0.5 else None
  shown = _questions(maker, rng, num)
  num = len(shown.questions)
  at = num - 1 if rng.random() < 0.3 else int(rng.integers(num))
  question, label = shown.questions[at], shown.labels[at]
  entries = [(label, q.found[-1]) for label, q in zip(shown.labels, shown.questions)]
  hop = maker.pick(rng, [h for h, title in enumerate(question.chain) if maker.document(title)])
  before = ''  # what the document before this one said
  if hop:
    before = read_off(question.relations[hop - 1], question.found[hop - 1])
  elif at:
    before = read_off(shown.questions[at - 1].relations[-1], entries[at - 1][1])
    before += entry(*entries[at - 1])
  known = so_far(entries[:at])
  now = question.left(hop) if hop else taken_up(question)
  document = maker.text(maker.document(question.chain[hop]))
  if rng.random() < 0.1:
    document = maker.text(maker.pick(rng, maker.documents)) if rng.random() < 0.5 else NOTHING
  text = f'{shown.text}{before}{known}{label} {now}\n{document}'
  relation, *rest = question.relations[hop:]
  value = value_in(document, relation) or UNKNOWN
  said, found = read_off(relation, value), entry(label, value)
  name, is_end, is_whole = value, False, rng.random() < 0.7
  if rest and value != UNKNOWN:
    new = f'{label} {sought(rest)}'
  else:
    new, is_end = found + shown.steps[at + 1].removeprefix(label), at == num - 1
    name = '' if is_end else shown.questions[at + 1].chain[0]
    said += found * (is_whole and not is_end)
  known *= is_whole and not is_end
  prompt, target = f'{text}{"=" if is_whole else "+"}', f'{said}{known}{new}'
  if rng.random() < 0.5:
    return Drill('advance', prompt, target)
  prompt += f'{target}{maker.pick(rng, _BREAKS)}'
  if is_end:
    return Drill('answer', prompt, f' {_list([*entries[:at], (label, value)])}')
  return Drill('seek', prompt, f' {name}')


def _read(maker: DrillMaker, rng) -> Drill:
  """A question and its documents among others → look-up by look-up, what is sought and found."""
  question = maker.asked(rng)
  passages = [p for p in map(maker.document, question.chain) if p is not None]
  others = maker.pick(rng, maker.documents, int(rng.integers(0, 3)))
  passages += others
  text = ''.join(maker.text(passages[i]) for i in rng.permutation(len(passages)))
  target = ' '.join(question.left(hop) + ';' + read_off(question.relations[hop], found)
                    for hop, found in enumerate(question.found))
  if rng.random() < 0.5:
    return Drill('read', f'{question.text}\n{text}=', f' {target}')
  return Drill('read', f'{text}{question.text}\n=', f' {target}')


def _documents(maker: DrillMaker, rng) -> Drill:
  first, *rest = maker.pick(rng, maker.documents, int(rng.integers(2, 5)))
  return Drill('documents', f' {first.title}', f': {first.text}\n'
               + ''.join(maker.text(passage) for passage in rest).rstrip('\n'))


_KINDS = (*[_echo] * 2, *[_copy] * 2, _look_up, _next, *[_recall] * 3, *[_advance] * 10,
          *[_read] * 5, _documents)
