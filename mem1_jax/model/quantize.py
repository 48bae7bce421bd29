"""Matrices in int8, for rollouts: decoding waits for weights, and these are half of bfloat16's.

    W ≈ kernel * scale        kernel int8, scale one number for each output (token, of embeddings)

Each output's scale is its largest |weight| / 127 (symmetric, absmax). Matrices keep their names and
shapes; the scales stand beside them, layers stacked:

    layers/…/kernel [L, in, out] int8        layers/…/kernel_scale [L, out]
    embed/embedding [V, D] int8              embed/embedding_scale [V]
    head            [D, V] int8              head_scale [V]

Norms, biases and adapters stay as they are. The model computes in its own dtype: products get the
rounded weights as they are, and the scale where the matrix has been multiplied.
"""

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mem1_jax.arrays import Array, Params, overlay
from mem1_jax.model import lora

_LARGEST = 127


def quantized(params: Params) -> Params:
  """`params` of a policy, adapters perhaps beside them, with its matrices in int8."""
  new: Params = {'layers': {}}
  for name, part in lora.TARGETS.items():
    kernel = params['layers'][part][name]['kernel']
    inputs = tuple(range(1, 1 + lora.num_inputs(name)))
    new['layers'].setdefault(part, {})[name] = _pair('kernel', kernel, inputs)
  new['embed'] = _pair('embedding', params['embed']['embedding'], (1,))
  if 'head' in params:
    new |= _pair('head', params['head'], (0,))
  return overlay(params, new)


def logical_axes(axes: Params) -> Params:
  """The tree `Policy.logical_axes()`, perhaps with adapters, with those of the scales in it, too."""
  new: Params = {'layers': {}}
  for name, part in lora.TARGETS.items():
    layers, *others = axes['layers'][part][name]['kernel']
    outputs = others[lora.num_inputs(name):]
    new['layers'].setdefault(part, {})[name] = {'kernel_scale': PartitionSpec(layers, *outputs)}
  new['embed'] = {'embedding_scale': PartitionSpec(axes['embed']['embedding'][0])}
  if 'head' in axes:
    new['head_scale'] = PartitionSpec(axes['head'][1])
  return overlay(axes, new)


def _pair(name: str, matrix: Array, inputs: tuple[int, ...]) -> Params:
  """The rounded matrix, and its scales in float32."""
  matrix = matrix.astype(jnp.float32)
  largest = jnp.abs(matrix).max(inputs, keepdims=True)
  scale = jnp.where(largest > 0, largest / _LARGEST, 1.0)
  return {name: jnp.round(matrix / scale).astype(jnp.int8),
          f'{name}_scale': jnp.squeeze(scale, inputs)}
