"""Parameters cast once give the bits of those that every use casts; nothing to cast, no copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.arrays import overlay
from mem1_jax.model import build_policy, lora, precision
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from tests.model import small


def _params(config, mesh=None):
  """Parameters with adapters, each leaf away from zeros and ones, and what bfloat16 rounds."""
  policy = build_policy(config, 'chunked', mesh)
  params = policy.init(jax.random.key(0))
  params = overlay(params, lora.init(jax.random.key(1), params, 2, tuple(lora.TARGETS)))
  params = jax.tree.map(
      lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), params)
  return policy, params


def _narrowed(dtype):
  return lambda params: precision.narrowed(params, dtype)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
def test_every_use_of_a_parameter_casts_it_first(variant, dtype):
  config = small.small_config(**variant, dtype=dtype, o_bias=True, lora_alpha=4.0)
  policy, params = _params(config)
  narrow = precision.narrowed(params, dtype)
  assert {x.dtype.name for x in jax.tree.leaves(narrow)} == {dtype}
  assert jax.tree.all(jax.tree.map(lambda x, y: bool((x != y).any()), params, narrow))
  inputs = small.rows(config)

  @jax.jit
  def compute(params):
    cache = policy.init_cache(inputs[0].shape[0], inputs[0].shape[1])
    count = jnp.full(inputs[0].shape[:1], inputs[0].shape[1], jnp.int32)
    return (policy.apply(params, *inputs), policy.extend(params, *inputs[:2], count, cache),
            policy.head(params).astype(dtype))

  jax.tree.map(np.testing.assert_array_equal, compute(narrow), compute(params))


def test_a_program_casts_where_parameters_lie():
  mesh = make_mesh(MeshConfig(1, 2, 2))
  policy, params = _params(small.small_config(vocab_size=64, lora_alpha=4.0), mesh)
  axes = lora.logical_axes(policy.logical_axes())
  shardings = sharding.tree(mesh, axes, params)
  params = jax.device_put(params, shardings)
  params['embed'] = {'embedding': params['embed']['embedding'].astype('bfloat16')}
  got = precision.make_copy(_narrowed('bfloat16'), params, shardings, shardings)(params)
  jax.tree.map(np.testing.assert_array_equal, got, precision.narrowed(params, 'bfloat16'))
  assert jax.tree.all(jax.tree.map(lambda x, where: x.sharding == where, got, shardings))
  assert got['embed']['embedding'] is params['embed']['embedding']  # it was narrow


def test_a_program_gathers_what_is_split_over_an_axis():
  mesh = make_mesh(MeshConfig(1, 2, 2))
  policy, params = _params(small.small_config(vocab_size=64, lora_alpha=4.0), mesh)
  shardings = sharding.tree(mesh, lora.logical_axes(policy.logical_axes()), params)
  params, target = jax.device_put(params, shardings), sharding.gathered(shardings, 'fsdp')
  got = precision.make_copy(_narrowed('float32'), params, shardings, target)(params)
  jax.tree.map(np.testing.assert_array_equal, got, params)
  assert got['final_norm']['scale'] is params['final_norm']['scale']  # it was whole
  assert got['embed']['embedding'].addressable_shards[0].data.shape == (32, 24)
  assert params['embed']['embedding'].addressable_shards[0].data.shape == (32, 12)


@pytest.mark.parametrize('stored, computed', [
    ('float32', 'float32'), ('bfloat16', 'float32'), ('bfloat16', 'bfloat16'),
    ('bfloat16', 'float16')])
def test_nothing_is_copied_where_nothing_is_wider(stored, computed):
  params = {'a': jnp.ones(3, stored), 'ids': jnp.zeros(2, jnp.int32)}
  where = jax.tree.map(lambda x: x.sharding, params)
  got = precision.make_copy(_narrowed(computed), params, where, where)(params)
  assert got is params
  assert all(x is y for x, y in zip(*map(jax.tree.leaves, (
      precision.narrowed(params, computed), params))))
