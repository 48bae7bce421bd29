"""The constant-memory agent: the question and its own last turn, nothing else.

A turn without a valid action is not kept: the turn before stays the last one, with the
reply to it, and the correction behind that. Its memory is what it last wrote well.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mem1_jax.agents import turns as turns_lib
from mem1_jax.types import Segment, TurnRecord


@dataclasses.dataclass(frozen=True)
class Mem1Agent(turns_lib.ReadingAgent):
  """Every turn reads `[question | last well-formed turn: think, action, information]`."""

  name: ClassVar[str] = 'mem1'

  def read(self, turns: Sequence[TurnRecord], latest: turns_lib.Last
           ) -> tuple[Sequence[Segment], turns_lib.Last]:
    return (), latest
