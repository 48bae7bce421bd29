"""Packed rows for tests of attention."""

import numpy as np


def episodes(num_rows: int, num_positions: int, seed: int = 0, layout: str = 'exact',
             max_turns: int = 4, max_tokens: int = 8) -> tuple[np.ndarray, np.ndarray]:
  """(key_end, position) of rows of random episodes, then padding.

  Args:
    layout: 'exact', 'stitched' (seen by the next turn, too) or 'full' (by all that follow).
    max_turns: episodes have 1…max_turns.
    max_tokens: turns have 3…max_tokens; questions 2…5, or so many as a turn has where that is more.
  """
  rng = np.random.RandomState(seed)
  key_end = np.zeros((num_rows, num_positions), np.int32)
  position = np.zeros((num_rows, num_positions), np.int32)
  for row in range(num_rows):
    start = 0
    while True:
      question = rng.randint(2, max(6, max_tokens))
      turns = rng.randint(3, max_tokens + 1, size=rng.randint(1, max_turns + 1))
      end = start + question + turns.sum()
      if end > num_positions:
        break
      key_end[row, start:start + question] = end
      position[row, start:start + question] = np.arange(question)
      edges = start + question + np.cumsum([0, *turns, 0])
      for turn, (at, stop) in enumerate(zip(edges[:-2], edges[1:-1])):
        last = {'exact': stop, 'stitched': edges[turn + 2], 'full': end}[layout]
        key_end[row, at:stop] = last
        position[row, at:stop] = question + np.arange(stop - at)
      start = end
  return key_end, position
