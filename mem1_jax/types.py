"""Host-side types, without jax: what crosses the border between text and arrays.

A `Task` is made of `Question`s; an agent acts with `Action`s; an environment
replies with `Observation`s; a retriever answers with `Passage`s.
"""

from collections.abc import Sequence
import dataclasses
import enum
import re


class Kind(enum.IntEnum):
  """What a token of a row is (the `kind` of `arrays.Tags`)."""

  PAD = 0
  PROMPT = 1  # the question and its instructions
  STATE = 2  # <think>…</think>: memory and reasoning in one
  ACTION = 3  # <search>…</search>, <click>…</click> or <answer>…</answer>
  INFO = 4  # <information>…</information>


class ActionKind(str, enum.Enum):
  SEARCH = 'search'
  CLICK = 'click'
  ANSWER = 'answer'
  MALFORMED = 'malformed'


class Stop(enum.IntEnum):
  """Why the decoding of a turn ended (the `stop` of `arrays.Turn`)."""

  LENGTH = 0  # the turn's token budget ran out
  TAG = 1  # a closing action tag outside an open <think>
  EOS = 2  # the end-of-sequence token
  REPETITION = 3  # it did nothing but repeat its last few tokens


@dataclasses.dataclass(frozen=True)
class Passage:
  """One retrieved document. `score` is the retriever's own, higher is better."""

  title: str
  text: str
  score: float = 0.0
  id: str = ''  # of its corpus; '' for none


@dataclasses.dataclass(frozen=True)
class Unavailable:
  """In place of passages: the search could not be done, which is not the same as no passage.

  Attributes:
    reason: for people; agents are not told.
    is_lasting: trying again is of no use.
  """

  reason: str
  is_lasting: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
  """A single question.

  Attributes:
    id: unique within its source.
    text: the question as the agent reads it.
    answers: accepted answers, the canonical one first, then aliases.
    hops: look-ups needed, ≥ 1; sets the turn budget.
    chain: titles of the documents to read, in order, for a scripted expert;
      empty where unknown.
    found: what each document of `chain` yields, in order; `found[-1]` is
      `answers[0]`; empty where unknown.
    relations: what is looked up in each document of `chain`; empty where unknown.
    domain: the world that it is asked in; picks the instructions (text/prompts.py).
    goal: what that world scores by, where `answers` alone cannot say it (env/shop_goals.py).
  """

  id: str
  text: str
  answers: tuple[str, ...]
  hops: int = 1
  chain: tuple[str, ...] = ()
  found: tuple[str, ...] = ()
  relations: tuple[str, ...] = ()
  domain: str = 'qa'
  goal: object = None

  def left(self, hop: int) -> str:
    """What is still to be looked up after `hop` look-ups: `capital of country @`."""
    return sought(self.relations[hop:])


START, END = '*', '.'  # what leads to a task's first question, and what follows its last
UNKNOWN = 'unknown'  # the answer to a question that nothing was found for


