"""Packed rows for tests of attention."""

import numpy as np


def episodes(num_rows: int, num_positions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """(key_end, position) of rows of random episodes in the exact layout, then padding."""
  rng = np.random.RandomState(seed)
  key_end = np.zeros((num_rows, num_positions), np.int32)
  position = np.zeros((num_rows, num_positions), np.int32)
  for row in range(num_rows):
    start = 0
    while True:
      question, turns = rng.randint(2, 6), rng.randint(3, 9, size=rng.randint(1, 5))
      end = start + question + turns.sum()
      if end > num_positions:
        break
      key_end[row, start:start + question] = end
      position[row, start:start + question] = np.arange(question)
      at = start + question
      for turn in turns:
        key_end[row, at:at + turn] = at + turn
        position[row, at:at + turn] = question + np.arange(turn)
        at += turn
      start = end
  return key_end, position
