"""The chunked op equals the reference on any layout, and visits only what is visible."""

import functools

from hypothesis import given, settings, strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops import masks
from mem1_jax.ops.attention_chunked import attention_chunked, build_plan
from mem1_jax.ops.attention_reference import attention_reference
from tests.ops import layouts

B, S, N, K, H, BLOCK = 2, 37, 4, 2, 4, 8  # S is no multiple of the block


def _inputs(dtype='float32', length=S):
  shapes = (B, length, N, H), (B, length, K, H), (B, length, K, H), (B, length, N, H)
  return [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grads(op, q, k, v, dout, key_end):
  out, vjp = jax.vjp(lambda q, k, v: op(q, k, v, key_end), q, k, v)
  return out, *vjp(dout)


_chunked = functools.partial(attention_chunked, block=BLOCK)


def _gap(key_end, dtype='float32'):
  inputs = _inputs(dtype)
  pairs = zip(_value_and_grads(_chunked, *inputs, key_end),
              _value_and_grads(attention_reference, *inputs, key_end))
  return max(float(jnp.abs(a - b).max()) for a, b in pairs)


# Any vector is a legal key_end: keys nobody sees, queries that see nothing, padding inside.
_any_key_end = st.lists(st.lists(st.integers(0, S), min_size=S, max_size=S), min_size=B, max_size=B)


@settings(deadline=None, max_examples=50)
@given(_any_key_end)
def test_equals_reference_on_any_vector(key_end):
  assert _gap(jnp.asarray(key_end, jnp.int32)) < 1e-5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31 - 1))
def test_equals_reference_on_packed_episodes(seed):
  assert _gap(jnp.asarray(layouts.episodes(B, S, seed)[0])) < 1e-5


def test_float64_is_accumulated_in_float64():
  with jax.enable_x64(True):
    assert _gap(jnp.asarray(layouts.episodes(B, S)[0]), 'float64') < 1e-13


def test_bfloat16_keeps_its_dtype_and_a_float32_softmax():
  inputs, key_end = _inputs('bfloat16'), jnp.asarray(layouts.episodes(B, S)[0])
  results = _value_and_grads(_chunked, *inputs, key_end)
  expected = _value_and_grads(
      attention_reference, *(x.astype('float32') for x in inputs), key_end)
  for a, b in zip(results, expected):
    assert a.dtype == jnp.bfloat16
    assert float(jnp.abs(a.astype('float32') - b).max()) < 0.05 * float(jnp.abs(b).max())


def test_plan_lists_exactly_the_blocks_with_something_to_see_in_episodes():
  key_end = layouts.episodes(3, 64, seed=1)[0]
  plan = build_plan(jnp.asarray(key_end), BLOCK)
  mask = np.asarray(masks.visible_BSS(jnp.asarray(key_end)))
  needed = mask.reshape(3, 8, BLOCK, 8, BLOCK).any((2, 4))
  for row in range(3):
    count = int(plan.count[row])
    listed = list(zip(np.asarray(plan.query_block[row, :count]).tolist(),
                      np.asarray(plan.key_block[row, :count]).tolist()))
    assert listed == sorted(listed)
    assert set(map(tuple, np.argwhere(needed[row]))) <= set(listed)
    # The list may keep a pair that its per-block bound cannot rule out, but not many.
    assert count <= needed[row].sum() + 2 < 36


def test_padding_rows_are_not_visited():
  key_end = jnp.zeros((B, S), jnp.int32).at[0, :3].set(3)
  assert build_plan(key_end, BLOCK).count.tolist() == [1, 0]
  q, k, v, _ = _inputs()
  np.testing.assert_array_equal(_chunked(q, k, v, key_end)[1], 0)


def test_a_row_does_not_depend_on_its_neighbour():
  q, k, v, _ = _inputs()
  key_end = jnp.asarray(layouts.episodes(B, S)[0])
  out = _chunked(q, k, v, key_end)
  busier = key_end.at[1].set(S)  # a longer list: row 0 idles through the rest of the loop
  np.testing.assert_array_equal(out[0], _chunked(q, k, v, busier)[0])


def test_no_quadratic_array_forward_or_backward():
  length = 4096
  inputs = [jax.ShapeDtypeStruct((1, length) + shape, jnp.float32)
            for shape in ((N, H), (K, H), (K, H), (N, H))]
  key_end = jax.ShapeDtypeStruct((1, length), jnp.int32)

  def largest(op):
    text = str(jax.make_jaxpr(functools.partial(_value_and_grads, op))(*inputs, key_end))
    return f'{length},{length}' in text

  assert largest(attention_reference)  # the check can fail
  assert not largest(attention_chunked)


@pytest.mark.parametrize('length', [1, BLOCK, BLOCK + 1])
def test_short_rows(length):
  inputs = _inputs(length=length)
  key_end = jnp.full((B, length), length)
  out = attention_chunked(*inputs[:3], key_end, block=BLOCK)
  np.testing.assert_allclose(out, attention_reference(*inputs[:3], key_end), atol=1e-6)
