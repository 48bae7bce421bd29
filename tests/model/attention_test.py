"""The attention module: both ways through it give the same, with any of Qwen's variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax import linen as nn

from mem1_jax.model import cache as cache_lib
from mem1_jax.model import layers
from mem1_jax.model.attention import Attention, Cached, Packed, RowAttention
from mem1_jax.ops.attention import attention
from mem1_jax.parallel.mesh import MeshConfig, make_mesh, one_device
from tests.model import small
from tests.ops import layouts


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
def test_packed_equals_cached(variant):
  config = small.small_config(**variant)
  B, S = 2, 6
  x = jax.random.normal(jax.random.key(0), (B, S, config.dim))
  cos, sin = layers.rotary_angles(jnp.tile(jnp.arange(S)[None], (B, 1)), config)
  module = Attention(config, RowAttention('reference', one_device()))
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


def _value_and_grads(function, inputs):
  out, vjp = jax.vjp(function, *inputs)
  return out, *vjp(jnp.cos(out))


@pytest.mark.parametrize('implementation,num_kv_heads', [
    ('tpu_interpret', 2), ('gpu_interpret', 2), ('chunked', 2),
    ('gpu_interpret', 1)])  # one cannot be split: each device has all heads
def test_each_device_computes_its_rows_and_heads(implementation, num_kv_heads):
  B, S, N, H = 8, 160, 2 * num_kv_heads, 16
  mesh = make_mesh(MeshConfig(2, 2, 2))
  row_attention = RowAttention(implementation, mesh)
  key_end = jnp.asarray(layouts.episodes(B, S, max_tokens=40)[0])
  inputs = [jax.random.normal(jax.random.key(i), (B, S, heads, H))
            for i, heads in enumerate((N, num_kv_heads, num_kv_heads))]

  @jax.jit
  def on_mesh(key_end, *inputs):
    plan = row_attention.plan(key_end, 'float32')
    return _value_and_grads(lambda q, k, v: row_attention(q, k, v, key_end, plan), inputs)

  results = on_mesh(key_end, *inputs)
  expected = _value_and_grads(
      lambda q, k, v: attention(q, k, v, key_end, implementation='reference'), inputs)
  for result, reference in zip(results, expected, strict=True):
    np.testing.assert_allclose(result, reference, atol=2e-5)


@pytest.mark.parametrize('implementation,unwanted', [
    ('gpu_interpret', 'all-gather'),  # of rows and heads
    ('chunked', 'all-reduce')])  # in each turn of the loop: has any device more to visit?
def test_devices_do_not_wait_for_each_other(implementation, unwanted):
  """Of an array that is split already, as the layers leave them."""
  B, S, N, H = 8, 384, 4, 16
  mesh = make_mesh(MeshConfig(2, 2, 2))
  row_attention = RowAttention(implementation, mesh)
  axes = jax.sharding.PartitionSpec(('data', 'fsdp'), None, 'tensor', None)
  heads = jax.ShapeDtypeStruct((B, S, N, H), 'float32',
                               sharding=jax.sharding.NamedSharding(mesh, axes))
  rows = jax.ShapeDtypeStruct((B, S), 'int32', sharding=jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(axes[0])))

  def lowered(attend):
    return jax.jit(attend).lower(heads, heads, heads, rows).compile().as_text()

  of_mesh = lowered(lambda q, k, v, e: row_attention(q, k, v, e, row_attention.plan(e, 'float32')))
  assert not any(name in of_mesh for name in ('all-gather', 'all-reduce', 'collective-permute'))
  assert unwanted in lowered(  # what would become of it without a shard_map
      lambda q, k, v, e: attention(q, k, v, e, implementation=implementation))


def test_a_kernel_of_another_platform_is_refused_when_the_model_is_built():
  with pytest.raises(NotImplementedError, match="'tpu' cannot run on cpu"):
    RowAttention('tpu', one_device())
  with pytest.raises(ValueError, match="'flash'.*one of"):
    RowAttention('flash', one_device())
