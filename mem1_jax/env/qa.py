"""Multi-objective question answering over a retriever.

A search is answered with passages, or told to have failed; a malformed action with what
was wrong, as a click is: there are no buttons. Each costs a turn and is headed by the turns
that are left. The answer ends the episode with its exact matches as reward; so does an empty
budget, with 0. Every line begins with a space: tokenizers then spell a word as they do inside
a sentence.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

from mem1_jax import retrieval
from mem1_jax import types
from mem1_jax.env import environment
from mem1_jax.env import rewards
from mem1_jax.retrieval import tally
from mem1_jax.text import prompts

# MEM1's budgets (https://arxiv.org/abs/2506.15841): 6 turns up to 4 objectives, 20 for more.
PAPER_TURNS = ((4, 6), (math.inf, 20))
NO_BUTTONS = 'there is nothing to click here'

SHOWN = ('passages', 'cut_passages')  # counted; the latter were longer than `max_passage_chars`

# Passages are told as ` title: text`, so no passage can say either.
NOTHING, OUTAGE = ' No results.', ' Search is unavailable; try again or answer.'


@dataclasses.dataclass(frozen=True)
class QAConfig:
  """How an episode runs. Exactly one of `slack` and `max_turns` is set.

  Attributes:
    top_k: passages per search.
    max_passage_chars: longer passages are cut at a word; cuts are counted.
    slack: turns beyond the task's hops, ≥ 1, since the answer takes one.
    max_turns: turns whatever the hops; or (objectives up to, turns) pairs in
      rising order, such as `PAPER_TURNS`.
  """

  top_k: int
  max_passage_chars: int
  slack: int | None
  max_turns: int | Sequence[tuple[float, int]] | None

  def __post_init__(self):
    if (self.slack is None) == (self.max_turns is None):
      raise ValueError(f'slack={self.slack} and max_turns={self.max_turns}: set exactly one')
    for name, least in (('top_k', 1), ('max_passage_chars', 1), ('slack', 1)):
      value = getattr(self, name)
      if value is not None and value < least:
        raise ValueError(f'{name}={value} is below {least}; raise it')


def turn_budget(task: types.Task, config: QAConfig, turns_per_hop: int = 1) -> int:
  """Turns that `task` may take, the same for every agent.

  Args:
    task: to be done.
    config: or another one with `slack` and `max_turns`.
    turns_per_hop: beside `slack`.

  Raises:
    ValueError: `max_turns` names no budget ≥ 1 for this many objectives.
  """
  num_objectives = len(task.questions)
  if config.slack is not None:
    return task.hops * turns_per_hop + config.slack
  pairs = ((math.inf, config.max_turns),) if isinstance(config.max_turns, int) else (
      config.max_turns)
  budget = next((turns for up_to, turns in pairs if num_objectives <= up_to), 0)
  if budget < 1:
    raise ValueError(f'max_turns={config.max_turns} gives {budget} turns to {num_objectives}'
                     ' objectives; give at least 1')
  return budget


def hint(turns_left: int) -> str:
  """What heads an information block: the turns left, or that this is the last."""
  return f' Turns left: {turns_left}.' if turns_left > 1 else ' Last turn: answer now.'


def cut(text: str, max_chars: int) -> tuple[str, bool]:
  """A text on one line, up to a word, and whether it was longer."""
  text = ' '.join(text.split())
  if len(text) <= max_chars:
    return text, False
  return text[:max_chars + 1].rpartition(' ')[0] or text[:max_chars], True


class QAEpisode:
  """One task in progress; see `env.environment.Episode` for the counters.

  Attributes:
    answer: as it was given; None while there is none.
    score: of the answer; None while there is none.
    cut_passages: passages that were longer than `max_passage_chars`.
    outages: searches that could not be done.
  """

  def __init__(self, task: types.Task, retriever: retrieval.Retriever, config: QAConfig,
               count: Callable[[str, int], None] = lambda name, number: None):
    """Begins the task; `count` hears how many of `SHOWN` there are."""
    self.task = task
    self.retriever = retriever
    self.config = config
    self._count = count
    self.max_turns = turn_budget(task, config)
    self.turns = self.searches = self.malformed = self.cut_passages = self.outages = 0
    self.is_done = False
    self.answer: str | None = None
    self.score: rewards.AnswerScore | None = None

  def step(self, action: types.Action) -> types.Observation:
    """Does one action. Raises ValueError where the episode is done."""
    return environment.step_many([self], [action])[0]

  def need(self, action: types.Action) -> environment.Need | None:
    if action.kind != types.ActionKind.SEARCH:
      return None
    search, top_k = self.retriever.search, self.config.top_k
    return environment.Need(
        (id(self.retriever), top_k), lambda queries: search(queries, top_k), action.text)

  def do(self, action: types.Action, found: list[types.Passage] | types.Unavailable | None
         ) -> types.Observation:
    self.turns += 1
    outage = ''
    if action.kind == types.ActionKind.ANSWER:
      self.is_done = True
      self.answer = action.text
      self.score = rewards.score_answer(action.text, self.task)
      return types.Observation('', self.score.em, True)
    if action.kind == types.ActionKind.SEARCH:
      self.searches += 1
      if isinstance(found, types.Unavailable):
        self.outages += 1
        text, outage = OUTAGE, found.reason or 'no reason is given'
      else:
        text = '\n'.join(self._line(passage) for passage in found or ()) or NOTHING
    else:
      self.malformed += 1
      is_click = action.kind == types.ActionKind.CLICK
      text = f' Invalid action: {NO_BUTTONS if is_click else action.text}.'
    if self.turns >= self.max_turns:
      self.is_done = True
      return types.Observation('', 0.0, True)
    text = prompts.information(text, hint(self.max_turns - self.turns))
    return types.Observation(text, 0.0, False, outage)

  def _line(self, passage: types.Passage) -> str:
    text, is_cut = cut(passage.text, self.config.max_passage_chars)
    self.cut_passages += is_cut
    self._count('passages', 1)
    self._count('cut_passages', is_cut)
    return f' {" ".join(passage.title.split())}: {text}'


class QAEnvironment:
  """Starts `QAEpisode`s over one retriever (`env.environment.Environment`)."""

  def __init__(self, retriever: retrieval.Retriever, config: QAConfig):
    self.retriever = retriever
    self.config = config
    self._shown = tally.Tally('shown', SHOWN, SHOWN)

  def start(self, task: types.Task) -> QAEpisode:
    return QAEpisode(task, self.retriever, self.config, self._shown.count)

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `shown_passages`, …, and what the retriever counts."""
    return retrieval.metrics_of(self._shown, self.retriever)

