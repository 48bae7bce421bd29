"""A policy that follows a table instead of a network, and a small vocabulary for it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import KVCache
from mem1_jax.model import cache as cache_lib
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import one_device
from mem1_jax.rollout.engine import Engine, EngineConfig

VOCABULARY = (b'', b'', b'a', b'b', b'c', b'<think>', b'</think>', b'<search>', b'</search>',
              b'<answer>', b'</answer>', b'<information>', b'</information>', b'x', b'y', b'z')
PAD, EOS = 0, 1
ID = {token.decode(): i for i, token in enumerate(VOCABULARY) if token}


@dataclasses.dataclass(frozen=True)
class Chain:
  """The likeliest next token is a function of this one; `params` says which, [V] int32.

  The cache remembers the tokens (k) and their positions (v), so that tests can read them.
  """

  scale: float = 40.0  # logit of the next token; all others have 0
  mesh: jax.sharding.Mesh = one_device()
  vocab_size: int = len(VOCABULARY)

  def shardings(self):
    return sharding.whole(self.mesh)

  def init(self, key):
    del key
    return jnp.zeros(self.vocab_size, jnp.int32)

  def init_cache(self, batch, capacity):
    zeros = jnp.zeros((1, batch, capacity, 1), jnp.float32)
    return KVCache(zeros, jnp.copy(zeros), jnp.zeros(batch, jnp.int32))

  def cache_shardings(self, cache):
    return cache_lib.shardings(self.mesh, cache, 1)

  def extend(self, params, tokens_BT, position_BT, num_tokens_B, cache):
    B, T = tokens_BT.shape
    # Padding goes out of bounds, where it is dropped.
    index_1T = jnp.arange(T)[None, :]
    index_BT = jnp.where(index_1T < num_tokens_B[:, None], cache.length[:, None] + index_1T,
                         cache.k.shape[2])
    row_B1 = jnp.arange(B)[:, None]
    k = cache.k.at[0, row_B1, index_BT, 0].set(tokens_BT.astype(jnp.float32), mode='drop')
    v = cache.v.at[0, row_B1, index_BT, 0].set(position_BT.astype(jnp.float32), mode='drop')
    hidden_BTD = jax.nn.one_hot(params[tokens_BT], self.vocab_size)
    return hidden_BTD, KVCache(k, v, cache.length + num_tokens_B)

  def head(self, params):
    del params
    return jnp.eye(self.vocab_size) * self.scale


def chain(*texts):
  """Params: after each token of a text comes the following one."""
  following = np.full(len(VOCABULARY), ID['z'], np.int32)
  for text in texts:
    ids = text if isinstance(text, list) else [ID[piece] for piece in text.split()]
    for token, after in zip(ids, ids[1:]):
      following[token] = after
  return jnp.asarray(following)


def engine(policy=Chain(), num_slots=2, cache=64, **sizes):
  sizes = dict(question_capacity=8, context_capacity=16, turn_capacity=8, prefill_chunk=4,
               num_valid=len(VOCABULARY), refill_rows=min(num_slots, 4)) | sizes
  return Engine(policy, EngineConfig(num_slots=num_slots, cache_capacity=cache, **sizes),
                VOCABULARY, EOS, PAD)
