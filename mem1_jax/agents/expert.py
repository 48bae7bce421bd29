"""A scripted expert that knows each question's relations and where to begin.

It plays the environment as an agent would (agents/), and its trajectories train it (sft.py).
There are two formats: of full context, and of all agents that forget. What it writes in a turn:

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
answer. An agent that forgets rewrites the whole list each turn, whatever else is still in view:
the last turn, which it always reads, is enough to go on. The full-context agent writes what is
new. The last turn writes the list as its answer:

    <think> capital is Lima.[xa]: Lima;>.</think>
    <answer> *>[kf]: Oslo;>[zb]: pounds;>[xa]: Lima;>.</answer>
"""

import dataclasses
from typing import Any

import numpy as np

from mem1_jax.agents import play as play_lib
from mem1_jax.agents.agent import Agent
from mem1_jax.agents.play import ExpertError, Garble, Mistake
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import (END, UNKNOWN, Action, ActionKind, Task, Trajectory, entry, read_off,
                            so_far, taken_up, value_in)


@dataclasses.dataclass
class Progress:
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
    if not any(question.relations for question in self.task.questions):
      raise ExpertError(f'task {self.task.id!r} has no relations for an expert to look up')
    self._begin()

  def _begin(self):
    """Turns to the next question that has something to look up; the others are unknown."""
    self.hop = 0
    while not self.is_done and not self.task.questions[len(self.answers)].relations:
      self.answers.append(UNKNOWN)
    if not self.is_done:
      self.name = self.task.questions[len(self.answers)].chain[0]

  @property
  def is_done(self) -> bool:
    return len(self.answers) == len(self.task.questions)

  @property
  def relation(self) -> str:
    """What is to be looked up now."""
    return self.task.questions[len(self.answers)].relations[self.hop]

  def read(self, action: Action, information: str):
    """Takes what a search found: a value, or nothing."""
    if action.kind is ActionKind.SEARCH:
      self.take(value_in(information, self.relation) or UNKNOWN)

  def take(self, value: str):
    """Takes what the relation has been found to be."""
    self.num_told = len(self.answers)
    self.said, self.name = read_off(self.relation, value), value
    self.hop += 1
    relations = self.task.questions[len(self.answers)].relations
    if self.hop == len(relations) or value == UNKNOWN:
      self.answers.append(value)
      self._begin()

  def stay(self):
    """Takes that a turn found nothing yet."""
    self.num_told, self.said = len(self.answers), ''

  def write(self, is_last_turn: bool, mistake: Mistake) -> tuple[str, bool]:
    """The text of this turn, and whether it searches for the wrong name."""
    mistaken = None if self.is_done or is_last_turn else mistake(self.name)
    words = '' if self.is_done else self._words()
    return self.text(is_last_turn, words, f'<search> {mistaken or self.name}</search>'), bool(
        mistaken)

  def _words(self) -> str:
    question = self.task.questions[len(self.answers)]
    return question.left(self.hop) if self.hop else taken_up(question)

  def text(self, is_last_turn: bool, words: str, action: str) -> str:
    """A turn that does `action` for the question at hand, in these words; or the answer."""
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
    return f'<think>{self.said}{new}{labels[number]} {words}</think>{action}'


def hasty(task: Task) -> Task:
  """The same to read, but whoever follows its chains gives up all questions but the first."""
  first, *others = task.questions
  return dataclasses.replace(task, questions=(
      first, *(dataclasses.replace(q, relations=()) for q in others)))


def play(task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None, mistake: Mistake = lambda name: None,
         garble: Garble = lambda text: None) -> Trajectory:
  """The expert's trajectory of one task with chains, such as the atlas has (agents/play.py).

  `mistake` gives the name that a turn mistakes this one for, or None.

  Raises:
    ExpertError: when a question has no chain to follow.
  """
  script = Progress(task, not agent.is_append_only)
  return play_lib.play(script, task, agent, episode, tokenizer, rng, mistake, garble)
