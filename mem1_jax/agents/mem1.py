"""The constant-memory agent: the question and its own last turn, nothing else.

A turn without a valid action is not kept: the turn before stays the last one, with the
reply to it, and the correction behind that. Its memory is what it last wrote well.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.agents import turns as turns_lib
from mem1_jax.memory import state
from mem1_jax.memory.positions import Gaps, stretch_prompt, turn_gap
from mem1_jax.text.prompts import encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Context, Segment, Task, TurnRecord


@dataclasses.dataclass(frozen=True)
class Mem1Agent:
  """Every turn reads `[question | last well-formed turn: think, action, information]`."""

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens
  prompt_style: str
  gaps: Gaps
  is_append_only: bool = False

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    lines = encode_task(self.tokenizer, task, self.prompt_style, 'mem1')
    return stretch_prompt(lines, self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    last = turns_lib.last(self.tokenizer, turns, information, self.context_capacity)
    return turns_lib.read_again(prompt, (), last, turn_gap(self.gaps, rng))
