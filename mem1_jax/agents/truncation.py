"""A sliding window: the question and the newest turns, whole, that fit a budget of tokens.

    turn 3 reads   q q q │ turn 1 │ turn 2        where turns 0 to 2 do not fit together

What is older is dropped. The last turn is there in any case, as the constant-memory agent has it
(agents/mem1.py): a reply that does not fit `context_capacity` loses its end, and nothing else is
ever cut. The baseline of arXiv 2506.15841 whose context is truncated.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mem1_jax.agents import turns as turns_lib
from mem1_jax.types import Segment, TurnRecord


@dataclasses.dataclass(frozen=True)
class TruncationAgent(turns_lib.ReadingAgent):
  """Every turn reads `[question | newest well-formed turns, whole, within the budget]`.

  Raises:
    ValueError: a budget that is no budget (`turns.check_budget`).
  """

  budget: int  # tokens beside the question that older turns may fill
  name: ClassVar[str] = 'truncation'

  def __post_init__(self):
    turns_lib.check_budget(self.tokenizer, self.budget, self.context_capacity)

  def read(self, turns: Sequence[TurnRecord], latest: turns_lib.Last
           ) -> tuple[Sequence[Segment], turns_lib.Last]:
    older, room = [], self.budget - len(latest)
    for number in reversed(turns_lib.valid(turns)[:-1]):
      block = turns_lib.block(turns, number)
      if len(block) > room:
        break
      older, room = [block, *older], room - len(block)
    return older, latest
