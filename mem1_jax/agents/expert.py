"""A scripted expert that knows each question's relations and where to begin.

It plays the environment as the two agents would, in their formats, and its
trajectories train them (sft.py). What it writes in a turn:

    constant memory   <think> currency is pounds.[zb]: pounds;*>[kf]: Oslo;>[zb]: pounds;>[xa]
                      Name the capital of the country of Cusco. = capital of country @</think>
                      <search> Cusco</search>
    full context      the same, without `*>[kf]: Oslo;>[zb]: pounds;`

First comes what the last document says, in its words, and if that is an answer, the entry
that it makes: under its label it is found again when the list gets there. Then the answers
so far, under their labels, each closed by `;`. From each the table of contents leads on to
the next label: so that never depends on a place in a list. After them comes the question at
hand: copied, then reduced to what is to be looked up; `@` says that the search names where,
and the next turn says `[xa] capital @`, and searches for Peru: a name stands once in a turn,
so what follows it is never in doubt. What a document does not say is unknown, and so is the
answer. The constant-memory agent rewrites the whole list each turn; the full-context agent,
which can read its earlier turns, writes what is new. The last turn writes the list as its
answer:

    <think> capital is Lima.[xa]: Lima;>.</think>
    <answer> *>[kf]: Oslo;>[zb]: pounds;>[xa]: Lima;>.</answer>
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mem1_jax.agents.agent import Agent
from mem1_jax.memory.segments import parse_turn
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import (END, UNKNOWN, ActionKind, Segment, Stop, Task, Trajectory, TurnRecord, entry,
                            read_off, so_far, taken_up, value_in)


class ExpertError(RuntimeError):
  """A question has no chain of look-ups: there is nothing to imitate."""


@dataclasses.dataclass
class _Progress:
  """Which question, what is left of it, and the answers so far."""

  task: Task
  has_memory: bool  # rewrite all answers each turn, or only the new one
  answers: list[str] = dataclasses.field(default_factory=list)
  hop: int = 0
  name: str = ''  # where to look next
  said: str = ''  # what the last document said
  num_told: int = -1  # answers that the turn before knew; -1: there was none

  def __post_init__(self):
    for question in self.task.questions:
      if not question.chain:
        raise ExpertError(f'question {question.id!r} has no chain for an expert to follow')
    self._begin()

  def _begin(self):
    """Turns to the next question, if there is one."""
    self.hop = 0
    if not self.is_done:
      self.name = self.task.questions[len(self.answers)].chain[0]

  @property
  def is_done(self) -> bool:
    return len(self.answers) == len(self.task.questions)

  def read(self, information: str):
    """Takes what the last search found: a value, or nothing."""
    self.num_told = len(self.answers)
    relations = self.task.questions[len(self.answers)].relations
    value = value_in(information, relations[self.hop]) or UNKNOWN
    self.said, self.name = read_off(relations[self.hop], value), value
    self.hop += 1
    if self.hop == len(relations) or value == UNKNOWN:
      self.answers.append(value)
      self._begin()

  def write(self, is_last_turn: bool, mistaken: str | None) -> str:
    """The text of this turn; `mistaken` is the name to search for instead of the right one."""
    labels, number = self.task.labels, len(self.answers)
    entries = list(zip(labels, self.answers))
    notes = new = so_far(entries)
    if self.num_told >= 0:
      new = notes.removeprefix(so_far(entries[:self.num_told]))  # `[zb]: 51;>`
    if self.is_done or is_last_turn:
      entries += [(label, UNKNOWN) for label in labels[number:]]
      answer = so_far(entries) + END
      end = END if self.is_done else labels[number]
      return f'<think>{self.said}{new}{end}</think><answer> {answer}</answer>'
    if self.has_memory:
      new = ''.join(entry(*pair) for pair in entries[max(self.num_told, 0):]) + notes
    question, name = self.task.questions[number], mistaken or self.name
    words = question.left(self.hop) if self.hop else taken_up(question)
    return f'<think>{self.said}{new}{labels[number]} {words}</think><search> {name}</search>'


def play(task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None,
         mistake: Callable[[str], str | None] = lambda name: None,
         garble: Callable[[str], str | None] = lambda text: None) -> Trajectory:
  """The expert's trajectory of one task, in the agent's format and ids.

  Args:
    task: with chains, such as the atlas has.
    agent: whose view and format.
    episode: a fresh one of the task (env/environment.py).
    tokenizer: the agent's.
    rng: of position gaps; None for none.
    mistake: the name that a turn mistakes this one for, or None.
    garble: what a turn writes instead of this text, without a valid action, or None. Nothing
      is to be learned from a turn of either sort (its logprobs are None), but from how the
      expert goes on.

  Raises:
    ExpertError: when a question has no chain to follow.
  """
  progress = _Progress(task, not agent.is_append_only)
  prompt = agent.prompt(task, rng)
  turns, information = [], ''
  while True:
    context, _ = agent.context(prompt, turns, information, rng)
    is_last_turn = episode.turns + 1 == episode.max_turns
    mistaken = None if progress.is_done or is_last_turn else mistake(progress.name)
    text = progress.write(is_last_turn, mistaken)
    garbled = garble(text)
    ids = tuple(tokenizer.encode(garbled or text))
    parsed = parse_turn(ids, tokenizer.token_bytes)
    observation = episode.step(parsed.action)
    first = context.segment.positions[-1] + 1
    written = Segment(ids, tuple(range(first, first + len(ids))),
                      tuple(int(k) for k in parsed.kind))
    logprobs = None if mistaken or garbled else (0.0,) * len(ids)
    turns.append(TurnRecord(context, written, logprobs, parsed.action, Stop.TAG,
                            observation.reward))
    kind, information = parsed.action.kind, observation.text
    if observation.is_done:
      answer = parsed.action.text if kind is ActionKind.ANSWER else None
      return Trajectory(task, prompt, tuple(turns), agent.is_append_only, 0, answer,
                        episode.searches)
    if kind is ActionKind.SEARCH:
      progress.read(information)
