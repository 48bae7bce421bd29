"""The reference against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.ops.attention_reference import attention_reference


def _row(*values):
  return jnp.asarray(values, jnp.float32).reshape(1, -1, 1, 1)


def test_hand_computed():
  # H = 1: scores q k. Query 1 has weights e^0 : e^ln3 = 1 : 3; query 2 sees keys 0 and 2 only.
  q, k = _row(1, 1, 1), _row(0, np.log(3), np.log(4))
  v, key_end = _row(10, 20, 40), jnp.asarray([[3, 2, 3]])
  out = attention_reference(q, k, v, key_end)
  np.testing.assert_allclose(out.ravel(), [10, (10 + 3 * 20) / 4, (10 + 4 * 40) / 5], rtol=1e-6)


def test_scale_is_one_over_root_of_head_width():
  q = jnp.full((1, 2, 1, 4), 1.0)
  k = jnp.stack([jnp.zeros(4), jnp.full(4, np.log(3) / 2)])[None, :, None]  # q·k/2 = 0, ln 3
  v = jnp.asarray([0.0, 4.0]).reshape(1, 2, 1, 1).repeat(4, -1)
  out = attention_reference(q, k, v, jnp.asarray([[2, 2]]))
  np.testing.assert_allclose(out[0, 1, 0], 3.0, rtol=1e-6)


def test_query_heads_read_their_own_kv_head():
  q, k = jnp.ones((1, 1, 4, 2)), jnp.ones((1, 1, 2, 2))
  v = jnp.asarray([1.0, 2.0]).reshape(1, 1, 2, 1).repeat(2, -1)
  out = attention_reference(q, k, v, jnp.asarray([[1]]))
  np.testing.assert_allclose(out[0, 0, :, 0], [1, 1, 2, 2])


def test_a_query_that_sees_nothing_gives_zero_and_no_gradient():
  x = jax.random.normal(jax.random.key(0), (1, 3, 1, 2))
  key_end = jnp.asarray([[1, 0, 0]])
  out = attention_reference(x, x, x, key_end)
  np.testing.assert_array_equal(out[0, 1:], 0)
  grads = jax.grad(lambda *a: attention_reference(*a, key_end).sum(), (0, 1, 2))(x, x, x)
  assert all(np.isfinite(g).all() and not np.asarray(g[0, 1:]).any() for g in grads)
