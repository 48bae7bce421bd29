"""A scripted expert for questions on the web that knows their relations and where to begin.

It looks up what agents/expert.py looks up, and writes what that writes, but a fact may stand
where a result does not show it: then it opens the page, and turns its parts.

    <think>*>[kf] Name the capital of the country of Cusco. = capital of country @</think>
    <search> Cusco</search>
    <think>*>[kf] capital of country @</think><click> 1</click>
    <think> country is Peru.*>[kf] capital @</think><search> Peru</search>

It acts on nothing but the text that it is told. Of the results it takes the one that is titled
as it searched. What cannot be had now is asked for again; what is not found is unknown.
"""

import re
from typing import Any

import numpy as np

from mem1_jax.agents import expert
from mem1_jax.agents import play as play_lib
from mem1_jax.agents.agent import Agent
from mem1_jax.agents.play import Garble, Mistake
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import UNKNOWN, Action, ActionKind, Task, Trajectory, value_in

_RESULT = re.compile(r'^ \[ (\d+)\] (.*?) \([^()]*\):(.*)$', re.MULTILINE)
_OUTAGE = re.compile(r'^ (?:Search|This page) is unavailable; ', re.MULTILINE)
_MORE = re.compile(r'^ \[ more\] ', re.MULTILINE)


class _Reader:
  """The questions, and what to click on for the one at hand, if anything."""

  def __init__(self, task: Task, has_memory: bool):
    self._progress, self._task = expert.Progress(task, has_memory), task
    self._button = ''

  def read(self, action: Action, information: str):
    """Takes the reply to an action; after a malformed one all is as it was."""
    progress = self._progress
    if action.kind is ActionKind.MALFORMED:
      return
    if _OUTAGE.search(information):
      progress.stay()
      return
    text, button = information, 'more' if _MORE.search(information) else ''
    if action.kind is ActionKind.SEARCH:
      button, text = _result(information, action.text)
    value = value_in(text, progress.relation)
    self._button = '' if value else button
    if self._button:
      progress.stay()
    else:
      progress.take(value or UNKNOWN)

  def write(self, is_last_turn: bool, mistake: Mistake) -> tuple[str, bool]:
    """The text of this turn, and whether it searches for the wrong name."""
    progress = self._progress
    if not self._button or progress.is_done:
      return progress.write(is_last_turn, mistake)
    words = self._task.questions[len(progress.answers)].left(progress.hop)
    return progress.text(is_last_turn, words, f'<click> {self._button}</click>'), False


def _result(information: str, title: str) -> tuple[str, str]:
  """Number and text of the result of this title; '' where there is none."""
  for number, name, text in _RESULT.findall(information):
    if name.casefold() == ' '.join(title.split()).casefold():
      return number, text
  return '', ''


hasty = expert.hasty  # the questions are the same, so is how they are given up


def play(task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None, mistake: Mistake = lambda name: None,
         garble: Garble = lambda text: None) -> Trajectory:
  """The expert's trajectory of one task with chains, such as the atlas has (agents/play.py).

  `mistake` gives the name that a search mistakes this one for, or None.

  Raises:
    ExpertError: when a question has no chain to follow.
  """
  script = _Reader(task, not agent.is_append_only)
  return play_lib.play(script, task, agent, episode, tokenizer, rng, mistake, garble)
