"""Attention over packed rows: one entry, several implementations of the same numbers."""

from typing import Any

import jax

from mem1_jax.arrays import Array
from mem1_jax.ops import attention_chunked
from mem1_jax.ops.attention_reference import attention_reference

IMPLEMENTATIONS = ('auto', 'reference', 'chunked')
# Below this many positions one [S, S] matrix is cheaper than a loop over blocks.
_AUTO_REFERENCE_MAX = 256


def attention(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, *,
    implementation: str, plan: Any = None) -> Array:
  """softmax(q k^T / sqrt(H)) v over the keys that ops/masks.py lets each query see.

  Query head n reads key/value head n // (N / K). The softmax runs in float32 (float64
  for float64 inputs). A query that sees no key outputs 0.

  Args:
    q_BSNH, k_BSKH, v_BSKH: rotated queries and keys, values; K divides N.
    key_end_BS: int32, first row index that cannot see this token; 0 for padding.
    implementation: 'reference' | 'chunked' | 'auto', which picks by platform and S.
    plan: `make_plan(key_end_BS, implementation)`, to share it between layers.

  Returns:
    [B, S, N, H] in the dtype of q.

  Raises:
    ValueError: unknown implementation, or heads that do not group.
  """
  _check(q_BSNH.shape, k_BSKH.shape, v_BSKH.shape, key_end_BS.shape)
  with jax.named_scope('attention'):
    if _resolve(implementation, q_BSNH.shape[1]) == 'reference':
      return attention_reference(q_BSNH, k_BSKH, v_BSKH, key_end_BS)
    return attention_chunked.attention_chunked(q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan)


def make_plan(key_end_BS: Array, implementation: str) -> Any:
  """What layers share: the list of active blocks, or None where none is used."""
  if _resolve(implementation, key_end_BS.shape[1]) == 'reference':
    return None
  return attention_chunked.build_plan(key_end_BS)


def _resolve(implementation: str, num_positions: int) -> str:
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'implementation={implementation!r} must be one of {IMPLEMENTATIONS}')
  if implementation == 'auto':
    return 'reference' if num_positions <= _AUTO_REFERENCE_MAX else 'chunked'
  return implementation


def _check(q_shape, k_shape, v_shape, key_end_shape):
  B, S, N, H = q_shape
  K = k_shape[2]
  if k_shape != (B, S, K, H) or v_shape != k_shape or key_end_shape != (B, S):
    raise ValueError(
        f'queries {q_shape}, keys {k_shape}, values {v_shape} and key_end {key_end_shape} '
        'must agree in batch, positions and head width')
  if N % K:
    raise ValueError(f'{N} query heads are not a multiple of {K} key/value heads')
