"""Plays a scripted expert's episode as an agent would: turn by turn, in its view and its ids."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mem1_jax.agents.agent import Agent
from mem1_jax.memory.segments import parse_turn
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Action, Segment, Stop, Task, Trajectory, TurnRecord

Mistake = Callable[[str], str | None]
Garble = Callable[[str], str | None]


class ExpertError(RuntimeError):
  """A question lacks what an expert goes by: there is nothing to imitate."""


class Script(Protocol):
  """An expert at one task."""

  def write(self, is_last_turn: bool, mistake: Mistake) -> tuple[str, bool]:
    """The text of the next turn, and whether it makes a mistake that `mistake` told it to."""

  def read(self, action: Action, information: str):
    """Takes the reply to an action."""


def play(script: Script, task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None, mistake: Mistake = lambda text: None,
         garble: Garble = lambda text: None) -> Trajectory:
  """The script's trajectory of its task, in the agent's format and ids.

  Args:
    script: a fresh one.
    task: that it is for.
    agent: whose view and format.
    episode: a fresh one of the task (env/environment.py).
    tokenizer: the agent's.
    rng: of position gaps; None for none.
    mistake: what an action mistakes this text for, or None.
    garble: what a turn writes instead of this text, without a valid action, or None. Nothing
      is to be learned from a turn of either sort (its logprobs are None), but from how the
      expert goes on.
  """
  prompt = agent.prompt(task, rng)
  turns, information = [], ''
  while not episode.is_done:
    context, _ = agent.context(prompt, turns, information, rng)
    text, is_mistaken = script.write(episode.turns + 1 == episode.max_turns, mistake)
    garbled = garble(text)
    ids = tuple(tokenizer.encode(garbled or text))
    parsed = parse_turn(ids, tokenizer.token_bytes)
    observation = episode.step(parsed.action)
    first = context.segment.positions[-1] + 1
    written = Segment(ids, tuple(range(first, first + len(ids))),
                      tuple(int(k) for k in parsed.kind))
    logprobs = None if is_mistaken or garbled else (0.0,) * len(ids)
    turns.append(TurnRecord(context, written, logprobs, parsed.action, Stop.TAG,
                            observation.reward))
    information = observation.text
    if not observation.is_done:
      script.read(parsed.action, information)
  return Trajectory(task, prompt, tuple(turns), agent.is_append_only, 0, episode.answer,
                    episode.searches)
