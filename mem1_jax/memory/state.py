"""The carry buffer: what a constant-memory agent keeps from a turn to the next.

    slot   [ question ≤ P | context ≤ C | generation ≤ R ]

The context of turn j+1 is what turn j generated plus the information it got.
C ≥ R + information, so that a carry always fits; where a reply is longer, its
text is cut at the end, its closing tag kept and the cut counted.
"""

from collections.abc import Sequence

import numpy as np

from mem1_jax.arrays import MemoryState
from mem1_jax.types import Context, Kind, Segment


def carry(kept: Segment, information: Sequence[int], first_position: int, gap: int = 0,
          num_cut: int = 0) -> Context:
  """The context of the next turn: a copy of `kept`, then the information block.

  Args:
    kept: what the last turn generated; nothing for an append-only agent.
    information: ids of the block, both tags included.
    first_position: rotary position of the context's first token.
    gap: positions to skip before the information block.
    num_cut: information tokens that were left out because they did not fit.
  """
  moved = tuple(p - kept.positions[0] + first_position for p in kept.positions)
  info_position = (moved[-1] + 1 if moved else first_position) + gap
  positions = moved + tuple(range(info_position, info_position + len(information)))
  kinds = kept.kinds + (Kind.INFO,) * len(information)
  return Context(Segment(kept.ids + tuple(information), positions, kinds), len(kept), num_cut)


def first_context(prompt: Segment) -> Context:
  """Turn 0 reads the prompt's last token; the rest is in the cache already."""
  return Context(Segment(prompt.ids[-1:], prompt.positions[-1:], prompt.kinds[-1:]), 1)


def batch(contexts: Sequence[Context | None], keep: Sequence[int], capacity: int,
          pad_id: int) -> MemoryState:
  """Contexts of the slots as arrays [B, C]; None for an empty slot.

  Raises:
    ValueError: if a context is longer than the capacity.
  """
  tokens = np.full((len(contexts), capacity), pad_id, np.int32)
  position = np.zeros_like(tokens)
  length = np.zeros(len(contexts), np.int32)
  for b, context in enumerate(contexts):
    if context is None:
      continue
    n = len(context.segment)
    if n > capacity:
      raise ValueError(f'a context of {n} tokens does not fit its capacity of {capacity}; '
                       'raise context_capacity.')
    tokens[b, :n], position[b, :n] = context.segment.ids, context.segment.positions
    length[b] = n
  return MemoryState(tokens, position, length, np.asarray(keep, np.int32))
