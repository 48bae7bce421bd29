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
from typing import ClassVar

from mem1_jax.agents import turns as turns_lib
from mem1_jax.types import Segment, TurnRecord


@dataclasses.dataclass(frozen=True)
class ThresholdAgent(turns_lib.ReadingAgent):
  """Every turn reads `[question | what the turn before read, and that turn]` within the budget.

  Beyond it: `[question | last well-formed turn]`, even if that alone is longer.

  Raises:
    ValueError: a budget that is no budget (`turns.check_budget`).
  """

  budget: int  # tokens beside the question that a context may grow to
  name: ClassVar[str] = 'threshold'

  def __post_init__(self):
    turns_lib.check_budget(self.tokenizer, self.budget, self.context_capacity)

  def read(self, turns: Sequence[TurnRecord], latest: turns_lib.Last
           ) -> tuple[Sequence[Segment], turns_lib.Last]:
    # Turn 0 read nothing but the prompt's last token.
    before = [turn.context.segment for turn in turns[1:][-1:]]
    grown = turns_lib.join([*before, turns[-1].written])
    if len(grown) + len(latest.information) <= self.budget:
      latest = dataclasses.replace(latest, kept=grown)
    return (), latest
