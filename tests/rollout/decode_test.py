"""What is laid on the desk, and put into slots; the rest is tested through the engine."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import KVCache
from mem1_jax.rollout import decode
from tests.rollout import fakes

L, E = 2, 3


def cache(num_rows, capacity, length, seed):
  k, v = (jax.random.normal(jax.random.key(seed + i), (L, num_rows, capacity, E))
          for i in range(2))
  return KVCache(k, v, jnp.asarray(length, jnp.int32))


def test_the_kept_tokens_of_chosen_rows_are_laid_on_the_desk():
  source, desk = cache(4, 8, [5, 4, 8, 1], 0), cache(3, 10, [7, 7, 7], 2)
  laid = decode.lay(source, jnp.asarray([2, 0, 1]), jnp.asarray([True, False, True]),
                    jnp.asarray([6, 3, 9]), desk)
  assert laid.length.tolist() == [6, 7, 4]  # no more than there is
  np.testing.assert_array_equal(laid.k[:, 0, :6], source.k[:, 2, :6])
  np.testing.assert_array_equal(laid.v[:, 2, :4], source.v[:, 1, :4])
  np.testing.assert_array_equal(laid.k[:, 1], desk.k[:, 1])


def test_slots_are_replaced_by_rows_and_what_goes_nowhere_is_dropped():
  _, slots = fakes.engine().init()
  num = slots.is_active.shape[0]
  new = dataclasses.replace(
      slots, is_active=jnp.ones(num, bool), position=jnp.arange(num, dtype=jnp.int32) + 5)
  index = jnp.full(num, decode.DROPPED, jnp.int32).at[1].set(0)
  put = decode.put(slots, index, new)
  assert put.is_active.tolist() == [True] + [False] * (num - 1)
  assert put.position.tolist() == [6] + [0] * (num - 1)
