"""Grouped-query self-attention with rotary positions, over a packed row or a cache."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import Mesh, PartitionSpec

from mem1_jax.arrays import Array, KVCache, pytree
from mem1_jax.model import layers
from mem1_jax.model.cache import attend
from mem1_jax.model.config import ModelConfig
from mem1_jax.ops import attention as ops
from mem1_jax.parallel import sharding


@dataclasses.dataclass(frozen=True)
class RowAttention:
  """ops/attention.py for the devices of a mesh: each computes its rows and its heads.

  XLA would gather everything for a kernel, and run a loop over blocks in step on all devices: as
  many turns as the fullest row of any.
  """

  implementation: str  # ops.attention.IMPLEMENTATIONS
  mesh: Mesh

  def __post_init__(self):
    self._choose(1, 'float32')  # says at once what cannot run here

  def plan(self, key_end_BS: Array, dtype: Any) -> Any:
    """What all layers share; `dtype` of their queries, keys and values."""
    return ops.make_plan(key_end_BS, self._choose(key_end_BS.shape[1], dtype))

  def __call__(self, q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array,
               plan: Any) -> Array:
    implementation = self._choose(q_BSNH.shape[1], q_BSNH.dtype)

    def attention(q, k, v, key_end, plan):
      return ops.attention(q, k, v, key_end, implementation=implementation, plan=plan)

    if plan is not None and self.mesh.size > 1:
      heads = sharding.named(self.mesh, ('batch', None, 'kv_heads', None), k_BSKH.shape).spec
      rows = PartitionSpec(heads[0])
      attention = jax.shard_map(
          attention, mesh=self.mesh, in_specs=(heads, heads, heads, rows, rows), out_specs=heads,
          check_vma=False)  # kernels do not say along which axes their outputs vary
    return attention(q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan)

  @property
  def platform(self) -> str:
    return self.mesh.devices.flat[0].platform

  def _choose(self, num_positions, dtype):
    return ops.choose(self.implementation, self.mesh.devices.flat[0], num_positions, dtype)


@pytree
class Packed:
  """What every layer reads when whole rows are computed."""

  cos: Array  # [B, S, 1, H/2]
  sin: Array  # [B, S, 1, H/2]
  key_end: Array  # [B, S] int32
  plan: Any  # RowAttention.plan


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
  row_attention: RowAttention

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
      out_BSNH = self.row_attention(q_BSNH, k_BSKH, v_BSKH, inputs.key_end, inputs.plan)
    else:
      out_BSNH = attend(q_BSNH, k_BSKH, v_BSKH, inputs.cache, layer,
                        self.row_attention.platform != 'tpu')
    out_BSD = layers.Linear(
        config, (N, H), (D,), ('heads', 'head', 'embed'), use_bias=config.o_bias,
        name='o')(out_BSNH)
    return out_BSD, (k_BSKH, v_BSKH) if isinstance(inputs, Cached) else None
