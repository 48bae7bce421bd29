"""A sliding window: the question and the newest turns, whole, that fit a budget of tokens.

    turn 3 reads   q q q │ turn 1 │ turn 2        where turns 0 to 2 do not fit together

What is older is dropped. The last turn is there in any case, as the constant-memory agent has it
(agents/mem1.py): a reply that does not fit `context_capacity` loses its end, and nothing else is
ever cut. The baseline of arXiv 2506.15841 whose context is truncated.
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
class TruncationAgent:
  """Every turn reads `[question | newest well-formed turns, whole, within the budget]`.

  Raises:
    ValueError: a budget that is no budget (`turns.check_budget`).
  """

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens
  prompt_style: str
  gaps: Gaps
  budget: int  # tokens beside the question that older turns may fill
  is_append_only: bool = False

  def __post_init__(self):
    turns_lib.check_budget(self.tokenizer, self.budget, self.context_capacity)

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    lines = encode_task(self.tokenizer, task, self.prompt_style, 'truncation')
    return stretch_prompt(lines, self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    last = turns_lib.last(self.tokenizer, turns, information, self.context_capacity)
    older, room = [], self.budget - len(last)
    for number in reversed(turns_lib.valid(turns)[:-1]):
      block = turns_lib.block(turns, number)
      if len(block) > room:
        break
      older, room = [block, *older], room - len(block)
    return turns_lib.read_again(prompt, older, last, turn_gap(self.gaps, rng))
