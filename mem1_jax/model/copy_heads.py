"""Initial weights that can copy: heads that look back, then induction heads.

    layer 0   head 0 attends one token back, head 1 two, and both write what stood there;
              head 2 attends to the nearest label, and writes which line this is
    layer 1   heads attend where the token before equals this one, and write the token
              that came next:   A B … A → B.   What else they compare:
              head 0   the line: copies within a line never drift to another
              head 1   nothing
              head 2   the tokens before those:   X A B … X A → B
              head 3   this line's label with the token before that:   in line X, A → B

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
_LABEL_SHARPNESS = 44.0  # logits between a label right here and no label
_CONFIDENCE = 3.0  # scale of the final norm: that the copies are worth believing
_MATCH_SHARPNESS = 2.2  # scale of queries and keys of an induction head


def add_copy_heads(params: Params, config: ModelConfig, key: Array) -> Params:
  """The parameters of a fresh policy with copying heads in layers 0 and 1.

  Consumes the key.

  Raises:
    ValueError: another shape than these heads need.
  """
  shape = (config.num_heads, config.num_kv_heads, config.dim)
  if config.num_layers < 2 or shape != (4, 2, 4 * config.head_dim) or not config.qkv_bias:
    raise ValueError('copy_heads needs num_layers ≥ 2, 4 heads, 2 kv heads, dim = 4 head_dim and '
                     f'qkv_bias, not {config.num_layers}, {config.num_heads}, '
                     f'{config.num_kv_heads}, {config.dim} (of heads {config.head_dim}) and '
                     f'{config.qkv_bias}; leave it off')
  attention = jax.tree.map(lambda x: x, params['layers']['attention'])  # own dictionaries
  heads = _Heads(attention, config)
  keys = iter(jax.random.split(key, 3))
  # A token is known by its part in one subspace; what layer 0 notes of others has three more.
  token_DH, last_DH, second_DH, line_DH = jnp.split(
      jnp.linalg.qr(jax.random.normal(next(keys), (config.dim, config.dim)))[0], 4, axis=1)
  # What all labels have in common: found by it, it is no part of what is copied.
  label_D, token_DH = token_DH[:, -1], token_DH.at[:, -1].set(0)
  for head, offset, note_DH in ((0, 1, last_DH), (1, 2, second_DH)):
    heads.look_back(head, offset)
    heads.copy(0, head, token_DH, note_DH)
  heads.find_label(2, label_D)
  heads.copy(0, 2, token_DH, line_DH)
  heads.copy(0, 3, token_DH, jnp.zeros_like(line_DH))  # free: looks anywhere, and is silent yet
  turn_HH = _rotation(next(keys), config)
  heads.match(0, token_DH + line_DH @ turn_HH, last_DH + line_DH @ turn_HH)
  heads.match(1, token_DH, last_DH + line_DH @ turn_HH)
  turn_HH = _rotation(next(keys), config)
  heads.match(2, token_DH + last_DH @ turn_HH, last_DH + second_DH @ turn_HH)
  heads.match(3, token_DH + line_DH @ turn_HH, last_DH + second_DH @ turn_HH)
  for head in range(4):
    heads.copy(1, head, token_DH, token_DH)
  embedding_VD = _embedding(params['embed']['embedding'], token_DH, label_D, config)
  final_scale_D = params['final_norm']['scale'] * _CONFIDENCE
  return params | {'embed': params['embed'] | {'embedding': embedding_VD},
                   'final_norm': {'scale': final_scale_D},
                   'layers': params['layers'] | {'attention': heads.attention}}


def _rotation(key, config):
  """[H, H], random."""
  return jnp.linalg.qr(jax.random.normal(key, (config.head_dim,) * 2))[0]


def _embedding(embedding_VD, token_DH, label_D, config):
  """Tokens in their subspace, as large as before; labels share as much again."""
  kept_VD = embedding_VD @ token_DH @ token_DH.T * math.sqrt(config.dim / config.head_dim)
  first, end = config.copy_heads
  index_V = jnp.arange(config.vocab_size)
  is_label_V = (index_V >= first) & (index_V < end)
  common_D = config.init_std * math.sqrt(config.dim) * label_D
  return (kept_VD + jnp.outer(is_label_V, common_D)).astype(embedding_VD.dtype)


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

  def find_label(self, head: int, label_D: Array):
    """Layer 0, kv head 1: keys of labels only, and queries that like the nearest best."""
    half = self.config.head_dim // 2
    theta_h = self.config.rope_theta ** -(jnp.arange(half) / half)
    # The sum of these cosines falls with the distance, over a line and far beyond it.
    weight_h = jnp.where((theta_h > 2e-3) & (theta_h < 0.2), 1.0, 0.0) / (1 + (theta_h > 0.1))
    scale = math.sqrt(self.config.head_dim) * _LABEL_SHARPNESS / weight_h.sum()
    wave_H = jnp.concatenate([jnp.sqrt(scale * weight_h), jnp.zeros(half)])
    # A label's normed embedding is half what it shares: √(D/2) along it.
    key_DH = jnp.outer(label_D, wave_H) / math.sqrt(self.config.dim / 2)
    kv = head // (self.config.num_heads // self.config.num_kv_heads)
    self._set('q', 'kernel', (0, slice(None), head), jnp.zeros_like(key_DH))
    self._set('k', 'kernel', (0, slice(None), kv), key_DH)
    self._set('q', 'bias', (0, head), wave_H)

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
    """The head writes `write readᵀ` of what it attends to, as large as an embedding."""
    kv = head // (self.config.num_heads // self.config.num_kv_heads)
    # Behind layer 0 an embedding and three notes share the norm.
    size = self.config.init_std * (4 if layer else 1)
    self._set('v', 'kernel', (layer, slice(None), kv), read_DH)
    self._set('o', 'kernel', (layer, head), size * write_DH.T)
