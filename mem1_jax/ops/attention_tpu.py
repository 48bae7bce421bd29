"""Interval attention for TPUs: Pallas flash attention over a list of blocks that see each other.

Flash attention (arXiv 2205.14135) with grouped queries. The grid walks the flat lists of
ops/blocks.py, which are prefetched into scalar memory: a visit brings one block of keys and
values to VMEM and serves all G query heads that share them. The mask is made in the kernel from
`key_end`; full blocks make none. Past the last visit of a row indices repeat, so nothing moves.

Three programs: output and log-sum-exp; dq (by query); dk and dv (by key). In the last the scores
lie transposed, keys along sublanes, so that no product transposes a block. The softmax is float32;
products of float32 inputs run at the highest precision.
"""

import functools
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from mem1_jax.arrays import Array
from mem1_jax.ops import blocks, flash, masks

_LANES = 128
_BLOCK = 512  # tokens; smaller ones lose to the grid's overhead
_LOWEST = -1e30  # finite: exp(_LOWEST - _LOWEST) is 1, not nan
_VMEM_BYTES = 96 * 2**20


def build_plan(key_end_BS: Array, block: int | None = None) -> blocks.Plan:
  """The visits of rows with these `key_end`s, in blocks of `block` tokens or what suits S."""
  if block is None:
    block = _BLOCK
    while block > _LANES and block > key_end_BS.shape[1] // 2:
      block //= 2
  return blocks.Plan(blocks.by_query(key_end_BS, block, block, visits_idle=True),
                     blocks.by_key(key_end_BS, block, block, visits_idle=True))


def attention_tpu(
    q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, key_end_BS: Array, plan: blocks.Plan,
    interpret: bool = False) -> Array:
  """As ops/attention.py, [B, S, N, H]; float32 or bfloat16.

  Args:
    plan: of `build_plan`.
    interpret: computes with XLA on any platform, for tests.

  Raises:
    NotImplementedError: another dtype, or blocks that the vector units do not fit.
  """
  if q_BSNH.dtype not in (jnp.float32, jnp.bfloat16):
    raise NotImplementedError(
        f'the TPU kernel computes in float32 or bfloat16, not {q_BSNH.dtype}; set model.dtype, or '
        "model.attention='chunked'")
  if plan.by_query.major_block % _LANES:
    raise NotImplementedError(f'the TPU kernel needs blocks of a multiple of {_LANES} tokens, not '
                              f'{plan.by_query.major_block}')
  B, S, N, H = q_BSNH.shape
  K = k_BSKH.shape[2]
  num_positions = plan.by_query.num_positions

  def split(x_BSNH):
    """[B, S, heads, H] → [B, K, heads / K, positions, H]."""
    x_BPNH = jnp.pad(x_BSNH, ((0, 0), (0, num_positions - S), (0, 0), (0, 0)))
    return x_BPNH.reshape(B, num_positions, K, -1, H).transpose(0, 2, 3, 1, 4)

  key_end_B1P = jnp.pad(key_end_BS, ((0, 0), (0, num_positions - S)))[:, None]
  out_BKGPH = flash.attend(
      _forward, _backward, (interpret,), split(q_BSNH), split(k_BSKH)[:, :, 0],
      split(v_BSKH)[:, :, 0], key_end_B1P, plan)
  return out_BKGPH.transpose(0, 3, 1, 2, 4).reshape(B, num_positions, N, H)[:, :S]


def _forward(static, q_BKGPH, k_BKPH, v_BKPH, key_end_B1P, plan):
  """Output [B, K, G, P, H], log-sum-exp [B, K, G, P]."""
  interpret, = static
  G, H, c = q_BKGPH.shape[2], q_BKGPH.shape[4], plan.by_query.major_block
  query, key = _by_query(G, H, c)
  return _call(
      functools.partial(_forward_kernel, H**-0.5), plan.by_query, q_BKGPH.shape[1], interpret,
      inputs=((q_BKGPH, query.heads), (k_BKPH, key.heads), (v_BKPH, key.heads),
              (key_end_B1P, key.ends)),
      outputs=((jax.ShapeDtypeStruct(q_BKGPH.shape, q_BKGPH.dtype), query.heads),
               (jax.ShapeDtypeStruct(q_BKGPH.shape[:-1], jnp.float32), query.sums)),
      scratch=((G, c, H), (G, c, _LANES), (G, c, _LANES)))


