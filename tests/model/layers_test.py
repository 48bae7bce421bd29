"""Norm, SwiGLU, projection and rotation against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.model import layers
from tests.model.small import small_config


def test_rms_norm():
  config = small_config(rms_eps=1.0)
  x = jnp.asarray([[[1.0, 7.0]]])  # mean square 25, plus 1
  y = layers.RMSNorm(config).apply({'params': {'scale': jnp.asarray([1.0, 2.0])}}, x)
  np.testing.assert_allclose(y[0, 0], np.array([1, 14]) / np.sqrt(26), rtol=1e-6)


def test_rotation_turns_the_pair_i_and_i_plus_half():
  config = small_config(head_dim=4, rope_theta=100.0)  # frequencies 1 and 1/10
  cos, sin = layers.rotary_angles(jnp.asarray([[3]]), config)
  x = jnp.asarray([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
  expected = [np.cos(3), -np.sin(0.3), np.sin(3), np.cos(0.3)]
  np.testing.assert_allclose(layers.rotate(x, cos, sin).ravel(), expected, rtol=1e-5)


def test_rotated_products_depend_on_the_distance_only():
  config = small_config(head_dim=8)
  q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in range(2))

  def product(query_at, key_at):
    turned = [layers.rotate(x, *layers.rotary_angles(jnp.asarray([[at]]), config))
              for x, at in ((q, query_at), (k, key_at))]
    return float((turned[0] * turned[1]).sum())

  np.testing.assert_allclose(product(9, 4), product(105, 100), rtol=1e-4)
  assert abs(product(9, 4) - product(9, 5)) > 1e-3


def test_positions_stay_apart_in_bfloat16():
  config = small_config(dtype='bfloat16')
  cos, _ = layers.rotary_angles(jnp.asarray([[4096, 4097]]), config)
  assert cos.dtype == jnp.float32 and float(abs(cos[0, 0, 0, 0] - cos[0, 1, 0, 0])) > 1e-2


def test_swiglu():
  config = small_config(dim=1, ffn_dim=1)
  params = {name: {'kernel': jnp.full((1, 1), value)}
            for name, value in (('gate', 2.0), ('up', 3.0), ('down', 5.0))}
  y = layers.SwiGLU(config).apply({'params': params}, jnp.ones((1, 1, 1)))
  np.testing.assert_allclose(y.item(), 5 * 3 * 2 / (1 + np.exp(-2)), rtol=1e-6)


def test_linear_contracts_and_makes_several_axes():
  config = small_config()
  linear = layers.Linear(config, (2, 3), (4, 5), ('heads', 'head', 'a', 'b'), use_bias=True)
  x = jax.random.normal(jax.random.key(0), (7, 8, 2, 3))
  kernel = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
  bias = jax.random.normal(jax.random.key(2), (4, 5))
  y = linear.apply({'params': {'kernel': kernel, 'bias': bias}}, x)
  expected = jnp.einsum('bsnh,nhxy->bsxy', x, kernel) + bias[None, None]
  np.testing.assert_allclose(y, expected, atol=1e-5)
