"""Interval attention in blocks, in plain XLA: no [S, S] array, invisible blocks skipped.

Flash attention (arXiv 2205.14135) over the flat lists of ops/blocks.py, one per row, and over the
key/value heads of each visit. The loop has a dynamic trip count (the longest list of the batch), so
time follows what is visible. The backward pass recomputes the weights from the saved log-sum-exp.

Of shapes that give the same numbers the code takes those that XLA computes fastest on a CPU: one
head at a time, as two threads of a larger product wait more than they help; the mask made only
where a row of the batch needs one; gradients of keys and values summed with their axes swapped, as
products with a large transposed operand take twice as long.
"""

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import blocks, flash, masks

_BLOCK = 128
# Scores of what is not seen, and the least maximum of a query: it is finite and far above, so that
# the weights of a query that sees nothing are exp(-huge) = 0 without a mask of their own.
_UNSEEN, _FLOOR = -1e30, -1e20


def build_plan(key_end_BS: Array, block: int = _BLOCK) -> blocks.Visits:
  """The visits of rows with these `key_end`s, in blocks of `block` tokens."""
  return blocks.by_query(key_end_BS, block, block, visits_idle=False)


def attention_chunked(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, plan: blocks.Visits) -> Array:
  """As ops/attention.py, [B, S, N, H]; `plan` of `build_plan`."""
  return flash.attend(_forward, _backward, (), q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan)


# Below, X and Y count blocks of queries and blocks of keys, each one once for every key/value head;
# r are the G * block queries of such a pair, c the block's keys.


def _forward(_, q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan):
  """Output [B, S, N, H] and log-sum-exp [B, X, r]."""
  S, N, H = q_BSNH.shape[1:]
  K, block = k_BSKH.shape[2], plan.major_block
  dtype = jnp.promote_types(jnp.float32, q_BSNH.dtype)
  q_BXrH, k_BYcH, v_BYcH = (_split(x, K, block) for x in (q_BSNH, k_BSKH, v_BSKH))
  key_end_BJc = _blocks_of(key_end_BS, block)

  def visit(p, state):
    acc_BXrH, max_BXr, sum_BXr = state
    visit_B, x_B, y_B = _at(plan, p, K)
    scores_Brc = _scores(visit_B, _take(q_BXrH, x_B), _take(k_BYcH, y_B), key_end_BJc, dtype)
    old_max_Br = _take(max_BXr, x_B)
    new_max_Br = jnp.maximum(old_max_Br, scores_Brc.max(-1))
    weights_Brc = jnp.exp((scores_Brc - new_max_Br[..., None]) * H**-0.5)
    shrink_Br = jnp.exp((old_max_Br - new_max_Br) * H**-0.5)
    new_sum_Br = _take(sum_BXr, x_B) * shrink_Br + weights_Brc.sum(-1)
    new_acc_BrH = _take(acc_BXrH, x_B) * shrink_Br[..., None] + jnp.einsum(
        'brc,bch->brh', weights_Brc.astype(v_BSKH.dtype), _take(v_BYcH, y_B),
        preferred_element_type=dtype)
    return (_put(acc_BXrH, x_B, new_acc_BrH), _put(max_BXr, x_B, new_max_Br),
            _put(sum_BXr, x_B, new_sum_Br))

  zeros_BXr = jnp.zeros(q_BXrH.shape[:-1], dtype)
  acc_BXrH, max_BXr, sum_BXr = jax.lax.fori_loop(
      0, plan.count.max() * K, visit,
      (jnp.zeros(q_BXrH.shape, dtype), zeros_BXr + _FLOOR, zeros_BXr))
  sum_BXr = jnp.where(sum_BXr > 0, sum_BXr, 1)  # a query that sees nothing gives 0
  out_BXrH = (acc_BXrH / sum_BXr[..., None]).astype(q_BSNH.dtype)
  return _merge(out_BXrH, S, N, K, block), max_BXr * H**-0.5 + jnp.log(sum_BXr)