def _backward(static, residuals, dout_BKGPH):
  interpret, = static
  q_BKGPH, k_BKPH, v_BKPH, key_end_B1P, plan, out_BKGPH, lse_BKGP = residuals
  G, H, c = q_BKGPH.shape[2], q_BKGPH.shape[4], plan.by_query.major_block
  delta_BKGP = (dout_BKGPH.astype(jnp.float32) * out_BKGPH.astype(jnp.float32)).sum(-1)
  arrays = q_BKGPH, k_BKPH, v_BKPH, key_end_B1P, dout_BKGPH, lse_BKGP, delta_BKGP

  def inputs(query, key):
    specs = (query.heads, key.heads, key.heads, key.ends, query.heads, query.sums, query.sums)
    return tuple(zip(arrays, specs))

  query, key = _by_query(G, H, c)
  dq_BKGPH, = _call(
      functools.partial(_dq_kernel, H**-0.5), plan.by_query, q_BKGPH.shape[1], interpret,
      inputs=inputs(query, key),
      outputs=((jax.ShapeDtypeStruct(q_BKGPH.shape, q_BKGPH.dtype), query.heads),),
      scratch=((G, c, H), (G, c, _LANES), (G, c, _LANES)))
  query, key = _by_key(G, H, c)
  dk_BKPH, dv_BKPH = _call(
      functools.partial(_dkv_kernel, H**-0.5), plan.by_key, q_BKGPH.shape[1], interpret,
      inputs=inputs(query, key),
      outputs=tuple((jax.ShapeDtypeStruct(x.shape, x.dtype), key.heads) for x in (k_BKPH, v_BKPH)),
      scratch=((c, H), (c, H)))
  return dq_BKGPH, dk_BKPH, dv_BKPH


def _forward_kernel(scale, visits, q, k, v, key_end, out, lse, acc, highest, total):
  """Softmax as keys come by: `highest` and `total` are equal along lanes."""
  visit = visits[pl.program_id(0), pl.program_id(2)]

  @pl.when(blocks.has(visit, blocks.FIRST))
  def _():
    acc[...] = jnp.zeros_like(acc)
    highest[...] = jnp.full_like(highest, _LOWEST)
    total[...] = jnp.zeros_like(total)

  def see(is_visible_cd):
    for g in range(q.shape[0]):
      scores_cd = _dot(q[g], k[...], 1, 1)
      if is_visible_cd is not None:
        scores_cd = jnp.where(is_visible_cd, scores_cd, _LOWEST)
      old_c1 = highest[g, :, :1]
      new_c1 = jnp.maximum(old_c1, scores_cd.max(1, keepdims=True))
      # Scaled after the difference: what rounding does to large scores is not scaled with them.
      weights_cd = jnp.exp((scores_cd - new_c1) * scale)
      if is_visible_cd is not None:  # a query that has seen nothing yet has new = _LOWEST
        weights_cd = jnp.where(is_visible_cd, weights_cd, 0)
      shrink_c1 = jnp.exp((old_c1 - new_c1) * scale)
      total[g] = total[g] * shrink_c1 + weights_cd.sum(1, keepdims=True)
      highest[g] = jnp.broadcast_to(new_c1, highest.shape[1:])
      acc[g] = acc[g] * shrink_c1 + _dot(weights_cd.astype(v.dtype), v[...], 1, 0)

  _visit(visit, see, lambda: _mask_cd(visit, q.shape[1], key_end[...]))

  @pl.when(blocks.has(visit, blocks.LAST))
  def _():
    for g in range(q.shape[0]):
      seen_c1 = total[g, :, :1]
      seen_c1 = jnp.where(seen_c1 > 0, seen_c1, 1)  # a query that sees nothing gives 0
      out[g] = (acc[g] / seen_c1).astype(out.dtype)
      lse_cl = highest[g] * scale + jnp.log(jnp.where(total[g] > 0, total[g], 1))
      lse[g:g + 1] = lse_cl.T[:1]


def _dq_kernel(scale, visits, q, k, v, key_end, dout, lse, delta, dq, acc, lse_columns, deltas):
  visit = visits[pl.program_id(0), pl.program_id(2)]

  @pl.when(blocks.has(visit, blocks.FIRST))
  def _():
    acc[...] = jnp.zeros_like(acc)
    for g in range(q.shape[0]):
      lse_columns[g] = _column(lse[g:g + 1])
      deltas[g] = _column(delta[g:g + 1])

  def see(is_visible_cd):
    for g in range(q.shape[0]):
      scores_cd = _dot(q[g], k[...], 1, 1) * scale
      weights_cd = jnp.exp(scores_cd - lse_columns[g, :, :1])
      if is_visible_cd is not None:
        weights_cd = jnp.where(is_visible_cd, weights_cd, 0)
      dweights_cd = _dot(dout[g], v[...], 1, 1)
      dscores_cd = weights_cd * (dweights_cd - deltas[g, :, :1])
      acc[g] += _dot(dscores_cd.astype(k.dtype), k[...], 1, 0)

  _visit(visit, see, lambda: _mask_cd(visit, q.shape[1], key_end[...]))

  @pl.when(blocks.has(visit, blocks.LAST))
  def _():
    dq[...] = (acc[...] * scale).astype(dq.dtype)


