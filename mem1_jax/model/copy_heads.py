"""Initial weights that can copy: previous-token heads, then induction heads.

    layer 0   heads 0, 1 attend one and two tokens back and write what stood there
    layer 1   one head of each kv head attends where the token before equals this
              one, and writes the token that came next:   A B … A → B
              all but the first also compare the tokens before those:   X A B … X A → B

A transformer has to find this circuit before it can learn in context (arXiv
2209.11895), and a small one takes tens of millions of tokens to. As in mimetic
initialisation (arXiv 2305.09828) it is put into the initial weights instead; they
are ordinary weights from then on and training moves them freely.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, Params
from mem1_jax.model.config import ModelConfig

_POSITION_SHARPNESS = 5.0  # logits between the token meant and its neighbours
_MATCH_SHARPNESS = 3.5  # scale of queries and keys of an induction head


def add_copy_heads(params: Params, config: ModelConfig, key: Array) -> Params:
  """The parameters of a fresh policy with copying heads in layers 0 and 1.

  Consumes the key.

  Raises:
    ValueError: fewer than two layers or query heads per kv head, too narrow, or no biases.
  """
  group = config.num_heads // config.num_kv_heads
  if (config.num_layers < 2 or group < 2 or config.dim < 3 * config.head_dim
      or not config.qkv_bias):
    raise ValueError('copy_heads needs num_layers ≥ 2, num_heads ≥ 2 num_kv_heads, dim ≥ 3 head_dim '
                     f'and qkv_bias, not {config.num_layers}, {config.num_heads}, '
                     f'{config.num_kv_heads}, {config.dim}, {config.head_dim} and '
                     f'{config.qkv_bias}; leave it off')
  attention = jax.tree.map(lambda x: x, params['layers']['attention'])  # own dictionaries
  heads = _Heads(attention, config)
  first_key, *match_keys = jax.random.split(key, 1 + config.num_kv_heads)
  # What layer 0 copies from a token and where it puts it, disjoint: a query reads no copy.
  read_DH, *write_DH = jnp.split(_orthogonal(first_key, config, 3), 3, axis=1)
  for head, offset in ((0, 1), (1, 2)):
    heads.look_back(head, offset)
    heads.copy(0, head, read_DH, write_DH[head])
  for kv, match_key in enumerate(match_keys):
    query_DH, key_DH = read_DH, write_DH[0]
    if kv:
      turn_HH = jnp.linalg.qr(jax.random.normal(jax.random.fold_in(match_key, 1),
                                                (config.head_dim,) * 2))[0]
      # A copy is that much larger than an embedding; in the query both count the same.
      query_DH = query_DH + write_DH[0] @ turn_HH / _copy_size(config)
      key_DH = key_DH + write_DH[1] @ turn_HH
    heads.match(kv * group, query_DH, key_DH)
    token_DH = _orthogonal(match_key, config, 1)
    heads.copy(1, kv * group, token_DH, token_DH)
  return params | {'layers': params['layers'] | {'attention': heads.attention}}


def _orthogonal(key, config, num):
  """[D, num * H] with orthonormal columns."""
  return jnp.linalg.qr(jax.random.normal(key, (config.dim, num * config.head_dim)))[0]


def _copy_size(config):
  """Of what layer 0 and 1 copy, relative to an embedding's part in the same subspace."""
  return 2 * math.sqrt(config.dim / config.head_dim)


@dataclasses.dataclass
class _Heads:
  """Attention parameters, stacked over layers, in which single heads are set."""

  attention: Params
  config: ModelConfig

  def _set(self, part, name, index, value):
    leaf = self.attention[part][name]
    new = self.attention[part] | {name: leaf.at[index].set(value.astype(leaf.dtype))}
    self.attention = self.attention | {part: new}

  def look_back(self, head: int, offset: int):
    """Layer 0, kv head 0: biases whose rotary product peaks `offset` tokens back."""
    half = self.config.head_dim // 2
    theta_h = self.config.rope_theta ** -(jnp.arange(half) / half)
    # Slow planes tell neighbours apart by nothing, and large scores cost float32 digits.
    is_fast_h = theta_h > 0.03
    # q·k / √H = b² Σ cos(θ (distance - offset)) / √H; one step off loses this much per b².
    loss = jnp.where(is_fast_h, 1 - jnp.cos(theta_h), 0).sum() / math.sqrt(self.config.head_dim)
    b = jnp.sqrt(_POSITION_SHARPNESS / loss)
    # k = b (1, 0) in each rotary plane; q is k turned back by `offset` positions.
    b_h = b * is_fast_h
    key_H = jnp.concatenate([b_h, jnp.zeros(half)])
    angle_h = -offset * theta_h
    query_H = jnp.concatenate([b_h * jnp.cos(angle_h), b_h * jnp.sin(angle_h)])
    zeros_DH = jnp.zeros((self.config.dim, self.config.head_dim))
    self._set('q', 'kernel', (0, slice(None), head), zeros_DH)
    self._set('k', 'kernel', (0, slice(None), 0), zeros_DH)
    self._set('q', 'bias', (0, head), query_H)
    self._set('k', 'bias', (0, 0), key_H)

  def match(self, head: int, query_DH: Array, key_DH: Array):
    """Layer 1: the query is this token, the key what layer 0 wrote of the token before."""
    # Turning at most one radian over a thousand positions: other planes would blur a match.
    half = self.config.head_dim // 2
    theta_h = self.config.rope_theta ** -(jnp.arange(half) / half)
    is_slow_H = jnp.tile(theta_h < 3e-3, 2)
    scale_H = _MATCH_SHARPNESS * is_slow_H
    kv = head // (self.config.num_heads // self.config.num_kv_heads)
    self._set('q', 'kernel', (1, slice(None), head), query_DH * scale_H[None])
    self._set('k', 'kernel', (1, slice(None), kv), key_DH * scale_H[None])

  def copy(self, layer: int, head: int, read_DH: Array, write_DH: Array):
    """The head writes `write readᵀ` of what it attends to, twice as large as an embedding."""
    kv = head // (self.config.num_heads // self.config.num_kv_heads)
    size = _copy_size(self.config) * self.config.init_std
    self._set('v', 'kernel', (layer, slice(None), kv), read_DH)
    self._set('o', 'kernel', (layer, head), size * write_DH.T)
