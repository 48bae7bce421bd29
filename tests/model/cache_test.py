"""Writing into rows of different lengths, and attending to what is there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.arrays import KVCache
from mem1_jax.model import cache as cache_lib
from mem1_jax.ops.attention_reference import attention_reference
from tests.model.small import small_config

L, B, M, K, H, T = 2, 4, 10, 2, 8, 3


def _cache(length, capacity=M):
  shape = (L, B, capacity, K * H)
  return KVCache(
      jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape),
      jnp.asarray(length, jnp.int32))


def _tokens(num=T):
  return [jax.random.normal(jax.random.key(i), (L, B, num, K, H)) for i in (2, 3)]


@pytest.mark.parametrize('num', [1, T, M])
def test_write_puts_rows_at_their_own_length_and_drops_what_passes_the_end(num):
  cache, (k, v) = _cache([0, 4, M - 1, M]), _tokens(num)
  written = jax.jit(cache_lib.write)(cache, k, v, jnp.asarray([num, 1, 1, 0]))
  for before, after, new in ((cache.k, written.k, k), (cache.v, written.v, v)):
    expected = np.array(before)
    for row, start in enumerate([0, 4, M - 1, M]):
      kept = min(num, M - start)
      expected[:, row, start:start + kept] = new[:, row, :kept].reshape(L, kept, K * H)
    np.testing.assert_array_equal(after, expected)
  assert written.length.tolist() == [num, 5, M, M]


def test_more_tokens_than_capacity_are_refused():
  with pytest.raises(ValueError, match='11 tokens do not fit a cache of 10'):
    cache_lib.write(_cache([0] * B), *_tokens(M + 1), jnp.zeros(B, jnp.int32))


@pytest.mark.parametrize('lengths, capacity', [
    ([0, 0, 0, 0], 130), ([0, 1, 64, 127], 130), ([63, 65, 100, 3], 150), ([2, 3, 7, 0], M)])
def test_attend_equals_the_reference_on_what_is_live(lengths, capacity):
  cache, (k, v) = _cache(lengths, capacity), _tokens()
  q = jax.random.normal(jax.random.key(4), (B, T, 2 * K, H))
  layer = 1
  out = jax.jit(cache_lib.attend)(q, k[layer], v[layer], cache, jnp.int32(layer))
  for row, length in enumerate(lengths):
    whole = [jnp.concatenate([old[layer, row, :length].reshape(-1, K, H), new[layer, row]])[None]
             for old, new in ((cache.k, k), (cache.v, v))]
    padded = jnp.pad(q[row], ((length, 0), (0, 0), (0, 0)))[None]
    key_end = jnp.full((1, length + T), length + T)
    expected = attention_reference(padded, *whole, key_end)[0, length:]
    np.testing.assert_allclose(out[row], expected, atol=1e-5)


def test_single_tokens_read_the_blocks_of_rows_that_reach_so_far():
  """Eight rows of very different lengths, whose blocks are read for 8, 4, 2 and 1 of them."""
  lengths, capacity = [500, 3, 250, 64, 0, 130, 65, 400], 512
  shape, size = (1, 8, capacity, K * H), len(lengths)
  cache = KVCache(*(jax.random.normal(jax.random.key(i), shape) for i in (0, 1)),
                  jnp.asarray(lengths, jnp.int32))
  q, k, v = (jax.random.normal(jax.random.key(i), (size, 1, n, H))
             for i, n in ((2, 2 * K), (3, K), (4, K)))
  out = jax.jit(cache_lib.attend)(q, k, v, cache, jnp.int32(0))
  for row, length in enumerate(lengths):
    whole = [jnp.concatenate([old[0, row, :length].reshape(-1, K, H), new[row]])[None]
             for old, new in ((cache.k, k), (cache.v, v))]
    padded = jnp.pad(q[row], ((length, 0), (0, 0), (0, 0)))[None]
    key_end = jnp.full((1, length + 1), length + 1)
    expected = attention_reference(padded, *whole, key_end)[0, length:]
    np.testing.assert_allclose(out[row], expected, atol=1e-5)
  # A row's numbers are its own, whatever the others' lengths.
  alone = dataclasses.replace(cache, length=jnp.zeros(size, jnp.int32).at[2].set(250))
  np.testing.assert_array_equal(jax.jit(cache_lib.attend)(q, k, v, alone, jnp.int32(0))[2], out[2])


def test_stale_entries_are_never_seen():
  cache, (k, v) = _cache([3, 0, 5, 2]), _tokens()
  q = jax.random.normal(jax.random.key(4), (B, T, 2 * K, H))
  is_live = (jnp.arange(M)[None] < cache.length[:, None])[None, :, :, None]
  edited = KVCache(jnp.where(is_live, cache.k, 99.0), jnp.where(is_live, cache.v, -99.0),
                   cache.length)
  attend = jax.jit(cache_lib.attend)
  outs = [attend(q, k[0], v[0], c, jnp.int32(0)) for c in (cache, edited)]
  np.testing.assert_array_equal(*outs)


def test_init_cache():
  config = small_config(dtype='bfloat16')
  cache = cache_lib.init_cache(config, 3, 7)
  assert cache.k.shape == cache.v.shape == (2, 3, 7, 2 * 8)
  assert cache.k.dtype == jnp.bfloat16 and cache.length.tolist() == [0, 0, 0]


@pytest.mark.parametrize('capacities', [(70, 200), (200, 70), (64, 64), (8, 130)])
def test_live_tokens_are_copied_to_their_rows_and_nothing_else(capacities):
  size = min(capacities)
  source, target = (_cache(length, capacity) for length, capacity in zip(
      ([size, 3, 1, 2], [1, 2, 3, 4]), capacities))
  source_row, target_row = jnp.asarray([1, 0, 3]), jnp.asarray([2, 1, B])  # there is no row B
  taken = dataclasses.replace(source, length=jnp.asarray([3, size, 2]))
  copied = jax.jit(cache_lib.copy)(taken, source_row, target, target_row)
  for here, there, count in ((1, 2, 3), (0, 1, size)):
    for x, y in ((source.k, copied.k), (source.v, copied.v)):
      np.testing.assert_array_equal(y[:, there, :count], x[:, here, :count])
  assert copied.length.tolist() == [1, size, 3, 4]
  np.testing.assert_array_equal(copied.k[:, 0::3], target.k[:, 0::3])
  in_order = cache_lib.copy(source, None, target, jnp.asarray([3, B, B, B]))
  np.testing.assert_array_equal(in_order.v[:, 3, :size], source.v[:, 0, :size])
  assert in_order.length.tolist() == [1, 2, 3, size]
