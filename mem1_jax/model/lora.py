"""Low-rank adapters (arXiv 2106.09685): what is trained beside a frozen base.

    y = x W + (x A) B alpha / rank        A [in, rank] random, B [rank, out] zero at first

Adapters are a small tree that stands beside the parameters (layers stacked, r the rank):

    layers/attention   q, k, v   lora_a [L, D, r]      lora_b [L, r, N or K, H]
                       o         lora_a [L, N, H, r]   lora_b [L, r, D]
    layers/mlp         gate, up  lora_a [L, D, r]      lora_b [L, r, F]
                       down      lora_a [L, F, r]      lora_b [L, r, D]

Programs take base and adapters apart, the base never donated, and compute with
`arrays.overlay(base, adapters)`: packed rows and the cache alike, so sampler and learner share
every number. The base alone is the model with its LoRA off. No program merges the two: the
gradient of a merged W would be a whole W in every layer and micro-row, where that of A and B is
two thin products, and a base in bfloat16 would round most of the difference away.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mem1_jax.arrays import Array, Params, overlay

# Every projection of a layer, and the part of the layer it belongs to.
TARGETS = {'q': 'attention', 'k': 'attention', 'v': 'attention', 'o': 'attention',
           'gate': 'mlp', 'up': 'mlp', 'down': 'mlp'}


def init(key: Array, base: Params, rank: int, targets: tuple[str, ...]) -> Params:
  """Fresh adapters, at least float32: B zero, A as peft draws it.

  A is Kaiming-uniform with a = √5, which is U(-1/√in, 1/√in).

  Args:
    key: consumed; each target's A depends on it and the target alone.
    base: the parameters they stand beside.
    rank: ≥ 0; 0 makes none.
    targets: which projections get one, names of `TARGETS`.

  Raises:
    ValueError: a negative rank, or targets that the model lacks.
  """
  if rank < 0:
    raise ValueError(f'a LoRA rank of {rank} must be ≥ 0; 0 trains no adapters')
  if not rank:
    return {}
  layers = base['layers']
  present = [name for name, part in TARGETS.items() if name in layers.get(part, ())]
  unknown = [name for name in targets if name not in present]
  if unknown or not targets:
    raise ValueError(f'lora.targets={tuple(targets)}: this model has no projection '
                     f'{", ".join(map(repr, unknown)) or "to train"}; choose from {present}')
  adapters: Params = {}
  for number, (name, part) in enumerate(TARGETS.items()):
    if name in targets:
      kernel = layers[part][name]['kernel']
      adapters.setdefault(part, {})[name] = _pair(
          jax.random.fold_in(key, number), kernel, rank, num_inputs(name))
  return {'layers': adapters}


def logical_axes(axes: Params) -> Params:
  """The tree `Policy.logical_axes()`, or a critic's, with those of every adapter in it, too.

  An adapter's axes are named as those of the kernel that it stands beside.
  """
  adapters: Params = {}
  for name, part in TARGETS.items():
    layers, *others = axes['layers'][part][name]['kernel']
    inputs, outputs = others[:num_inputs(name)], others[num_inputs(name):]
    adapters.setdefault(part, {})[name] = {
        'lora_a': PartitionSpec(layers, *inputs, 'rank'),
        'lora_b': PartitionSpec(layers, 'rank', *outputs)}
  return overlay(axes, {'layers': adapters})


def num_inputs(name: str) -> int:
  """How many axes of a projection's kernel it contracts; they follow that of the layers."""
  return 2 if name == 'o' else 1


def _pair(key, kernel, rank, count):
  layers, inputs = kernel.shape[:1], kernel.shape[1:1 + count]
  dtype = jnp.promote_types(jnp.float32, kernel.dtype)
  bound = math.prod(inputs)**-0.5
  return {
      'lora_a': jax.random.uniform(key, layers + inputs + (rank,), dtype, -bound, bound),
      'lora_b': jnp.zeros(layers + (rank,) + kernel.shape[1 + count:], dtype)}


def merge(base: Params | None, trained: Params, alpha: float) -> Params:
  """Parameters without adapters that compute what `overlay(base, trained)` does.

  A merged kernel has the wider dtype of the two, so that the sum is not rounded here.

  Args:
    base: frozen; may be None where `trained` is whole.
    trained: adapters, perhaps a value head; or a whole network, which comes back as it is.
    alpha: the scale is alpha / rank.
  """
  return _fold(overlay(base, trained), alpha)


def _fold(node, alpha):
  if not isinstance(node, dict):
    return node
  if 'lora_a' not in node:
    return {name: _fold(child, alpha) for name, child in node.items()}
  rest = {name: leaf for name, leaf in node.items() if not name.startswith('lora_')}
  kernel, a, b = node['kernel'], node['lora_a'], node['lora_b']
  layers, rank = a.shape[0], a.shape[-1]
  product = jnp.matmul(a.reshape(layers, -1, rank), b.reshape(layers, rank, -1),
                       precision='highest')
  return rest | {'kernel': kernel + product.reshape(kernel.shape) * (alpha / rank)}
