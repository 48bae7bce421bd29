"""The full-context agent: everything it ever read or wrote stays (ReAct, Search-R1)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.memory import state
from mem1_jax.memory.positions import Gaps, stretch_prompt, turn_gap
from mem1_jax.text.prompts import encode_information, encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Context, Segment, Task, TurnRecord

_NOTHING = Segment((), (), ())


@dataclasses.dataclass(frozen=True)
class FullContextAgent:
  """Every turn appends its information to one growing context."""

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens that one turn may add
  prompt_style: str
  gaps: Gaps
  is_append_only: bool = True

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    lines = encode_task(self.tokenizer, task, self.prompt_style, 'full_context')
    return stretch_prompt(lines, self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    read = sum(len(turn.context.segment) + len(turn.written) for turn in turns) - 1
    block, num_cut = encode_information(self.tokenizer, information, self.context_capacity)
    context = state.carry(_NOTHING, block, turns[-1].written.positions[-1] + 1,
                          turn_gap(self.gaps, rng), num_cut)
    return context, len(prompt) + read
