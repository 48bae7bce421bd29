"""The key/value cache: fixed shapes, rows of different lengths, cost by what is live.

A layer writes its tokens into the stacked [L, B, M, K, H] arrays and attends to them there: no
layer's slab is copied out, so a step costs what is live and not what is allocated.
"""

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, KVCache
from mem1_jax.model.config import ModelConfig

BLOCK = 128
_LOWEST = -1e30  # finite: exp(_LOWEST - _LOWEST) is 1, not nan


def init_cache(config: ModelConfig, batch: int, capacity: int) -> KVCache:
  """An empty cache of `batch` rows with room for `capacity` tokens each."""
  shape = (config.num_layers, batch, capacity, config.num_kv_heads, config.head_dim)
  return KVCache(
      k=jnp.zeros(shape, config.dtype), v=jnp.zeros(shape, config.dtype),
      length=jnp.zeros((batch,), jnp.int32))


def write(cache_LBMKH: Array, layer: Array, length_B: Array, new_BTKH: Array) -> Array:
  """Puts row b's T tokens at indices length[b]… of `layer`; what passes M is dropped."""
  B, T = new_BTKH.shape[:2]
  M = cache_LBMKH.shape[2]
  new_BTKH = new_BTKH.astype(cache_LBMKH.dtype)
  if T > M:
    raise ValueError(f'{T} tokens do not fit a cache of {M}; extend in smaller chunks')
  # A window of T indices that stays inside the row; what it holds before `length` is kept.
  start_B = jnp.minimum(length_B, M - T)

  def write_row(cache_LMKH, start, length, new_TKH):
    at = _indices(layer, start, 0, 0)
    old_TKH = jax.lax.dynamic_slice(cache_LMKH, at, (1,) + new_TKH.shape)[0]
    offset_T = jnp.arange(T) - (length - start)
    is_new_T11 = (offset_T >= 0)[:, None, None]
    window_TKH = jnp.where(is_new_T11, new_TKH[jnp.maximum(offset_T, 0)], old_TKH)
    return jax.lax.dynamic_update_slice(cache_LMKH, window_TKH[None], at)

  return jax.vmap(write_row, in_axes=(1, 0, 0, 0), out_axes=1)(
      cache_LBMKH, start_B, length_B, new_BTKH)


def attend(q_BTNH: Array, k_LBMKH: Array, v_LBMKH: Array, layer: Array, length_B: Array) -> Array:
  """Attention of T new tokens, already written, to cache indices ≤ their own.

  Token t of row b sits at index length[b] + t. Loops over blocks of indices up to the longest
  row, with the online softmax in float32 (float64 for float64).

  Returns:
    [B, T, N, H] in the dtype of q.
  """
  B, T, N, H = q_BTNH.shape
  M, K = k_LBMKH.shape[2:4]
  block = min(BLOCK, M)
  dtype = jnp.promote_types(jnp.float32, q_BTNH.dtype)
  q_BKrH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
  index_Br = length_B[:, None] + jnp.tile(jnp.arange(T, dtype=jnp.int32), N // K)

  def visit(i, state):
    acc_BKrH, max_BKr, sum_BKr = state
    # The last block is moved back to stay inside M; what the previous one covered is masked.
    start = jnp.minimum(i * block, M - block)
    key_c = start + jnp.arange(block, dtype=jnp.int32)
    mask_Brc = (key_c <= index_Br[:, :, None]) & (key_c >= i * block)
    k_BcKH, v_BcKH = (
        jax.lax.dynamic_slice(x, _indices(layer, 0, start, 0, 0), (1, B, block, K, H))[0]
        for x in (k_LBMKH, v_LBMKH))
    scores_BKrc = jnp.einsum(
        'bkrh,bckh->bkrc', q_BKrH, k_BcKH, preferred_element_type=dtype) * H**-0.5
    mask_B1rc = mask_Brc[:, None]
    scores_BKrc = jnp.where(mask_B1rc, scores_BKrc, _LOWEST)
    new_max_BKr = jnp.maximum(max_BKr, scores_BKrc.max(-1))
    weights_BKrc = jnp.where(mask_B1rc, jnp.exp(scores_BKrc - new_max_BKr[..., None]), 0)
    shrink_BKr = jnp.exp(max_BKr - new_max_BKr)
    new_acc_BKrH = acc_BKrH * shrink_BKr[..., None] + jnp.einsum(
        'bkrc,bckh->bkrh', weights_BKrc.astype(v_BcKH.dtype), v_BcKH,
        preferred_element_type=dtype)
    return new_acc_BKrH, new_max_BKr, sum_BKr * shrink_BKr + weights_BKrc.sum(-1)

  num_live = jnp.minimum(length_B.max() + T, M)
  zeros_BKr = jnp.zeros(q_BKrH.shape[:-1], dtype)
  acc_BKrH, _, sum_BKr = jax.lax.fori_loop(
      0, (num_live + block - 1) // block, visit,
      (jnp.zeros(q_BKrH.shape, dtype), zeros_BKr + _LOWEST, zeros_BKr))
  out_BKrH = acc_BKrH / jnp.where(sum_BKr > 0, sum_BKr, 1)[..., None]
  out_BKGTH = out_BKrH.reshape(B, K, N // K, T, H)
  return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H).astype(q_BTNH.dtype)


def _indices(*indices):
  return tuple(jnp.int32(index) for index in indices)  # one dtype, under x64 too
