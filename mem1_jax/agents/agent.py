"""What an agent is: a pure rule for what the policy sees at each turn.

Positions may be stretched by random gaps while training (after arXiv
2305.16843), so that distances of long tasks are met in short ones: tokens of a
segment stay adjacent, segments move apart. Evaluation has no gaps.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mem1_jax.text.prompts import encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Context, Kind, Segment, Task, TurnRecord


@dataclasses.dataclass(frozen=True)
class Gaps:
  """Most positions that a random gap may skip; 0 for none.

  Attributes:
    prompt: summed over the gaps before the prompt's lines and after its last.
    turn: the gap between what a turn generated and the information it got.
    probability: share of episodes that have gaps at all.
  """

  prompt: int
  turn: int
  probability: float


NO_GAPS = Gaps(0, 0, 0.0)


class Agent(Protocol):
  """A policy's view of an episode."""

  is_append_only: bool

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    """The question's ids; `rng` draws position gaps, None for none."""

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    """What the next turn reads, and how many cached tokens it keeps before that."""


def make_prompt(task: Task, tokenizer: Tokenizer, style: str, gaps: Gaps,
                rng: np.random.Generator | None) -> Segment:
  """The task's prompt, gaps before its lines and before its last token."""
  lines = encode_task(tokenizer, task, style)
  lines[-1:] = [lines[-1][:-1], lines[-1][-1:]]
  skips = np.zeros(len(lines), int)
  if rng is not None and gaps.prompt and rng.random() < gaps.probability:
    total = rng.integers(gaps.prompt + 1)
    cuts = np.sort(rng.integers(total + 1, size=len(lines) - 1))
    skips = np.diff(cuts, prepend=0, append=total)
  ids, positions, next_position = [], [], 0
  for line, skip in zip(lines, skips):
    next_position += int(skip)
    ids.extend(line)
    positions.extend(range(next_position, next_position + len(line)))
    next_position += len(line)
  return Segment(tuple(ids), tuple(positions), (Kind.PROMPT,) * len(ids))


def turn_gap(gaps: Gaps, rng: np.random.Generator | None) -> int:
  """Positions to skip before an information block."""
  if rng is None or not gaps.turn or rng.random() >= gaps.probability:
    return 0
  return int(rng.integers(gaps.turn + 1))
