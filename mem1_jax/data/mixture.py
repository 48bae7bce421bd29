"""Tasks from several composers by weight, as a pure function of (seed, index).

    tasks     0 1 2 3 | 4 5 6 7 | …       weights 3 and 1: a block of four tasks has three of
    source    a a b a | b a a a | …       the first and one of the second, shuffled anew
    own       0 1 0 2 | 1 3 4 5 | …       each source's own tasks, counted one after another

So every source runs through its own epochs, whatever stands between its tasks.
"""

from collections.abc import Sequence
import fractions
import math
from typing import Protocol

import numpy as np

from mem1_jax.data import compose
from mem1_jax.data.permutation import hashes, permuted
from mem1_jax.types import Task

_MAX_BLOCK = 100


class TaskSource(Protocol):
  """Tasks by number: `compose.Composer`, `chains.DependentComposer`, `Mixture`, …"""

  def task(self, index: int) -> Task:
    """Task number `index` ≥ 0."""

  def tasks(self, indices: Sequence[int]) -> tuple[Task, ...]:
    """The tasks of these numbers."""


class Mixture:
  """Tasks of several sources, each as often as its weight says.

  Attributes:
    counts: tasks of each source in a block; a block has at most 100, so weights count to
      the hundredth.
  """

  def __init__(self, parts: Sequence[TaskSource], weights: Sequence[float], seed: int):
    """`weights` > 0, one for each of `parts`, of any sum.

    Raises:
      ValueError: not as many weights as parts, none, or one that is not positive or rounds
        to no task in a hundred.
    """
    if len(parts) != len(weights) or not parts:
      raise ValueError(f'{len(parts)} parts and {len(weights)} weights; give one weight to each'
                       ' of at least one part')
    self._parts, self._seed = tuple(parts), seed
    self.counts = counts(weights)
    self._part = np.repeat(np.arange(len(parts)), self.counts)  # [block], before the shuffle

  def task(self, index: int) -> Task:
    """Task number `index` ≥ 0. Raises ValueError where it is negative, or 2^53 or more."""
    return self.tasks([index])[0]

  def tasks(self, indices: Sequence[int]) -> tuple[Task, ...]:
    """The tasks of these numbers. Raises ValueError as `task` does."""
    part, own = self.at(compose.checked(indices))
    found: list[Task | None] = [None] * len(part)
    for number, source in enumerate(self._parts):
      places = np.flatnonzero(part == number)
      for place, task in zip(places, source.tasks(own[places].tolist()), strict=True):
        found[place] = task
    return tuple(found)

  def at(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which source each task [n] is of, and its number there, int64 [n] each."""
    size = len(self._part)
    blocks, which = np.unique(index // size, return_inverse=True)
    order = permuted(np.tile(np.arange(size), len(blocks)), size, hashes(self._seed, 7, blocks),
                     np.repeat(np.arange(len(blocks)), size))
    parts = self._part[order].reshape(len(blocks), size)
    is_part = parts[:, :, None] == np.arange(len(self._parts))
    before = np.cumsum(is_part, axis=1) - is_part
    within = index % size
    part = parts[which, within]
    return part, blocks[which] * np.array(self.counts)[part] + before[which, within, part]


def counts(weights: Sequence[float]) -> tuple[int, ...]:
  """Tasks of each in a block: the weights' exact ratio, or the nearest in hundredths.

  Raises:
    ValueError: a weight is not positive and finite, or rounds to none in a hundred.
  """
  for weight in weights:
    if not 0 < weight < math.inf:
      raise ValueError(f'weights {tuple(weights)} must be positive and finite; leave {weight} out')
  exact = [fractions.Fraction(weight).limit_denominator(10**6) for weight in weights]
  total = sum(exact)
  shares = [weight / total for weight in exact] if total else []
  block = math.lcm(*(share.denominator for share in shares)) if all(exact) else _MAX_BLOCK + 1
  if block <= _MAX_BLOCK:
    return tuple(int(share * block) for share in shares)
  return _rounded([weight / math.fsum(weights) for weight in weights])


def _rounded(shares: Sequence[float]) -> tuple[int, ...]:
  """Hundredths that add up to a hundred, by the largest remainders."""
  found = [int(share * _MAX_BLOCK) for share in shares]
  by_rest = sorted(range(len(shares)), key=lambda i: (found[i] - shares[i] * _MAX_BLOCK, i))
  for i in by_rest[:_MAX_BLOCK - sum(found)]:
    found[i] += 1
  if 0 in found:
    raise ValueError(f'weight {min(shares):.2g} of 1 rounds to no task in {_MAX_BLOCK}; raise it to'
                     f' {1 / _MAX_BLOCK} or leave it out')
  divisor = math.gcd(*found)
  return tuple(count // divisor for count in found)
