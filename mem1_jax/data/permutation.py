"""Integer hashes and permutations: of one number, and of arrays, the same bit for bit.

All randomness of composition is defined here: NumPy does not promise that its
generators' streams stay the same across versions.
"""

import numpy as np

_MASK64 = (1 << 64) - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ROUNDS = 6
_FEW = 32  # so many are faster one by one


def hash64(*values: int) -> int:
  """A 64-bit hash of integers: splitmix64's finaliser (https://doi.org/10.1145/2660193.2660195)."""
  state = 0
  for value in values:
    state = _mix(state, value & _MASK64)
  return state


def _mix(state: int, value: int) -> int:
  state = (state + value + _GOLDEN) & _MASK64
  state = ((state ^ state >> 30) * _FIRST) & _MASK64
  state = ((state ^ state >> 27) * _SECOND) & _MASK64
  return state ^ state >> 31


def permute(position: int, size: int, key: int) -> int:
  """Where `position` goes in the key's permutation of range(size), in O(1).

  A Feistel network over the next even number of bits, walked until it lands inside
  (Black and Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9).

  Raises:
    ValueError: the position is outside range(size).
  """
  if not 0 <= position < size:
    raise ValueError(f'position={position} is outside [0, {size}); give one inside')
  half = _half(size)
  mask = (1 << half) - 1
  rounds = [hash64(key, round_) for round_ in range(_ROUNDS)]
  while True:
    left, right = position >> half, position & mask
    for state in rounds:
      left, right = right, left ^ _mix(state, right) & mask
    position = left << half | right
    if position < size:
      return position


def hashes(*values: int | np.ndarray) -> np.ndarray:
  """`hash64` of each, uint64 [n]; a value is one integer for all, or [n] of them."""
  state = np.zeros(1, np.uint64)
  for value in values:
    state = _mixed(state + _unsigned(value) + np.uint64(_GOLDEN))
  return state


def permuted(position: np.ndarray, size: int, keys: np.ndarray, which: np.ndarray) -> np.ndarray:
  """`permute(position[i], size, keys[which[i]])` of each i, int64 [n].

  Args:
    position: [n], in [0, size).
    size: of the range that is permuted, ≥ 1.
    keys: [k] uint64.
    which: [n], in [0, k).

  Raises:
    ValueError: a position is outside range(size).
  """
  if len(position) <= _FEW:
    found = [permute(int(at), size, int(keys[k])) for at, k in zip(position, which)]
    return np.array(found, np.int64)
  for outside in position[(position < 0) | (position >= size)]:
    raise ValueError(f'position={outside} is outside [0, {size}); give one inside')
  half = _half(size)
  mask = np.uint64((1 << half) - 1)
  # What `hash64(key, round, right)` is before `right` comes in, one row for each round.
  rounds = np.stack([hashes(keys, r) for r in range(_ROUNDS)])[:, which] + np.uint64(_GOLDEN)
  at, found = position.astype(np.uint64), np.empty(len(position), np.int64)
  walking = np.arange(len(position))
  while len(walking):
    left, right = at >> half, at & mask
    for subkey in rounds:
      mixed = _mixed(subkey + right)
      mixed &= mask
      mixed ^= left
      left, right = right, mixed
    at = left << half | right
    is_inside = at < size
    found[walking[is_inside]] = at[is_inside]
    walking, at, rounds = walking[~is_inside], at[~is_inside], rounds[:, ~is_inside]
  return found


def _half(size: int) -> int:
  """Bits of one side of the network."""
  return max(1, ((size - 1).bit_length() + 1) // 2)


def _unsigned(value: int | np.ndarray) -> np.ndarray:
  if isinstance(value, np.ndarray):
    return value.astype(np.uint64)  # negative ones wrap, as `hash64` masks them
  return np.uint64(value & _MASK64)


def _mixed(state: np.ndarray) -> np.ndarray:
  """The same array, changed in place."""
  state ^= state >> 30
  state *= np.uint64(_FIRST)
  state ^= state >> 27
  state *= np.uint64(_SECOND)
  state ^= state >> 31
  return state
