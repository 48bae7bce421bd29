"""Copies of what is live; the rest of these functions is tested through the engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.arrays import KVCache
from mem1_jax.rollout import decode

L, K, H = 2, 1, 3


def cache(num_rows, capacity, length, seed):
  k, v = (jax.random.normal(jax.random.key(seed + i), (L, num_rows, capacity, K, H))
          for i in range(2))
  return KVCache(k, v, jnp.asarray(length, jnp.int32))


@pytest.mark.parametrize('num_groups', [1, 2])
@pytest.mark.parametrize('capacities', [(70, 200), (200, 70), (64, 64), (8, 130)])
def test_live_tokens_are_copied_to_their_rows_and_nothing_else(num_groups, capacities):
  size = min(capacities)
  source = cache(4, capacities[0], [size, 3], 0)
  target = cache(6, capacities[1], [1, 2, 3, 4, 5, 6], 2)
  source_row, target_row = [1, 0], [2, 1]  # with two groups: one of each
  copied = jax.jit(decode.copy, static_argnums=4)(
      source, jnp.asarray(source_row), target, jnp.asarray(target_row), num_groups)
  places = list(zip(source_row, target_row))
  if num_groups == 2:
    places = [(source_row[0], target_row[0]), (2 + source_row[1], 3 + target_row[1])]
  length = np.array(target.length)
  for (here, there), count in zip(places, (size, 3)):
    length[there] = count
    for x, y in ((source.k, copied.k), (source.v, copied.v)):
      np.testing.assert_array_equal(y[:, there, :count], x[:, here, :count])
  np.testing.assert_array_equal(copied.length, length)
  untouched = [row for row in range(6) if row not in dict(places).values()]
  np.testing.assert_array_equal(copied.k[:, untouched], target.k[:, untouched])


def test_what_goes_nowhere_is_dropped():
  source, target = cache(2, 8, [5, 4], 0), cache(3, 8, [1, 2, 3], 2)
  copied = decode.copy(source, None, target, jnp.asarray([decode.DROPPED, 0]), 1)
  np.testing.assert_array_equal(copied.k[:, 0, :4], source.k[:, 1, :4])
  np.testing.assert_array_equal(copied.k[:, 1:], target.k[:, 1:])
  assert copied.length.tolist() == [4, 2, 3]
