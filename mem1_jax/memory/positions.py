"""Rotary positions of a context's pieces, with random gaps between them in training.

    prompt    [kf] … ⏎   [zb] … ⏎  | turn …
    position  0 1 2 3 .. 9 10 11 … .. 40 41

A short task then shows distances that only long tasks have otherwise (after
arXiv 2305.16843): tokens of a piece stay adjacent, pieces move apart.
Evaluation has no gaps.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from mem1_jax.types import Kind, Segment


@dataclasses.dataclass(frozen=True)
class Gaps:
  """The most positions that random gaps may skip; 0 for none.

  Attributes:
    prompt: summed over the gaps before a prompt's lines and its last token.
    turn: the gap before an information block.
    probability: share of episodes (for prompt) and of turns that have gaps at all.
  """

  prompt: int
  turn: int
  probability: float

  def __post_init__(self):
    if min(self.prompt, self.turn) < 0 or not 0 <= self.probability <= 1:
      raise ValueError(f'{self} must have gaps ≥ 0 and a probability in [0, 1].')


def stretch_prompt(lines: Sequence[Sequence[int]], gaps: Gaps,
                   rng: np.random.Generator | None) -> Segment:
  """The lines as one segment, with gaps before each and before the very last token.

  Consumes `rng`; None for no gaps.
  """
  pieces = [*lines[:-1], lines[-1][:-1], lines[-1][-1:]]
  skips = np.zeros(len(pieces), int)
  if rng is not None and gaps.prompt and rng.random() < gaps.probability:
    total = int(rng.integers(gaps.prompt + 1))
    cuts = np.sort(rng.integers(total + 1, size=len(pieces) - 1))
    skips = np.diff(cuts, prepend=0, append=total)
  ids, positions, position = [], [], 0
  for piece, skip in zip(pieces, skips.tolist()):
    position += skip
    ids.extend(piece)
    positions.extend(range(position, position + len(piece)))
    position += len(piece)
  return Segment(tuple(ids), tuple(positions), (Kind.PROMPT,) * len(ids))


def turn_gap(gaps: Gaps, rng: np.random.Generator | None) -> int:
  """Positions to skip before an information block. Consumes `rng`; None for 0."""
  if rng is None or not gaps.turn or rng.random() >= gaps.probability:
    return 0
  return int(rng.integers(gaps.turn + 1))
