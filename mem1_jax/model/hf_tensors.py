"""Tensor names of transformers and how each tensor lies in our parameters.

A tensor becomes one layer of a stacked leaf by a reshape that parts heads from their width, and a
transposition:

    self_attn.q_proj.weight [N·H, D] → [N, H, D] → layers/attention/q/kernel[l] [D, N, H]
"""

import math
from typing import NamedTuple

from mem1_jax.model.config import ModelConfig

HEAD = 'lm_head.weight'
VALUE, VALUE_BIAS = 'score.weight', 'score.bias'


class Tensor(NamedTuple):
  """A tensor of a checkpoint, and how it lies in ours."""

  name: str  # `{}` stands for the layer
  rows: tuple[int, ...]  # the parts of its first axis, e.g. (N, H)
  columns: tuple[int, ...]  # of its second; () for a vector
  order: tuple[int, ...]  # axis i of our leaf, but for L, is axis order[i] of rows + columns

  @property
  def parts(self) -> tuple[int, ...]:
    return self.rows + self.columns

  @property
  def shape(self) -> tuple[int, ...]:
    """In the checkpoint."""
    return (math.prod(self.rows),) + ((math.prod(self.columns),) if self.columns else ())

  @property
  def our_shape(self) -> tuple[int, ...]:
    """Of one layer."""
    return tuple(self.parts[axis] for axis in self.order)


def tensors(config: ModelConfig, is_critic: bool = False) -> dict[str, Tensor]:
  """{dotted path of our leaf: its tensor}, in the order in which they are written."""
  D, F, V = config.dim, config.ffn_dim, config.vocab_size
  N, K, H = config.num_heads, config.num_kv_heads, config.head_dim
  layer, table = 'model.layers.{}.', {}

  def linear(path, name, rows, columns, has_bias):
    order = tuple(range(len(rows), len(rows + columns))) + tuple(range(len(rows)))
    table[f'layers.{path}.kernel'] = Tensor(f'{layer}{name}.weight', rows, columns, order)
    if has_bias:
      table[f'layers.{path}.bias'] = Tensor(
          f'{layer}{name}.bias', rows, (), tuple(range(len(rows))))

  def vector(path, name, size):
    table[path] = Tensor(name, (size,), (), (0,))

  table['embed.embedding'] = Tensor('model.embed_tokens.weight', (V,), (D,), (0, 1))
  vector('layers.attention_norm.scale', f'{layer}input_layernorm.weight', D)
  for letter, heads in (('q', N), ('k', K), ('v', K)):
    linear(f'attention.{letter}', f'self_attn.{letter}_proj', (heads, H), (D,), config.qkv_bias)
  for letter in 'qk' if config.qk_norm else '':
    vector(f'layers.attention.{letter}_norm.scale', f'{layer}self_attn.{letter}_norm.weight', H)
  linear('attention.o', 'self_attn.o_proj', (D,), (N, H), config.o_bias)
  vector('layers.mlp_norm.scale', f'{layer}post_attention_layernorm.weight', D)
  linear('mlp.gate', 'mlp.gate_proj', (F,), (D,), False)
  linear('mlp.up', 'mlp.up_proj', (F,), (D,), False)
  linear('mlp.down', 'mlp.down_proj', (D,), (F,), False)
  vector('final_norm.scale', 'model.norm.weight', D)
  if is_critic:
    table['value'] = Tensor(VALUE, (1,), (D,), (1, 0))
  elif not config.tie_embeddings:
    table['head'] = Tensor(HEAD, (V,), (D,), (1, 0))
  return table


def num_layers(path: str, config: ModelConfig) -> int | None:
  """L of a stacked leaf, None for another."""
  return config.num_layers if path.startswith('layers.') else None
