"""Grouped-query self-attention with rotary positions, over a packed row or a cache."""

from typing import Any

from flax import linen as nn

from mem1_jax.arrays import Array, KVCache, pytree
from mem1_jax.model import layers
from mem1_jax.model.cache import attend
from mem1_jax.model.config import ModelConfig
from mem1_jax.ops.attention import attention


@pytree
class Packed:
  """What every layer reads when whole rows are computed."""

  cos: Array  # [B, S, 1, H/2]
  sin: Array  # [B, S, 1, H/2]
  key_end: Array  # [B, S] int32
  plan: Any  # ops.attention.make_plan


@pytree
class Cached:
  """What every layer reads when T tokens extend a cache."""

  cos: Array  # [B, T, 1, H/2]
  sin: Array  # [B, T, 1, H/2]
  cache: KVCache  # as it was before these tokens


class Attention(nn.Module):
  """Queries, keys and values of x, attention, output projection.

  Returns the output, and the new tokens' keys and values [B, T, K, H] where they extend a cache.
  """

  config: ModelConfig
  implementation: str

  @nn.compact
  def __call__(
      self, x_BSD: Array, layer: Array, inputs: Packed | Cached,
  ) -> tuple[Array, tuple[Array, Array] | None]:
    config = self.config
    D, N, K, H = config.dim, config.num_heads, config.num_kv_heads, config.head_dim

    def project(name, heads, axis):
      return layers.Linear(
          config, (D,), (heads, H), ('embed', axis, 'head'), use_bias=config.qkv_bias,
          name=name)(x_BSD)

    q_BSNH, k_BSKH = project('q', N, 'heads'), project('k', K, 'kv_heads')
    v_BSKH = project('v', K, 'kv_heads')
    if config.qk_norm:
      q_BSNH = layers.RMSNorm(config, name='q_norm')(q_BSNH)
      k_BSKH = layers.RMSNorm(config, name='k_norm')(k_BSKH)
    q_BSNH = layers.rotate(q_BSNH, inputs.cos, inputs.sin)
    k_BSKH = layers.rotate(k_BSKH, inputs.cos, inputs.sin)
    if isinstance(inputs, Packed):
      out_BSNH = attention(
          q_BSNH, k_BSKH, v_BSKH, inputs.key_end, implementation=self.implementation,
          plan=inputs.plan)
    else:
      out_BSNH = attend(q_BSNH, k_BSKH, v_BSKH, inputs.cache, layer)
    out_BSD = layers.Linear(
        config, (N, H), (D,), ('heads', 'head', 'embed'), use_bias=config.o_bias,
        name='o')(out_BSNH)
    return out_BSD, (k_BSKH, v_BSKH) if isinstance(inputs, Cached) else None
