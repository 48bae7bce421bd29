"""The entry: it dispatches, refuses what it does not know, and evicts for good."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops import attention as attention_lib
from mem1_jax.ops.attention import attention, make_plan


def _inputs(length):
  return [jax.random.normal(jax.random.key(i), (1, length, heads, 4))
          for i, heads in enumerate((4, 2, 2))]


@pytest.mark.parametrize('length', [8, 300])
def test_implementations_agree_with_and_without_a_plan(length):
  inputs, key_end = _inputs(length), jnp.full((1, length), length)
  expected = attention(*inputs, key_end, implementation='reference')
  for implementation in attention_lib.IMPLEMENTATIONS:
    plan = make_plan(key_end, implementation)
    for shared in (plan, None):
      out = attention(*inputs, key_end, implementation=implementation, plan=shared)
      np.testing.assert_allclose(out, expected, atol=1e-5)


def test_unknown_implementation_is_refused():
  inputs, key_end = _inputs(4), jnp.full((1, 4), 4)
  with pytest.raises(ValueError, match="'flash'.*one of"):
    attention(*inputs, key_end, implementation='flash')
  with pytest.raises(ValueError, match="'flash'"):
    make_plan(key_end, 'flash')


def test_shapes_that_do_not_fit_are_refused():
  q, k, v = _inputs(4)
  with pytest.raises(ValueError, match='multiple'):
    attention(q[:, :, :3], k, v, jnp.full((1, 4), 4), implementation='reference')
  with pytest.raises(ValueError, match='must agree'):
    attention(q, k, v, jnp.full((1, 5), 4), implementation='reference')


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
def test_an_evicted_key_changes_nothing_later_by_a_bit(implementation):
  length, evicted = 200, slice(40, 90)
  q, k, v = _inputs(length)
  key_end = jnp.full((1, length), length).at[:, evicted].set(90)
  op = jax.jit(lambda k, v: attention(q, k, v, key_end, implementation=implementation))
  out = op(k, v)
  edited = op(k.at[:, evicted].add(3.0), v.at[:, evicted].multiply(-50.0))
  np.testing.assert_array_equal(out[:, 90:], edited[:, 90:])
  assert np.abs(out[:, evicted] - edited[:, evicted]).max() > 0.1
  grads = jax.grad(lambda k, v: op(k, v)[:, 90:].sum(), (0, 1))(k, v)
  assert not any(np.asarray(g[:, evicted]).any() for g in grads)
