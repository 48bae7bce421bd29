"""BERT, as transformers computes it, in plain functions (https://arxiv.org/abs/1810.04805).

    x = norm(word[token] + position[i] + type[t])
    x = norm(x + attention(x)),  x = norm(x + W2 act(W1 x))      in each layer

Padding stands at the end of a row; a token sees all others of its row but padding. Shapes: B rows,
S tokens, D width, F of the feed-forward, N heads, H their width, L layers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mem1_jax.retrieval.dense.settings import BertConfig, Pooling

Params = dict[str, Any]  # weights.py has the leaves
_ACTIVATIONS = {
    'gelu': functools.partial(jax.nn.gelu, approximate=False),
    'gelu_new': jax.nn.gelu,
    'gelu_pytorch_tanh': jax.nn.gelu,
    'relu': jax.nn.relu,
}


def hidden_states(params: Params, config: BertConfig, token_BS: jax.Array, type_BS: jax.Array,
                  length_B: jax.Array) -> jax.Array:
  """[B, S, D] of the last layer, in the dtype of the parameters; padding's are arbitrary.

  Args:
    token_BS: ids; any id behind a row's length.
    type_BS: which text of a pair a token is of.
    length_B: tokens of each row, 1 to S.
  """
  embed, eps = params['embed'], config.norm_eps
  S = token_BS.shape[1]
  begin = config.first_position
  x_BSD = (embed['word'][token_BS] + embed['position'][None, begin:begin + S]
           + embed['type'][type_BS])
  x_BSD = _norm(x_BSD, embed['norm'], eps)
  is_seen_BS = jnp.arange(S)[None] < length_B[:, None]

  def layer(x_BSD, p):
    x_BSD = _norm(x_BSD + _attention(x_BSD, p, config.num_heads, is_seen_BS), p['norm'], eps)
    y_BSF = _ACTIVATIONS[config.activation](_linear(x_BSD, p['up']))
    return _norm(x_BSD + _linear(y_BSF, p['down']), p['ffn_norm'], eps), None

  return jax.lax.scan(layer, x_BSD, params['layers'])[0]


def sentence_vectors(params: Params, config: BertConfig, pooling: Pooling, token_BS: jax.Array,
                     type_BS: jax.Array, length_B: jax.Array) -> jax.Array:
  """[B, D] in float32: one vector for each row (see `hidden_states`)."""
  x_BSD = hidden_states(params, config, token_BS, type_BS, length_B).astype(jnp.float32)
  if pooling.kind == 'cls':
    y_BD = x_BSD[:, 0]
  else:
    is_text_BS = jnp.arange(x_BSD.shape[1])[None] < length_B[:, None]
    y_BD = (jnp.sum(jnp.where(is_text_BS[..., None], x_BSD, 0), axis=1)
            / length_B[:, None].astype(jnp.float32))
  if pooling.is_normalised:
    y_BD = y_BD / jnp.maximum(jnp.sqrt(jnp.sum(y_BD * y_BD, axis=1, keepdims=True)), 1e-12)
  return y_BD


def scores(params: Params, config: BertConfig, token_BS: jax.Array, type_BS: jax.Array,
           length_B: jax.Array) -> jax.Array:
  """[B] in float32: the logit of a classifier with one label, from each row's first token."""
  first_BD = hidden_states(params, config, token_BS, type_BS, length_B)[:, 0]
  pooled_BD = jnp.tanh(_linear(first_BD, params['pooler']))
  return _linear(pooled_BD, params['classifier'])[:, 0].astype(jnp.float32)


def _linear(x: jax.Array, p: Params) -> jax.Array:
  """x @ kernel + bias over the last axis, float32 in full."""
  # As one matrix product: XLA's CPU products with more axes are slower.
  y = _dot(x.reshape(-1, x.shape[-1]), p['kernel'], 'ti,io->to') + p['bias'][None]
  return y.reshape(*x.shape[:-1], -1)


def _dot(x: jax.Array, y: jax.Array, axes: str) -> jax.Array:
  # TPUs and GPUs round float32 factors unless told not to.
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return jnp.einsum(axes, x, y, precision=precision)


def _norm(x: jax.Array, p: Params, eps: float) -> jax.Array:
  """Layer norm over the last axis, in float32."""
  y = x.astype(jnp.float32)
  y = y - jnp.mean(y, axis=-1, keepdims=True)
  y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
  lift = (None,) * (x.ndim - 1)
  return (y * p['scale'][lift].astype(jnp.float32)
          + p['bias'][lift].astype(jnp.float32)).astype(x.dtype)


def _attention(x_BSD: jax.Array, p: Params, num_heads: int, is_seen_BS: jax.Array) -> jax.Array:
  B, S, D = x_BSD.shape
  q_BSNH, k_BSNH, v_BSNH = (
      _linear(x_BSD, p[name]).reshape(B, S, num_heads, D // num_heads) for name in 'qkv')
  scores_BNSS = _dot(q_BSNH, k_BSNH, 'bqnh,bknh->bnqk').astype(jnp.float32)
  scores_BNSS = jnp.where(is_seen_BS[:, None, None],
                          scores_BNSS / (D // num_heads)**0.5, -jnp.inf)
  weight_BNSS = jax.nn.softmax(scores_BNSS, axis=-1).astype(x_BSD.dtype)
  y_BSNH = _dot(weight_BNSS, v_BSNH, 'bnqk,bknh->bqnh')
  return _linear(y_BSNH.reshape(B, S, D), p['o'])
