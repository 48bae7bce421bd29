"""Interval attention for NVIDIA GPUs: Pallas flash attention, compiled by Triton.

Flash attention (arXiv 2205.14135) with grouped queries. A program of the grid owns one block of
queries (of keys, for their gradients) of one head and loops over its visits of ops/blocks.py:
first the full ones, which need no mask, then the others, whose mask is made from `key_end`.

Three programs: output and log-sum-exp; dq; dk and dv, which sums over the G query heads of a kv
head. The softmax is float32, in powers of two; products of float32 inputs are not rounded to tf32.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import blocks, flash, masks

_LOWEST = -1e30  # finite: exp2(_LOWEST - _LOWEST) is 1, not nan
_LOG2_E = math.log2(math.e)
# Tokens. What a program owns stays in registers; what it visits streams through them.
_OWNED, _VISITED = 128, 64


def build_plan(key_end_BS: Array, owned: int = _OWNED, visited: int = _VISITED) -> blocks.Plan:
  """The visits of rows with these `key_end`s, from blocks that are powers of two ≥ 16."""
  return blocks.Plan(blocks.by_query(key_end_BS, owned, visited, visits_idle=False),
                     blocks.by_key(key_end_BS, visited, owned, visits_idle=False))


def attention_gpu(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, plan: blocks.Plan,
    interpret: bool = False) -> Array:
  """As ops/attention.py, [B, S, N, H]; float32, bfloat16 or float16.

  Args:
    plan: of `build_plan`.
    interpret: computes with XLA on any platform, for tests.

  Raises:
    NotImplementedError: another dtype.
  """
  if q_BSNH.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
    raise NotImplementedError(
        f'the GPU kernel computes in float32, bfloat16 or float16, not {q_BSNH.dtype}; set '
        "model.dtype, or model.attention='chunked'")
  S, H = q_BSNH.shape[1], q_BSNH.shape[3]
  num_positions = plan.by_query.num_positions
  width = max(16, pl.next_power_of_2(H))  # of a block in registers

  def pad(x_BSNH):
    return jnp.pad(x_BSNH, ((0, 0), (0, num_positions - S), (0, 0), (0, width - H)))

  key_end_BP = jnp.pad(key_end_BS, ((0, 0), (0, num_positions - S)))
  out_BPNW = flash.attend(
      _forward, _backward, (interpret, H**-0.5), pad(q_BSNH), pad(k_BSKH), pad(v_BSKH), key_end_BP,
      plan)
  return out_BPNW[:, :S, :, :H]


def _forward(static, q_BPNH, k_BPKH, v_BPKH, key_end_BP, plan):
  """Output [B, P, N, H], log-sum-exp [B, N, P] in powers of two."""
  interpret, scale = static
  B, P, N, H = q_BPNH.shape
  own, row = _own(plan.by_query.major_block, H), _row(P, H, N // k_BPKH.shape[2])
  return _call(
      functools.partial(_forward_kernel, scale), plan.by_query, N, interpret,
      inputs=((q_BPNH, own.heads), (k_BPKH, row.kv), (v_BPKH, row.kv), (key_end_BP, row.ends)),
      outputs=((jax.ShapeDtypeStruct(q_BPNH.shape, q_BPNH.dtype), own.heads),
               (jax.ShapeDtypeStruct((B, N, P), jnp.float32), own.sums)))


def _backward(static, residuals, dout_BPNH):
  interpret, scale = static
  q_BPNH, k_BPKH, v_BPKH, key_end_BP, plan, out_BPNH, lse_BNP = residuals
  P, N, H = q_BPNH.shape[1:]
  K = k_BPKH.shape[2]
  delta_BNP = (dout_BPNH.astype(jnp.float32) * out_BPNH.astype(jnp.float32)).sum(-1).mT
  own, row = _own(plan.by_query.major_block, H), _row(P, H, N // K)
  dq_BPNH, = _call(
      functools.partial(_dq_kernel, scale), plan.by_query, N, interpret,
      inputs=((q_BPNH, own.heads), (k_BPKH, row.kv), (v_BPKH, row.kv), (key_end_BP, row.ends),
              (dout_BPNH, own.heads), (lse_BNP, own.sums), (delta_BNP, own.sums)),
      outputs=((jax.ShapeDtypeStruct(q_BPNH.shape, q_BPNH.dtype), own.heads),))
  own = _own(plan.by_key.major_block, H)
  dk_BPKH, dv_BPKH = _call(
      functools.partial(_dkv_kernel, scale), plan.by_key, K, interpret,
      inputs=((q_BPNH, row.group), (k_BPKH, own.heads), (v_BPKH, own.heads),
              (key_end_BP, own.ends), (dout_BPNH, row.group), (lse_BNP, row.group_sums),
              (delta_BNP, row.group_sums)),
      outputs=tuple((jax.ShapeDtypeStruct(x.shape, x.dtype), own.heads)
                    for x in (k_BPKH, v_BPKH)))
  return dq_BPNH, dk_BPKH, dv_BPKH


def _forward_kernel(scale, visited, visits, q, k, v, key_end, out, lse):
  own, i = q.shape[0], pl.program_id(0)
  q_cH = q[...]

  def see(state, visit, g, is_full):
    acc_cH, highest_c, total_c = state
    at = _at(visit, visited)
    scores_cd = _dot(q_cH, k[at, :], 1, 1)
    if not is_full:
      is_visible_cd = masks.visible(
          _index(i, own)[:, None], _index(blocks.minor(visit), visited)[None], key_end[at][None])
      scores_cd = jnp.where(is_visible_cd, scores_cd, _LOWEST)
    new_c = jnp.maximum(highest_c, scores_cd.max(1))
    # Scaled after the difference: what rounding does to large scores is not scaled with them.
    weights_cd = jnp.exp2((scores_cd - new_c[:, None]) * (scale * _LOG2_E))
    if not is_full:  # a query that has seen nothing yet has new = _LOWEST
      weights_cd = jnp.where(is_visible_cd, weights_cd, 0)
    shrink_c = jnp.exp2((highest_c - new_c) * (scale * _LOG2_E))
    acc_cH = acc_cH * shrink_c[:, None] + _dot(weights_cd.astype(v.dtype), v[at, :], 1, 0)
    return acc_cH, new_c, total_c * shrink_c + weights_cd.sum(1)

  zeros_c = jnp.zeros((own,), jnp.float32)
  state = jnp.zeros(q.shape, jnp.float32), zeros_c + _LOWEST, zeros_c
  acc_cH, highest_c, total_c = _each_visit(visits, 1, state, see)
  total_c = jnp.where(total_c > 0, total_c, 1)  # a query that sees nothing gives 0
  out[...] = (acc_cH / total_c[:, None]).astype(out.dtype)
  lse[...] = highest_c * (scale * _LOG2_E) + jnp.log2(total_c)


def _dq_kernel(scale, visited, visits, q, k, v, key_end, dout, lse, delta, dq):
  own, i = q.shape[0], pl.program_id(0)
  q_cH, dout_cH, lse_c1, delta_c1 = q[...], dout[...], lse[...][:, None], delta[...][:, None]

  def see(dq_cH, visit, g, is_full):
    at = _at(visit, visited)
    k_dH = k[at, :]
    weights_cd = jnp.exp2(_dot(q_cH, k_dH, 1, 1) * (scale * _LOG2_E) - lse_c1)
    if not is_full:
      weights_cd = jnp.where(masks.visible(
          _index(i, own)[:, None], _index(blocks.minor(visit), visited)[None],
          key_end[at][None]), weights_cd, 0)
    dscores_cd = weights_cd * (_dot(dout_cH, v[at, :], 1, 1) - delta_c1)
    return dq_cH + _dot(dscores_cd.astype(k.dtype), k_dH, 1, 0)

  dq_cH = _each_visit(visits, 1, jnp.zeros(q.shape, jnp.float32), see)
  dq[...] = (dq_cH * scale).astype(dq.dtype)


def _dkv_kernel(scale, visited, visits, q, k, v, key_end, dout, lse, delta, dk, dv):
  own, j = k.shape[0], pl.program_id(0)
  k_dH, v_dH, key_end_d1 = k[...], v[...], key_end[...][:, None]

  def see(grads, visit, g, is_full):
    dk_dH, dv_dH = grads
    at = _at(visit, visited)
    q_cH, dout_cH = q[at, g, :], dout[at, g, :]
    weights_dc = jnp.exp2(_dot(k_dH, q_cH, 1, 1) * (scale * _LOG2_E) - lse[g, at][None])
    if not is_full:
      weights_dc = jnp.where(masks.visible(
          _index(blocks.minor(visit), visited)[None], _index(j, own)[:, None], key_end_d1),
          weights_dc, 0)
    dscores_dc = weights_dc * (_dot(v_dH, dout_cH, 1, 1) - delta[g, at][None])
    return (dk_dH + _dot(dscores_dc.astype(q.dtype), q_cH, 1, 0),
            dv_dH + _dot(weights_dc.astype(dout.dtype), dout_cH, 1, 0))

  zeros_dH = jnp.zeros(k.shape, jnp.float32)
  dk_dH, dv_dH = _each_visit(visits, q.shape[1], (zeros_dH, zeros_dH), see)
  dk[...] = (dk_dH * scale).astype(dk.dtype)
  dv[...] = dv_dH.astype(dv.dtype)


class _Visits(NamedTuple):
  """A row's list in a kernel."""

  packed: Any  # [V] int32
  begin: Any  # [majors + 1] int32
  num_full: Any  # [majors] int32


