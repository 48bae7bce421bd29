"""The constant-memory agent: the question and its own last turn, nothing else."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.memory import state
from mem1_jax.memory.positions import Gaps, stretch_prompt, turn_gap
from mem1_jax.text.prompts import encode_information, encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Context, Segment, Task, TurnRecord


@dataclasses.dataclass(frozen=True)
class Mem1Agent:
  """Every turn reads `[question | last turn: think, action, information]`."""

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens
  prompt_style: str
  gaps: Gaps
  is_append_only: bool = False

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    return stretch_prompt(encode_task(self.tokenizer, task, self.prompt_style), self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    written = turns[-1].written
    block, num_cut = encode_information(self.tokenizer, information,
                                        self.context_capacity - len(written))
    context = state.carry(written, block, prompt.positions[-1] + 1, turn_gap(self.gaps, rng),
                          num_cut)
    return context, len(prompt)