def _backward(_, residuals, dout_BSNH):
  q_BSNH, k_BSKH, v_BSKH, key_end_BS, plan, out_BSNH, lse_BXr = residuals
  S, N, H = q_BSNH.shape[1:]
  K, block = k_BSKH.shape[2], plan.major_block
  dtype = jnp.promote_types(jnp.float32, q_BSNH.dtype)
  q_BXrH, dout_BXrH, out_BXrH = (_split(x, K, block) for x in (q_BSNH, dout_BSNH, out_BSNH))
  k_BYcH, v_BYcH = _split(k_BSKH, K, block), _split(v_BSKH, K, block)
  # A barrier, or XLA swaps the axes back and transposes the weights.
  q_BXHr, dout_BXHr = jax.lax.optimization_barrier((q_BXrH.mT, dout_BXrH.mT))
  key_end_BJc = _blocks_of(key_end_BS, block)
  delta_BXr = (dout_BXrH.astype(dtype) * out_BXrH.astype(dtype)).sum(-1)

  def visit(p, grads):
    dq_BXrH, dk_BYHc, dv_BYHc = grads
    visit_B, x_B, y_B = _at(plan, p, K)
    k_BcH = _take(k_BYcH, y_B)
    scores_Brc = _scores(visit_B, _take(q_BXrH, x_B), k_BcH, key_end_BJc, dtype)
    weights_Brc = jnp.exp(scores_Brc * H**-0.5 - _take(lse_BXr, x_B)[..., None])
    dweights_Brc = jnp.einsum('brh,bch->brc', _take(dout_BXrH, x_B), _take(v_BYcH, y_B),
                              preferred_element_type=dtype)
    dscores_Brc = weights_Brc * (dweights_Brc - _take(delta_BXr, x_B)[..., None])
    weights_Brc, dscores_Brc = (x.astype(q_BSNH.dtype) for x in (weights_Brc, dscores_Brc))
    dq_BrH = jnp.einsum('brc,bch->brh', dscores_Brc, k_BcH, preferred_element_type=dtype)
    dk_BHc, dv_BHc = (
        jnp.einsum('bhr,brc->bhc', _take(x, x_B), y, preferred_element_type=dtype)
        for x, y in ((q_BXHr, dscores_Brc), (dout_BXHr, weights_Brc)))
    return (_put(dq_BXrH, x_B, _take(dq_BXrH, x_B) + dq_BrH),
            _put(dk_BYHc, y_B, _take(dk_BYHc, y_B) + dk_BHc),
            _put(dv_BYHc, y_B, _take(dv_BYHc, y_B) + dv_BHc))

  zeros_BYHc = jnp.zeros(k_BYcH.mT.shape, dtype)
  dq_BXrH, dk_BYHc, dv_BYHc = jax.lax.fori_loop(
      0, plan.count.max() * K, visit, (jnp.zeros(q_BXrH.shape, dtype), zeros_BYHc, zeros_BYHc))
  grads = (_merge(dq_BXrH * H**-0.5, S, N, K, block), _merge(dk_BYHc.mT * H**-0.5, S, K, K, block),
           _merge(dv_BYHc.mT, S, K, K, block))
  return tuple(x.astype(y.dtype) for x, y in zip(grads, (q_BSNH, k_BSKH, v_BSKH)))


def _at(plan, p, K):
  """The visits [B] of the loop's turn p, and where their blocks of its head are."""
  visit_B, head = plan.packed[:, p // K], p % K
  return visit_B, blocks.major(visit_B) * K + head, blocks.minor(visit_B) * K + head


def _scores(visit_B, q_BrH, k_BcH, key_end_BJc, dtype):
  """[B, r, c] of one pair of blocks per row, not yet scaled."""
  block = k_BcH.shape[1]

  def hide(scores_Brc):
    i_B, j_B = blocks.major(visit_B), blocks.minor(visit_B)
    offset_1c = jnp.arange(block, dtype=jnp.int32)[None]
    query_Br = i_B[:, None] * block + jnp.tile(offset_1c, q_BrH.shape[1] // block)
    key_Bc = j_B[:, None] * block + offset_1c
    # A row whose list has ended is shown its last visit again: nothing is seen then.
    end_Bc = jnp.where(blocks.has(visit_B, blocks.ACTIVE)[:, None], _take(key_end_BJc, j_B), 0)
    is_visible_Brc = masks.visible(query_Br[:, :, None], key_Bc[:, None], end_Bc[:, None])
    return jnp.where(is_visible_Brc, scores_Brc, _UNSEEN)

  scores_Brc = jnp.einsum('brh,bch->brc', q_BrH, k_BcH, preferred_element_type=dtype)
  return jax.lax.cond(blocks.has(visit_B, blocks.FULL).all(), lambda x: x, hide, scores_Brc)


def _blocks_of(x_BS, block):
  """[B, S, …] → [B, I, block, …], padded with zeros."""
  B, S = x_BS.shape[:2]
  padding = ((0, 0), (0, -S % block)) + ((0, 0),) * (x_BS.ndim - 2)
  return jnp.pad(x_BS, padding).reshape(B, -1, block, *x_BS.shape[2:])


def _split(x_BSNH, K, block):
  """[B, S, N, H] → [B, I * K, G * block, H]: a head group's queries share one product."""
  B, _, N, H = x_BSNH.shape
  x_BIcKGH = _blocks_of(x_BSNH.reshape(B, -1, K, N // K, H), block)
  return x_BIcKGH.transpose(0, 1, 3, 4, 2, 5).reshape(B, -1, N // K * block, H)


def _merge(x_BXrH, S, N, K, block):
  """The inverse of `_split`, without the padding."""
  B, _, _, H = x_BXrH.shape
  x_BIKGcH = x_BXrH.reshape(B, -1, K, N // K, block, H)
  return x_BIKGcH.transpose(0, 1, 4, 2, 3, 5).reshape(B, -1, N, H)[:, :S]


def _take(x_BX, x_B):
  return jax.vmap(lambda x_X, x: jax.lax.dynamic_index_in_dim(x_X, x, 0, keepdims=False))(x_BX, x_B)


def _put(x_BX, x_B, value_B):
  return jax.vmap(lambda x_X, x, value: jax.lax.dynamic_update_index_in_dim(x_X, value, x, 0))(
      x_BX, x_B, value_B)