def _each_visit(visits, num_heads, state, see):
  """state = see(state, visit, g, is_full) at each visit of this program, for each g < num_heads.

  One loop of full visits, one of the others: flat ones, which the compiler pipelines.
  """
  i = pl.program_id(0)
  begin, num_full = visits.begin[i], visits.num_full[i]
  num_visits = visits.begin[i + 1] - begin

  def loop(state, begin, num, is_full):
    def step(n, state):
      g = jax.lax.div(n, jnp.maximum(num, 1))
      return see(state, visits.packed[begin + n - g * num], g, is_full)
    return jax.lax.fori_loop(0, num * num_heads, step, state)

  state = loop(state, begin, num_full, True)
  return loop(state, begin + num_full, num_visits - num_full, False)


def _at(visit, block):
  """Where the visited block's tokens are in the row."""
  return pl.ds(blocks.minor(visit) * block, block)


def _index(number, block):
  """Row indices of the tokens of a block, [block]."""
  return number * block + jnp.arange(block, dtype=jnp.int32)


def _dot(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
  """Product in float32, of float32 without rounding to tf32, summed over an axis of each."""
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return jax.lax.dot_general(
      x, y, (((x_axis,), (y_axis,)), ((), ())), precision=precision,
      preferred_element_type=jnp.float32)


class _Own(NamedTuple):
  """The block that a program owns, in arrays of each form."""

  heads: pl.BlockSpec  # [B, P, heads, H]
  sums: pl.BlockSpec  # [B, heads, P]
  ends: pl.BlockSpec  # [B, P]


def _own(block, H):
  return _Own(pl.BlockSpec((None, block, None, H), lambda i, n, b: (b, i, n, 0)),
              pl.BlockSpec((None, None, block), lambda i, n, b: (b, n, i)),
              pl.BlockSpec((None, block), lambda i, n, b: (b, i)))


class _Row(NamedTuple):
  """Whole rows, which a program reads where it visits them."""

  kv: pl.BlockSpec  # [B, P, K, H], of the kv head that a query head reads
  ends: pl.BlockSpec  # [B, P]
  group: pl.BlockSpec  # [B, P, N, H], of the query heads that read a kv head
  group_sums: pl.BlockSpec  # [B, N, P]


def _row(P, H, G):
  return _Row(pl.BlockSpec((None, P, None, H), lambda i, n, b: (b, 0, jax.lax.div(n, G), 0)),
              pl.BlockSpec((None, P), lambda i, n, b: (b, 0)),
              pl.BlockSpec((None, P, G, H), lambda i, k, b: (b, 0, k, 0)),
              pl.BlockSpec((None, G, P), lambda i, k, b: (b, k, 0)))


def _call(kernel, visits, num_heads, interpret, inputs, outputs):
  """Runs `kernel` for every major block of every head and row."""
  lists = visits.packed, visits.begin, visits.num_full
  B, num_blocks = visits.num_full.shape
  arrays, in_specs = zip(*inputs)
  out_shapes, out_specs = zip(*outputs)
  list_specs = tuple(pl.BlockSpec((None, x.shape[1]), lambda i, n, b: (b, 0)) for x in lists)
  return pl.pallas_call(
      lambda packed, begin, num_full, *refs: kernel(
          visits.minor_block, _Visits(packed, begin, num_full), *refs),
      grid=(num_blocks, num_heads, B),
      in_specs=list_specs + in_specs, out_specs=out_specs, out_shape=out_shapes,
      compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
      interpret=interpret,
  )(*lists, *arrays)
