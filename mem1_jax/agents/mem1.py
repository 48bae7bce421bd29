"""The constant-memory agent: the question and its own last turn, nothing else.

A turn without a valid action is not kept: the turn before stays the last one, with the
reply to it, and the correction behind that. Its memory is what it last wrote well.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.memory import state
from mem1_jax.memory.positions import Gaps, stretch_prompt, turn_gap
from mem1_jax.text.prompts import encode_information, encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import ActionKind, Context, Segment, Task, TurnRecord

_NOTHING = Segment((), (), ())


@dataclasses.dataclass(frozen=True)
class Mem1Agent:
  """Every turn reads `[question | last well-formed turn: think, action, information]`."""

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
    kept, num_cut = self._kept(turns, information)
    block, num_more = encode_information(self.tokenizer, information,
                                         self.context_capacity - len(kept))
    context = state.carry(kept, block, prompt.positions[-1] + 1, turn_gap(self.gaps, rng),
                          num_cut + num_more)
    return context, len(prompt)

  def _kept(self, turns: Sequence[TurnRecord], information: str) -> tuple[Segment, int]:
    """What stays of earlier turns, and how many tokens of a reply had to go to make room."""
    first_malformed = len(turns)
    while first_malformed and turns[first_malformed - 1].action.kind is ActionKind.MALFORMED:
      first_malformed -= 1
    if first_malformed == 0:
      return _NOTHING, 0
    written = turns[first_malformed - 1].written
    if first_malformed == len(turns):
      return written, 0
    with_reply = turns[first_malformed].context.segment
    correction, _ = encode_information(self.tokenizer, information, self.context_capacity)
    if len(with_reply) + len(correction) <= self.context_capacity:
      return with_reply, 0
    return written, len(with_reply) - len(written)
