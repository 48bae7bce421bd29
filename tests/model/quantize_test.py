"""Matrices in int8: as near as eight bits allow, everywhere that a model reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mem1_jax.arrays import overlay
from mem1_jax.model import build_policy, lora, precision, quantize
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from tests.model import small


def _dequantized(node):
  """float32 matrices that are exactly what the int8 ones stand for."""
  found = {}
  for name, leaf in node.items():
    if isinstance(leaf, dict):
      found[name] = _dequantized(leaf)
    elif f'{name}_scale' in node:
      scale = node[f'{name}_scale']
      inputs = {'head': (0,), 'embedding': (1,)}.get(name, range(1, 1 + leaf.ndim - scale.ndim))
      found[name] = leaf.astype(jnp.float32) * jnp.expand_dims(scale, tuple(inputs))
    elif name.removesuffix('_scale') == name or name.removesuffix('_scale') not in node:
      found[name] = leaf
  return found


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['untied', 'tied'])
def test_a_model_computes_what_the_rounded_matrices_say(variant):
  config = small.small_config(**variant, lora_alpha=4.0)
  policy = build_policy(config, 'chunked')
  params = policy.init(jax.random.key(0))
  params = overlay(params, lora.init(jax.random.key(1), params, 2, tuple(lora.TARGETS)))
  rounded = jax.jit(quantize.quantized)(params)
  inputs = small.rows(config)

  @jax.jit
  def compute(params):
    cache = policy.init_cache(*inputs[0].shape)
    count = jnp.full(inputs[0].shape[:1], inputs[0].shape[1], jnp.int32)
    hidden, _ = policy.extend(params, *inputs[:2], count, cache)
    return policy.apply(params, *inputs), hidden, policy.head(params)

  for got, want in zip(compute(rounded), compute(_dequantized(rounded))):
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_each_output_is_rounded_to_its_own_scale():
  config = small.small_config(**small.QWEN2)
  params = build_policy(config).init(jax.random.key(0))
  up = params['layers']['mlp']['up']
  up['kernel'] = up['kernel'].at[:, :, 3].set(0)  # nothing to scale by
  rounded = quantize.quantized(params)
  back = _dequantized(rounded)
  is_int8 = jax.tree.map(lambda x: x.dtype == jnp.int8, rounded)
  assert sum(jax.tree.leaves(is_int8)) == 7 + 2  # projections, embedding, head
  for path in (('layers', 'attention', 'o', 'kernel'), ('layers', 'mlp', 'up', 'kernel'),
               ('embed', 'embedding'), ('head',)):
    was, now = params, back
    for name in path:
      was, now = was[name], now[name]
    axes = {'o': (1, 2), 'up': (1,), 'embedding': (1,), 'head': (0,)}[
        path[-2] if path[-1] == 'kernel' else path[-1]]
    half_step = np.abs(was).max(axes, keepdims=True) / 127 / 2
    assert (np.abs(was - now) <= half_step * 1.001 + 1e-9).all(), path
  # What is no matrix stays the very array.
  assert rounded['final_norm']['scale'] is params['final_norm']['scale']
  assert rounded['layers']['attention']['q']['bias'] is params['layers']['attention']['q']['bias']


def test_scales_lie_as_the_outputs_of_their_matrices():
  mesh = make_mesh(MeshConfig(1, 2, 2))
  policy = build_policy(small.small_config(vocab_size=64, **small.QWEN2), mesh=mesh)
  axes = policy.logical_axes()
  shardings = policy.shardings()
  params = policy.init(jax.random.key(0))

  def convert(params):
    return precision.narrowed(quantize.quantized(params), 'float32')

  target = sharding.tree(mesh, quantize.logical_axes(axes), jax.eval_shape(convert, params))
  got = precision.make_copy(convert, params, shardings, target)(params)
  assert got['layers']['mlp']['up']['kernel_scale'].sharding.spec == PartitionSpec(None, 'tensor')
  assert got['layers']['attention']['q']['kernel_scale'].sharding.spec == PartitionSpec(None, 'tensor', None)
  assert got['embed']['embedding_scale'].sharding.spec == PartitionSpec('tensor')
  assert got['head_scale'].sharding.spec == PartitionSpec('tensor')
  assert got['final_norm']['scale'] is params['final_norm']['scale']
  jax.tree.map(np.testing.assert_array_equal, got, convert(params))
