"""Interval attention in blocks, in plain XLA: no [S, S] array, invisible blocks skipped.

Flash attention (arXiv 2205.14135) over the flat lists of ops/blocks.py, one per row. The loop has
a dynamic trip count (the longest list of the batch), so time follows what is visible. The backward
pass recomputes the weights from the saved log-sum-exp.
"""

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import blocks, flash, masks

_BLOCK = 64
_LOWEST = -1e30  # finite: exp(_LOWEST - _LOWEST) is 1, not nan


def build_plan(key_end_BS: Array, block: int = _BLOCK) -> blocks.Visits:
  """The visits of rows with these `key_end`s, in blocks of `block` tokens."""
  return blocks.by_query(key_end_BS, block, block, visits_idle=False)


def attention_chunked(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, plan: blocks.Visits) -> Array:
  """As ops/attention.py, [B, S, N, H]; `plan` of `build_plan`."""
  return flash.attend(_forward, _backward, (), q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan)


def _forward(_, q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan):
  """Output [B, S, N, H] and log-sum-exp [B, I, K, G * block]."""
  B, S, N, H = q_BSNH.shape
  K, block = k_BSKH.shape[2], plan.major_block
  dtype = jnp.promote_types(jnp.float32, q_BSNH.dtype)
  q_BIKrH = _split(q_BSNH, K, block)
  k_BJKcH, v_BJKcH = _split(k_BSKH, K, block), _split(v_BSKH, K, block)
  key_end_BJc = _pad(key_end_BS, k_BJKcH.shape[1] * block).reshape(B, -1, block)

  def visit(p, state):
    acc_BIKrH, max_BIKr, sum_BIKr = state
    visit_B = plan.packed[:, p]
    i_B, j_B = blocks.major(visit_B), blocks.minor(visit_B)
    scores_BKrc = jnp.einsum(
        'bkrh,bkch->bkrc', _take(q_BIKrH, i_B), _take(k_BJKcH, j_B),
        preferred_element_type=dtype) * H**-0.5
    mask_B1rc = _mask(i_B, j_B, blocks.has(visit_B, blocks.ACTIVE), _take(key_end_BJc, j_B), N // K)
    scores_BKrc = jnp.where(mask_B1rc, scores_BKrc, _LOWEST)
    old_max_BKr = _take(max_BIKr, i_B)
    new_max_BKr = jnp.maximum(old_max_BKr, scores_BKrc.max(-1))
    weights_BKrc = jnp.where(mask_B1rc, jnp.exp(scores_BKrc - new_max_BKr[..., None]), 0)
    shrink_BKr = jnp.exp(old_max_BKr - new_max_BKr)
    new_sum_BKr = _take(sum_BIKr, i_B) * shrink_BKr + weights_BKrc.sum(-1)
    new_acc_BKrH = _take(acc_BIKrH, i_B) * shrink_BKr[..., None] + jnp.einsum(
        'bkrc,bkch->bkrh', weights_BKrc.astype(v_BSKH.dtype), _take(v_BJKcH, j_B),
        preferred_element_type=dtype)
    return (_put(acc_BIKrH, i_B, new_acc_BKrH), _put(max_BIKr, i_B, new_max_BKr),
            _put(sum_BIKr, i_B, new_sum_BKr))

  zeros_BIKr = jnp.zeros(q_BIKrH.shape[:-1], dtype)
  acc_BIKrH, max_BIKr, sum_BIKr = jax.lax.fori_loop(
      0, plan.count.max(), visit,
      (jnp.zeros(q_BIKrH.shape, dtype), zeros_BIKr + _LOWEST, zeros_BIKr))
  sum_BIKr = jnp.where(sum_BIKr > 0, sum_BIKr, 1)  # a query that sees nothing gives 0
  out_BIKrH = (acc_BIKrH / sum_BIKr[..., None]).astype(q_BSNH.dtype)
  return _merge(out_BIKrH, S, N), max_BIKr + jnp.log(sum_BIKr)


def _backward(_, residuals, dout_BSNH):
  q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan, out_BSNH, lse_BIKr = residuals
  B, S, N, H = q_BSNH.shape
  K, block = k_BSKH.shape[2], plan.major_block
  dtype = jnp.promote_types(jnp.float32, q_BSNH.dtype)
  q_BIKrH, dout_BIKrH = _split(q_BSNH, K, block), _split(dout_BSNH, K, block)
  k_BJKcH, v_BJKcH = _split(k_BSKH, K, block), _split(v_BSKH, K, block)
  key_end_BJc = _pad(key_end_BS, k_BJKcH.shape[1] * block).reshape(B, -1, block)
  delta_BIKr = _split(
      (dout_BSNH.astype(dtype) * out_BSNH.astype(dtype)).sum(-1, keepdims=True), K, block)[..., 0]

  def visit(p, grads):
    dq_BIKrH, dk_BJKcH, dv_BJKcH = grads
    visit_B = plan.packed[:, p]
    i_B, j_B = blocks.major(visit_B), blocks.minor(visit_B)
    q_BKrH, dout_BKrH = _take(q_BIKrH, i_B), _take(dout_BIKrH, i_B)
    k_BKcH, v_BKcH = _take(k_BJKcH, j_B), _take(v_BJKcH, j_B)
    mask_B1rc = _mask(i_B, j_B, blocks.has(visit_B, blocks.ACTIVE), _take(key_end_BJc, j_B), N // K)
    scores_BKrc = jnp.einsum(
        'bkrh,bkch->bkrc', q_BKrH, k_BKcH, preferred_element_type=dtype) * H**-0.5
    weights_BKrc = jnp.where(
        mask_B1rc, jnp.exp(scores_BKrc - _take(lse_BIKr, i_B)[..., None]), 0)
    dweights_BKrc = jnp.einsum(
        'bkrh,bkch->bkrc', dout_BKrH, v_BKcH, preferred_element_type=dtype)
    dscores_BKrc = weights_BKrc * (dweights_BKrc - _take(delta_BIKr, i_B)[..., None]) * H**-0.5
    weights_BKrc = weights_BKrc.astype(q_BSNH.dtype)
    dscores_BKrc = dscores_BKrc.astype(q_BSNH.dtype)
    dq_BKrH = jnp.einsum('bkrc,bkch->bkrh', dscores_BKrc, k_BKcH, preferred_element_type=dtype)
    dk_BKcH = jnp.einsum('bkrc,bkrh->bkch', dscores_BKrc, q_BKrH, preferred_element_type=dtype)
    dv_BKcH = jnp.einsum('bkrc,bkrh->bkch', weights_BKrc, dout_BKrH, preferred_element_type=dtype)
    return (_put(dq_BIKrH, i_B, _take(dq_BIKrH, i_B) + dq_BKrH),
            _put(dk_BJKcH, j_B, _take(dk_BJKcH, j_B) + dk_BKcH),
            _put(dv_BJKcH, j_B, _take(dv_BJKcH, j_B) + dv_BKcH))

  dq_BIKrH, dk_BJKcH, dv_BJKcH = jax.lax.fori_loop(
      0, plan.count.max(), visit,
      tuple(jnp.zeros(x.shape, dtype) for x in (q_BIKrH, k_BJKcH, v_BJKcH)))
  return (_merge(dq_BIKrH, S, N).astype(q_BSNH.dtype), _merge(dk_BJKcH, S, K).astype(k_BSKH.dtype),
          _merge(dv_BJKcH, S, K).astype(v_BSKH.dtype))


def _mask(i_B, j_B, is_listed_B, key_end_Bc, group):
  """[B, 1, group * block, block]: the rule inside one block pair per row."""
  block = key_end_Bc.shape[-1]
  offset_1c = jnp.arange(block, dtype=jnp.int32)[None]
  query_Br = i_B[:, None] * block + jnp.tile(offset_1c, group)
  key_Bc = j_B[:, None] * block + offset_1c
  is_visible_Brc = masks.visible(query_Br[:, :, None], key_Bc[:, None, :], key_end_Bc[:, None, :])
  return (is_visible_Brc & is_listed_B[:, None, None])[:, None]


def _pad(x_BS, length):
  return jnp.pad(x_BS, ((0, 0), (0, length - x_BS.shape[1])) + ((0, 0),) * (x_BS.ndim - 2))


def _split(x_BSNH, K, block):
  """[B, S, N, H] → [B, I, K, G * block, H]: a head group's queries share one matmul."""
  B, S, N, H = x_BSNH.shape
  I = -(-S // block)
  x_BIcKGH = _pad(x_BSNH, I * block).reshape(B, I, block, K, N // K, H)
  return x_BIcKGH.transpose(0, 1, 3, 4, 2, 5).reshape(B, I, K, N // K * block, H)


def _merge(x_BIKrH, S, N):
  B, I, K, r, H = x_BIKrH.shape
  G = N // K
  x_BIKGcH = x_BIKrH.reshape(B, I, K, G, r // G, H)
  return x_BIKGcH.transpose(0, 1, 4, 2, 3, 5).reshape(B, -1, N, H)[:, :S]


def _take(x_BI, i_B):
  return jax.vmap(lambda x_I, i: jax.lax.dynamic_index_in_dim(x_I, i, 0, keepdims=False))(x_BI, i_B)


def _put(x_BI, i_B, value_B):
  return jax.vmap(lambda x_I, i, value: jax.lax.dynamic_update_index_in_dim(x_I, value, i, 0))(
      x_BI, i_B, value_B)
