"""Attention by the definition, with an [S, S] mask: what the others must equal."""

import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import masks


def attention_reference(q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array) -> Array:
  """softmax(q k^T / sqrt(H)) v over visible keys, [B, S, N, H]; see ops/attention.py."""
  B, S, N, H = q_BSNH.shape
  K = k_BSKH.shape[2]
  dtype = jnp.promote_types(jnp.float32, q_BSNH.dtype)
  q_BSKGH = q_BSNH.reshape(B, S, K, N // K, H)
  scores_BKGSS = jnp.einsum(
      'bqkgh,bckh->bkgqc', q_BSKGH, k_BSKH, preferred_element_type=dtype) * H**-0.5
  mask_BKGSS = masks.visible_BSS(key_end_BS)[:, None, None]
  # Finite, not -inf: a query that sees nothing must give 0 and a zero gradient, not nan.
  scores_BKGSS = jnp.where(mask_BKGSS, scores_BKGSS, -1e30)
  weights_BKGSS = jnp.where(
      mask_BKGSS, jnp.exp(scores_BKGSS - scores_BKGSS.max(-1, keepdims=True)), 0)
  total_BKGS1 = weights_BKGSS.sum(-1, keepdims=True)
  weights_BKGSS = weights_BKGSS / jnp.where(total_BKGS1 > 0, total_BKGS1, 1)
  out_BSKGH = jnp.einsum(
      'bkgqc,bckh->bqkgh', weights_BKGSS.astype(v_BSKH.dtype), v_BSKH,
      preferred_element_type=dtype)
  return out_BSKGH.reshape(B, S, N, H).astype(q_BSNH.dtype)