def link(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
  """Each label with the one that follows it, from `START` to `END`."""
  return tuple(zip((START, *labels), (*labels, END)))


def entry(label: str, answer: str) -> str:
  """An answer under its label: `[kf]: Oslo;`."""
  return f'{label}: {answer};'


def noted(entries: Sequence[tuple[str, str]]) -> list[str]:
  """Answers as memory holds them, one after another: `*>[kf]: Oslo;`, `>[zb]: 51;`."""
  return [f'{START * (i == 0)}>{entry(*pair)}' for i, pair in enumerate(entries)]


def so_far(entries: Sequence[tuple[str, str]]) -> str:
  """Answers up to where the next label, or `END`, is to stand: `*>`, `*>[kf]: Oslo;>`."""
  return f'{"".join(noted(entries)) or START}>'


def sought(relations: Sequence[str]) -> str:
  """What to look up; the search says in whose document to begin: `capital of country @`."""
  return f"{' of '.join(reversed(relations))} @"


def taken_up(question: Question) -> str:
  """The question in its words, then what it looks up: `Name the x of Y. = x @`."""
  return f'{question.text} = {question.left(0)}'


def read_off(relation: str, value: str) -> str:
  """One fact, as a document of the atlas has it and an agent notes it: ` capital is Oslo.`."""
  return f' {relation} is {value}.'


def value_in(text: str, relation: str) -> str | None:
  """What a text says of a relation, the first time; None if it says nothing."""
  found = re.search(rf' {re.escape(relation)} is (\S.*?)\.(?=\s|$)', text)
  return found and found[1]


@dataclasses.dataclass(frozen=True)
class Listing:
  """How a task is shown: links in any order, and labelled questions in any order.

  Training may add links and questions that no link from `START` leads to, so that
  a short task has to be read the way a long one is.
  """

  links: tuple[tuple[str, str], ...]
  lines: tuple[tuple[str, str], ...]  # (label, question's text)


@dataclasses.dataclass(frozen=True)
class Task:
  """N questions to answer in one episode, each under a short random label."""

  id: str
  questions: tuple[Question, ...]
  labels: tuple[str, ...]
  source: str
  listing: Listing | None = None  # None: everything in order and nothing else

  @property
  def shown(self) -> Listing:
    lines = tuple((label, q.text) for label, q in zip(self.labels, self.questions, strict=True))
    return self.listing or Listing(link(self.labels), lines)

  @property
  def hops(self) -> int:
    return sum(question.hops for question in self.questions)

  @property
  def domain(self) -> str:
    return self.questions[0].domain


@dataclasses.dataclass(frozen=True)
class Action:
  """What the agent did in one turn; `text` is the tag's content, stripped.

  For `MALFORMED`, `text` says what was wrong, for the corrective reply.
  """

  kind: ActionKind
  text: str


@dataclasses.dataclass(frozen=True)
class Observation:
  """The environment's reply. `text` is empty when the episode is done."""

  text: str
  reward: float
  is_done: bool
  outage: str = ''  # why a search could not be done; '' where it could


@dataclasses.dataclass(frozen=True)
class Segment:
  """Token ids with their rotary positions and kinds, all of one length."""

  ids: tuple[int, ...]
  positions: tuple[int, ...]
  kinds: tuple[Kind, ...]

  def __len__(self) -> int:
    return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Context:
  """What a turn reads after the part of the cache that it keeps.

  Attributes:
    segment: the ids to read, `[0, C]` of them.
    num_carried: how many of them, at the head, were there before (what the turn
      before generated, mostly); the rest is new information.
    num_cut: information tokens that did not fit and were left out.
  """

  segment: Segment
  num_carried: int = 0
  num_cut: int = 0


@dataclasses.dataclass(frozen=True)
class TurnRecord:
  """One turn of an episode, in token ids: read `context`, wrote `written`."""

  context: Context
  written: Segment
  logprobs: tuple[float, ...] | None  # of `written`, the sampler's; None: nothing to learn from
  action: Action
  stop: Stop
  reward: float
  seconds: float = 0.0
  outage: str = ''  # why its search could not be done; '' where it could


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """A whole episode.

  Attributes:
    task: what was asked.
    prompt: the question's ids.
    turns: in order.
    is_append_only: True for an agent whose context only grows (full context);
      False where every turn sees the question and its own context only.
    sample: which of several samples of the same task.
    answer: the text of the final answer, or what was bought; None if the episode ended without.
    searches: searches made.
    seconds: wall time from the first prefill to the last action.
    fault: what its environment failed with, which ended it; '' for none.
    index: the number of its task.
    outgrew: it was ended because another turn might not have fitted.
  """

  task: Task
  prompt: Segment
  turns: tuple[TurnRecord, ...]
  is_append_only: bool
  sample: int = 0
  answer: str | None = None
  searches: int = 0
  seconds: float = 0.0
  fault: str = ''
  index: int = 0
  outgrew: bool = False

  @property
  def reward(self) -> float:
    return sum(turn.reward for turn in self.turns)

  @property
  def outages(self) -> int:
    """Searches that could not be done."""
    return sum(bool(turn.outage) for turn in self.turns)