def _dkv_kernel(scale, visits, q, k, v, key_end, dout, lse, delta, dk, dv, dk_acc, dv_acc):
  visit = visits[pl.program_id(0), pl.program_id(2)]

  @pl.when(blocks.has(visit, blocks.FIRST))
  def _():
    dk_acc[...] = jnp.zeros_like(dk_acc)
    dv_acc[...] = jnp.zeros_like(dv_acc)

  def see(is_visible_dc):
    for g in range(q.shape[0]):
      scores_dc = _dot(k[...], q[g], 1, 1) * scale
      weights_dc = jnp.exp(scores_dc - lse[g:g + 1])
      if is_visible_dc is not None:
        weights_dc = jnp.where(is_visible_dc, weights_dc, 0)
      dv_acc[...] += _dot(weights_dc.astype(dout.dtype), dout[g], 1, 0)
      dweights_dc = _dot(v[...], dout[g], 1, 1)
      dscores_dc = weights_dc * (dweights_dc - delta[g:g + 1])
      dk_acc[...] += _dot(dscores_dc.astype(q.dtype), q[g], 1, 0)

  def mask_dc():
    key_end_d1 = _column(key_end[...])[:, :1]
    shape_dc = key_end_d1.shape[0], q.shape[1]
    return _visible(blocks.minor(visit), 1, blocks.major(visit), 0, key_end_d1, shape_dc)

  _visit(visit, see, mask_dc)

  @pl.when(blocks.has(visit, blocks.LAST))
  def _():
    dk[...] = (dk_acc[...] * scale).astype(dk.dtype)
    dv[...] = dv_acc[...].astype(dv.dtype)


def _visit(visit, see, mask):
  """Lets `see` add what the visited pair of blocks gives: with a mask only where there are gaps."""
  is_full = blocks.has(visit, blocks.FULL)
  pl.when(is_full)(lambda: see(None))
  pl.when(blocks.has(visit, blocks.ACTIVE) & ~is_full)(lambda: see(mask()))


def _mask_cd(visit, num_queries, key_end_1d):
  shape_cd = num_queries, key_end_1d.shape[1]
  return _visible(blocks.major(visit), 0, blocks.minor(visit), 1, key_end_1d, shape_cd)


def _visible(query_block, query_axis, key_block, key_axis, key_end, shape):
  """The rule inside one pair of blocks, bool of `shape`; `key_end` broadcasts to it."""
  def index(block, axis):
    return block * shape[axis] + jax.lax.broadcasted_iota(jnp.int32, shape, axis)

  return masks.visible(index(query_block, query_axis), index(key_block, key_axis), key_end)


def _column(x_1d: Array) -> Array:
  """[1, d] along lanes → [d, lanes], equal along lanes."""
  return jnp.broadcast_to(x_1d, (_LANES, x_1d.shape[1])).T


def _dot(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
  """Product in float32, of float32 at full precision, summed over an axis of each."""
  precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
  return jax.lax.dot_general(
      x, y, (((x_axis,), (y_axis,)), ((), ())), precision=precision,
      preferred_element_type=jnp.float32)


class _Specs(NamedTuple):
  """The block of a visit in arrays of each form."""

  heads: pl.BlockSpec  # [B, K, (G,) P, H]
  sums: pl.BlockSpec  # [B, K, G, P]
  ends: pl.BlockSpec  # [B, 1, P]


def _by_query(G, H, block):
  """Specs of queries and of keys where visits are ordered by query."""
  return _specs((G, block), H, blocks.major), _specs((block,), H, blocks.minor)


def _by_key(G, H, block):
  return _specs((G, block), H, blocks.minor), _specs((block,), H, blocks.major)


def _specs(shape, H, block):
  """Of arrays with `shape` = ([G,] tokens) in a block, whose number `block` reads of a visit."""
  group = (0,) * (len(shape) - 1)

  def at(b, v, visits):
    return block(visits[b, v])

  return _Specs(
      pl.BlockSpec((None, None, *shape, H), lambda b, k, v, n: (b, k, *group, at(b, v, n), 0)),
      pl.BlockSpec((None, None, *shape), lambda b, k, v, n: (b, k, *group, at(b, v, n))),
      pl.BlockSpec((None, 1, shape[-1]), lambda b, k, v, n: (b, 0, at(b, v, n))))


def _call(kernel, visits, num_kv_heads, interpret, inputs, outputs, scratch):
  """Runs `kernel` at every visit of every row and kv head."""
  arrays, in_specs = zip(*inputs)
  out_shapes, out_specs = zip(*outputs)
  return pl.pallas_call(
      kernel,
      grid_spec=pltpu.PrefetchScalarGridSpec(
          num_scalar_prefetch=1,
          # As many visits as the busiest row has, known at run time only.
          grid=(visits.packed.shape[0], num_kv_heads, visits.count.max()),
          in_specs=in_specs, out_specs=out_specs,
          scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch]),
      out_shape=out_shapes,
      compiler_params=pltpu.CompilerParams(
          dimension_semantics=('parallel', 'parallel', 'arbitrary'),
          vmem_limit_bytes=_VMEM_BYTES),
      interpret=interpret,
  )(visits.packed, *arrays)
