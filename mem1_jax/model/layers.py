"""The parts of a decoder layer without state: projections, norm, SwiGLU, rotation.

Logical axes of parameters: vocab, embed (D), mlp (F), heads (N), kv_heads (K), head (H),
norm (vectors that stay whole) and layers (added by the scan).
"""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.model.config import ModelConfig


class Linear(nn.Module):
  """x @ kernel (+ bias) in the compute dtype, from x's trailing `inputs` axes to `outputs`.

  Adapters that lie beside the kernel add their product (model/lora.py); a scale there is of a
  kernel in int8 (model/quantize.py).

  Attributes:
    inputs: shape that the kernel contracts, such as (D,).
    outputs: shape that it makes, such as (N, H).
    axes: a logical name for each axis of inputs + outputs.
  """

  config: ModelConfig
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  axes: tuple[str, ...]
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config = self.config
    kernel = self.param(
        'kernel', nn.with_logical_partitioning(nn.initializers.normal(config.init_std), self.axes),
        self.inputs + self.outputs, jnp.dtype(config.param_dtype))
    # As one matrix product: XLA's CPU gradient of a product with more axes takes twice as long.
    num_inputs, num_outputs = math.prod(self.inputs), math.prod(self.outputs)
    x_Ti = x.reshape(-1, num_inputs)
    y = x_Ti @ kernel.astype(config.dtype).reshape(num_inputs, num_outputs)
    if self.has_variable('params', 'kernel_scale'):
      scale = self.get_variable('params', 'kernel_scale').astype(config.dtype)
      y = y * scale.reshape(1, num_outputs)
    if self.has_variable('params', 'lora_a'):
      a, b = (self.get_variable('params', name).astype(config.dtype)
              for name in ('lora_a', 'lora_b'))
      rank = a.shape[-1]
      # The narrow product is scaled: it is the smallest.
      low_Tr = x_Ti @ a.reshape(num_inputs, rank) * (config.lora_alpha / rank)
      y = y + low_Tr @ b.reshape(rank, num_outputs)
    y = y.reshape(x.shape[:x.ndim - len(self.inputs)] + self.outputs)
    if not self.use_bias:
      return y
    bias = self.param(
        'bias', nn.with_logical_partitioning(
            nn.initializers.zeros, self.axes[len(self.inputs):]),
        self.outputs, jnp.dtype(config.param_dtype))
    return y + _lift(bias, y).astype(config.dtype)


class RMSNorm(nn.Module):
  """x / sqrt(mean(x^2) + eps) * scale over the last axis (arXiv 1910.07467)."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config = self.config
    scale = self.param(
        'scale', nn.with_logical_partitioning(nn.initializers.ones, ('norm',)),
        (x.shape[-1],), jnp.dtype(config.param_dtype))
    # f32: a bf16 mean of squares loses the small channels.
    y = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + config.rms_eps)
    return _lift(scale, y).astype(config.dtype) * y.astype(config.dtype)


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BSD: Array) -> Array:
    config = self.config
    D, F = config.dim, config.ffn_dim
    gate_BSF = Linear(config, (D,), (F,), ('embed', 'mlp'), name='gate')(x_BSD)
    up_BSF = Linear(config, (D,), (F,), ('embed', 'mlp'), name='up')(x_BSD)
    hidden_BSF = nn.silu(gate_BSF) * up_BSF
    return Linear(config, (F,), (D,), ('mlp', 'embed'), name='down')(hidden_BSF)


def _lift(x: Array, like: Array) -> Array:
  """x with leading axes of size 1, up to the rank of `like`: no silent rank promotion."""
  return jnp.expand_dims(x, tuple(range(like.ndim - x.ndim)))


def rotary_angles(position_BS: Array, config: ModelConfig) -> tuple[Array, Array]:
  """cos and sin of position * theta^(-2i/H), each [B, S, 1, H/2], at least float32."""
  dtype = jnp.promote_types(jnp.float32, config.dtype)
  exponent_h = jnp.arange(0, config.head_dim, 2, dtype=dtype) / config.head_dim
  # f32 holds every position below 2^24; bf16 would merge positions from 257 on.
  angle_BSh = (position_BS[:, :, None].astype(dtype)
               / (config.rope_theta**exponent_h)[None, None])
  return jnp.cos(angle_BSh)[:, :, None], jnp.sin(angle_BSh)[:, :, None]


def rotate(x_BSNH: Array, cos_BS1h: Array, sin_BS1h: Array) -> Array:
  """Rotary embedding (arXiv 2104.09864) that pairs i with i + H/2, as transformers does."""
  first, second = jnp.split(x_BSNH.astype(cos_BS1h.dtype), 2, axis=-1)
  return jnp.concatenate(
      [first * cos_BS1h - second * sin_BS1h, second * cos_BS1h + first * sin_BS1h],
      axis=-1).astype(x_BSNH.dtype)
