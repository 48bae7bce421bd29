"""A decoder of every feature at a size that compiles quickly, and rows for it."""

import jax
import jax.numpy as jnp

from mem1_jax.model import named_config
from tests.ops import layouts

QWEN2 = {'qkv_bias': True, 'qk_norm': False, 'tie_embeddings': False}
QWEN3 = {'qkv_bias': False, 'qk_norm': True, 'tie_embeddings': True}


def small_config(**overrides):
  fields = dict(vocab_size=61, dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
                ffn_dim=40, init_std=0.3, copy_heads=None, rope_theta=5_000.0)
  return named_config('atlas', **(fields | QWEN3 | overrides))


def rows(config, num_rows=2, length=48, seed=0):
  """(tokens, position, key_end), each [num_rows, length]: packed episodes and padding."""
  key_end, position = layouts.episodes(num_rows, length, seed)
  tokens = jax.random.randint(jax.random.key(seed), key_end.shape, 0, config.vocab_size)
  return tokens, jnp.asarray(position), jnp.asarray(key_end)
