"""Memory on a threshold: everything stays until it passes a budget, then the last turn alone.

    turn 1 reads   q q q │ turn 0
    turn 2 reads   q q q │ turn 0 │ turn 1
    turn 3 reads   q q q │ turn 2                 turns 0 to 2 would have passed the budget
    turn 4 reads   q q q │ turn 2 │ turn 3        and it grows again

Nothing announces it, so every <think> must hold what is to outlast the turns before it: what the
constant-memory agent (agents/mem1.py) needs at each turn, this one needs where it consolidates.
Between two such turns it is a full-context agent, turns without a valid action included. After
ReSum (arXiv 2509.13313) and SUPO (arXiv 2510.06727), which have a summary written at that point.

It is not append-only: each turn reads its whole context again, and the exact layout of rows
(memory/layout.py) writes that copy down, so the learner computes what the sampler did.
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
class ThresholdAgent:
  """Every turn reads `[question | what the turn before read, and that turn]` within the budget.

  Beyond it: `[question | last well-formed turn]`, even if that alone is longer.

  Raises:
    ValueError: a budget that is no budget (`turns.check_budget`).
  """

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens
  prompt_style: str
  gaps: Gaps
  budget: int  # tokens beside the question that a context may grow to
  is_append_only: bool = False

  def __post_init__(self):
    turns_lib.check_budget(self.tokenizer, self.budget, self.context_capacity)

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    lines = encode_task(self.tokenizer, task, self.prompt_style, 'threshold')
    return stretch_prompt(lines, self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    last = turns_lib.last(self.tokenizer, turns, information, self.context_capacity)
    # Turn 0 read nothing but the prompt's last token.
    before = [turn.context.segment for turn in turns[1:][-1:]]
    grown = turns_lib.join([*before, turns[-1].written])
    if len(grown) + len(last.information) <= self.budget:
      last = dataclasses.replace(last, kept=grown)
    return turns_lib.read_again(prompt, (), last, turn_gap(self.gaps, rng))
