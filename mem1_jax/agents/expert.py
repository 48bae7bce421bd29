"""A scripted expert that knows each question's chain of look-ups.

It plays the environment as the two agents would, in their formats, and its
trajectories train them (sft.py). What it writes in a turn:

    constant memory   <think>*>[kf]: Oslo;>[zb]: 51;>[xa] Name the capital of the country of Cusco.
                      = capital of country of Cusco</think><search> Cusco</search>
    full context      the same from [zb]: 51; on

Answers found so far stand under their labels, each closed by `;`. From each the table of
contents leads on to the next label: so that never depends on a place in a list. After
them comes the question at hand: copied, then reduced to what is still to be looked up;
the next turn says `[xa] capital of Peru`. The constant-memory agent rewrites the whole
list each turn; the full-context agent, which can read its earlier turns, writes what is
new. The last turn ends the list with `>.`, and answers by writing it once more:

    <answer> *>[kf]: Oslo;>[zb]: 51;>[xa]: Lima;>.</answer>
"""

import dataclasses
from typing import Any

import numpy as np

from mem1_jax.agents.agent import Agent
from mem1_jax.memory.segments import parse_turn
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import END, START, Segment, Stop, Task, Trajectory, TurnRecord, noted, taken_up

UNKNOWN = 'unknown'


class ExpertError(RuntimeError):
  """A look-up did not return what the chain says: the episode teaches nothing."""


@dataclasses.dataclass
class _Progress:
  """Which question, which of its hops, and the answers so far."""

  task: Task
  has_memory: bool  # rewrite all answers each turn, or only the new one
  answers: list[str] = dataclasses.field(default_factory=list)
  hop: int = 0
  num_told: int = -1  # answers an append-only agent has written down; -1: nothing yet

  @property
  def is_done(self) -> bool:
    return len(self.answers) == len(self.task.questions)

  def read(self, information: str):
    """Takes what the last search found.

    Raises:
      ExpertError: if the document does not say what the chain expects.
    """
    question = self.task.questions[len(self.answers)]
    found = question.found[self.hop]
    if found not in information:
      raise ExpertError(f'{found!r} is not in {information!r}.')
    self.hop += 1
    if self.hop == len(question.chain):
      self.answers.append(found)
      self.hop = 0

  def _notes(self, number: int) -> str:
    """The first answers, up to where the next question's label is to stand."""
    if number < 0:
      return ''
    entries = list(zip(self.task.labels, self.answers[:number]))
    return ''.join(noted(entries)) + ('>' if number else f'{START}>')

  def write(self, is_last_turn: bool) -> str:
    """The text of this turn.

    Raises:
      ExpertError: if the question that is next has no chain of look-ups.
    """
    labels, number = self.task.labels, len(self.answers)
    notes = self._notes(number)
    if not self.has_memory:  # goes on where its last turn ended
      notes = notes.removeprefix(self._notes(self.num_told))
    self.num_told = number
    if self.is_done or is_last_turn:
      answers = self.answers + [UNKNOWN] * (len(labels) - number)
      answer = ''.join(noted(list(zip(labels, answers)))) + f'>{END}'
      end = END if self.is_done else labels[number]
      return f'<think>{notes}{end}</think><answer> {answer}</answer>'
    question = self.task.questions[number]
    if not question.chain:
      raise ExpertError(f'question {question.id!r} has no chain for an expert to follow')
    words = question.left(self.hop) if self.hop else taken_up(question)
    return (f'<think>{notes}{labels[number]} {words}</think>'
            f'<search> {question.chain[self.hop]}</search>')


def play(task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None) -> Trajectory:
  """The expert's trajectory of one task, in the agent's format and ids.

  Args:
    task: with chains, such as the atlas has.
    agent: whose view and format.
    episode: a fresh one of the task (env/environment.py).
    tokenizer: the agent's.
    rng: of position gaps; None for none.

  Raises:
    ExpertError: when the environment does not let the chain be followed.
  """
  progress = _Progress(task, not agent.is_append_only)
  prompt = agent.prompt(task, rng)
  turns, information = [], ''
  while True:
    context, _ = agent.context(prompt, turns, information, rng)
    text = progress.write(episode.turns + 1 == episode.max_turns)
    ids = tuple(tokenizer.encode(text))
    parsed = parse_turn(ids, tokenizer.token_bytes)
    observation = episode.step(parsed.action)
    first = context.segment.positions[-1] + 1
    written = Segment(ids, tuple(range(first, first + len(ids))), tuple(int(k) for k in parsed.kind))
    turns.append(TurnRecord(context, written, (0.0,) * len(ids), parsed.action, Stop.TAG,
                            observation.reward))
    if observation.is_done:
      return Trajectory(task, prompt, tuple(turns), agent.is_append_only, 0, parsed.action.text,
                        episode.searches)
    information = observation.text
    progress.read(information)
