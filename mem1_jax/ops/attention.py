"""Attention over packed rows: one entry, several implementations of the same numbers."""

from typing import Any

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import attention_chunked, attention_gpu, attention_tpu
from mem1_jax.ops.attention_reference import attention_reference

IMPLEMENTATIONS = (
    'auto', 'reference', 'chunked', 'tpu', 'gpu', 'tpu_interpret', 'gpu_interpret')
# Below this many positions one [S, S] matrix is cheaper than a loop over blocks.
_AUTO_REFERENCE_MAX = 256


def choose(implementation: str, device: jax.Device, num_positions: int, dtype: Any) -> str:
  """The implementation to call: 'auto' resolved, any other name returned if it can run there.

  'auto' is the kernel of the device's platform, 'chunked' where there is none (CPUs, GPUs before
  Ampere, float64), 'reference' for rows that are too short for blocks.

  Args:
    device: that will compute; one to compile for is enough.
    dtype: of queries, keys and values.

  Raises:
    ValueError: an unknown name.
    NotImplementedError: the kernel of another platform.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'implementation={implementation!r} must be one of {IMPLEMENTATIONS}')
  if implementation in ('tpu', 'gpu') and device.platform != implementation:
    raise NotImplementedError(
        f"implementation='{implementation}' cannot run on {device.device_kind} (platform "
        f"'{device.platform}'); use 'auto', or '{implementation}_interpret' to test its numbers")
  if implementation != 'auto':
    return implementation
  if num_positions <= _AUTO_REFERENCE_MAX:
    return 'reference'
  if jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16) and device.platform == 'tpu':
    return 'tpu'
  if jnp.dtype(dtype) != jnp.float64 and device.platform == 'gpu' and _is_ampere(device):
    return 'gpu'
  return 'chunked'


def make_plan(key_end_BS: Array, implementation: str) -> Any:
  """What the layers of a model share: the lists of blocks to visit, or None where there are none.

  Args:
    implementation: as `choose` returned it.
  """
  if implementation == 'reference':
    return None
  return _module(implementation).build_plan(key_end_BS)


def attention(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, *,
    implementation: str, plan: Any = None) -> Array:
  """softmax(q k^T / sqrt(H)) v over the keys that ops/masks.py lets each query see.

  Query head n reads key/value head n // (N / K). The softmax runs in float32 (float64
  for float64 inputs). A query that sees no key outputs 0.

  Args:
    q_BSNH, k_BSKH, v_BSKH: rotated queries and keys, values; K divides N.
    key_end_BS: int32, first row index that cannot see this token; 0 for padding.
    implementation: one of `IMPLEMENTATIONS`; 'auto' speaks of jax's default device. The names in
      '…_interpret' compute as the kernel does, but with XLA on any platform, slowly.
    plan: `make_plan(key_end_BS, implementation)`, to share it between layers.

  Returns:
    [B, S, N, H] in the dtype of q.

  Raises:
    ValueError: unknown implementation, or heads that do not group.
    NotImplementedError: a kernel that is not for this platform, dtype or block size.
  """
  _check(q_BSNH.shape, k_BSKH.shape, v_BSKH.shape, key_end_BS.shape)
  if implementation not in IMPLEMENTATIONS or implementation == 'auto':
    implementation = choose(implementation, jax.devices()[0], q_BSNH.shape[1], q_BSNH.dtype)
  arrays = q_BSNH, k_BSKH, v_BSKH, key_end_BS
  with jax.named_scope('attention'):
    if implementation == 'reference':
      return attention_reference(*arrays)
    if plan is None:
      plan = make_plan(key_end_BS, implementation)
    name, _, interpret = implementation.partition('_')
    if name == 'chunked':
      return attention_chunked.attention_chunked(*arrays, plan)
    kernel = {'tpu': attention_tpu.attention_tpu, 'gpu': attention_gpu.attention_gpu}[name]
    return kernel(*arrays, plan, interpret=bool(interpret))


def _module(implementation):
  return {'chunked': attention_chunked, 'tpu': attention_tpu, 'gpu': attention_gpu}[
      implementation.partition('_')[0]]


def _is_ampere(device: jax.Device) -> bool:
  """Whether the GPU has what Triton's products need (compute capability 8.0)."""
  return float(getattr(device, 'compute_capability', 0)) >= 8.0


def _check(q_shape, k_shape, v_shape, key_end_shape):
  B, S, N, H = q_shape
  K = k_shape[2]
  if k_shape != (B, S, K, H) or v_shape != k_shape or key_end_shape != (B, S):
    raise ValueError(
        f'queries {q_shape}, keys {k_shape}, values {v_shape} and key_end {key_end_shape} '
        'must agree in batch, positions and head width')
  if N % K:
    raise ValueError(f'{N} query heads are not a multiple of {K} key/value heads')
