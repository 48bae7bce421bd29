"""The attention module: both ways through it give the same, with any of Qwen's variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax import linen as nn

from mem1_jax.model import cache as cache_lib
from mem1_jax.model import layers
from mem1_jax.model.attention import Attention, Cached, Packed
from tests.model import small


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
def test_packed_equals_cached(variant):
  config = small.small_config(**variant)
  B, S = 2, 6
  x = jax.random.normal(jax.random.key(0), (B, S, config.dim))
  cos, sin = layers.rotary_angles(jnp.tile(jnp.arange(S)[None], (B, 1)), config)
  module = Attention(config, 'reference')
  packed = Packed(cos, sin, jnp.full((B, S), S), None)
  params = nn.unbox(module.init(jax.random.key(1), x, jnp.int32(0), packed))
  assert ('bias' in params['params']['q']) == config.qkv_bias
  assert ('q_norm' in params['params']) == config.qk_norm
  expected, nothing = module.apply(params, x, jnp.int32(0), packed)
  assert nothing is None
  cached = Cached(cos, sin, cache_lib.init_cache(config, B, 4))
  out, (k, v) = module.apply(params, x, jnp.int32(0), cached)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  assert k.shape == v.shape == (B, S, config.num_kv_heads, config.head_dim)
