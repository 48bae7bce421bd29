"""What an agent is: a pure rule for what the policy sees at each turn."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mem1_jax.types import Context, Segment, Task, TurnRecord


class Agent(Protocol):
  """A policy's view of an episode. `rng` draws position gaps, None for none."""

  is_append_only: bool

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    """The question's ids."""

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    """What the next turn reads, and how many cached tokens it keeps before that."""
