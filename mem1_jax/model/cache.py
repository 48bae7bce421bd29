"""The key/value cache: fixed shapes, rows of different lengths, cost by what is live.

Layers only read the cache, and hand out the keys and values of their new tokens; one write per
step stores those of all layers. So no loop carries the cache but the caller's, which XLA updates
in place, and a step costs what is live, not what is allocated.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mem1_jax.arrays import Array, KVCache
from mem1_jax.model.config import ModelConfig
from mem1_jax.ops import masks
from mem1_jax.parallel import sharding

BLOCK = 64
_PARTS = 1, 2, 4, 8  # of the rows: what further blocks are read for
LOGICAL_AXES = KVCache(
    k=('layers', 'batch', 'length', 'kv_heads'), v=('layers', 'batch', 'length', 'kv_heads'),
    length=('batch',))
_LOWEST = -1e30  # finite: exp(_LOWEST - _LOWEST) is 1, not nan


def init_cache(config: ModelConfig, batch: int, capacity: int) -> KVCache:
  """An empty cache of `batch` rows with room for `capacity` tokens each."""
  shape = (config.num_layers, batch, capacity, config.num_kv_heads * config.head_dim)
  return KVCache(
      k=jnp.zeros(shape, config.dtype), v=jnp.zeros(shape, config.dtype),
      length=jnp.zeros((batch,), jnp.int32))


def shardings(mesh: jax.sharding.Mesh, cache: KVCache, num_kv_heads: int) -> KVCache:
  """Where the arrays of `cache`, or of its shapes, lie on a mesh: whole heads on each device."""
  heads = sharding.named(mesh, LOGICAL_AXES.k, (*cache.k.shape[:3], num_kv_heads))
  return KVCache(heads, heads, sharding.named(mesh, LOGICAL_AXES.length, cache.length.shape))


def _specs(mesh, cache, num_kv_heads):
  return jax.tree.map(lambda x: x.spec, shardings(mesh, cache, num_kv_heads))


def write(cache: KVCache, k_LBTKH: Array, v_LBTKH: Array, num_tokens_B: Array) -> KVCache:
  """The cache with row b's T tokens at indices length[b]…, its length num_tokens[b] more.

  Tokens that would pass the capacity M are dropped.

  Raises:
    ValueError: T > M.
  """
  M, (*_, T, K, _) = cache.k.shape[2], k_LBTKH.shape
  if T > M:
    raise ValueError(f'{T} tokens do not fit a cache of {M}: extend in chunks of at most {M}')
  tokens = (x.astype(cache.k.dtype).reshape(*x.shape[:3], -1) for x in (k_LBTKH, v_LBTKH))
  inputs = ((cache.k, cache.v), cache.length, tuple(tokens))
  mesh = jax.sharding.get_abstract_mesh()
  write_rows = _write
  if mesh.size > 1:
    lies = _specs(mesh, cache, K)
    write_rows = jax.shard_map(
        _write, in_specs=((lies.k, lies.v), lies.length, (lies.k, lies.v)),
        out_specs=(lies.k, lies.v), check_vma=False)
  return KVCache(*write_rows(*inputs), cache.length + num_tokens_B.astype(jnp.int32))


def _write(kv, length_B, new):
  """Row by row, in place: for a scatter a TPU would copy the cache to another layout and back."""
  L, B, M, E = kv[0].shape
  T = new[0].shape[2]
  padded = [jnp.pad(x_LBTE, ((0, 0), (0, 0), (T, 0), (0, 0))) for x_LBTE in new]

  def row(b, kv):
    # A window of T indices that stays inside the row: what it holds before `length` is kept.
    start = jnp.minimum(length_B[b], M - T)
    shift = length_B[b] - start
    is_new_T = jnp.arange(T, dtype=jnp.int32) >= shift
    at, shape = _index(0, b, start, 0), (L, 1, T, E)

    def one(x_LBME, new_LBtE):
      new_L1TE = jax.lax.dynamic_slice(new_LBtE, _index(0, b, T - shift, 0), shape)
      window_L1TE = jnp.where(is_new_T[None, None, :, None], new_L1TE,
                              jax.lax.dynamic_slice(x_LBME, at, shape))
      return jax.lax.dynamic_update_slice(x_LBME, window_L1TE, at)

    return tuple(map(one, kv, padded))

  return jax.lax.fori_loop(0, B, row, kv)


def _index(*numbers):
  return tuple(jnp.int32(number) for number in numbers)  # of one type in float64, too


def copy(
    source: KVCache, source_row: Array | None, target: KVCache, target_row: Array) -> KVCache:
  """`target` with live tokens of `source` in some of its rows; on one device.

  Args:
    source: its `length` [g] is that of the rows taken.
    source_row: [g]; None for all rows, in order.
    target_row: [g], where they go; nowhere where the target has no such row.
  """
  L, num_rows, M, E = target.k.shape
  size = min(source.k.shape[2], M)
  block = min(BLOCK, size)
  if source_row is None:
    source_row = jnp.arange(target_row.shape[0], dtype=jnp.int32)
  num_blocks_g = jnp.where(target_row < num_rows, -(-source.length // block), 0)

  def row(j, kv):
    def visit(i, kv):
      start = jnp.minimum(i * block, size - block)  # the last block may be moved back

      def one(to_LBME, from_LBME):
        new = jax.lax.dynamic_slice(
            from_LBME, _index(0, source_row[j], start, 0), (L, 1, block, E))
        return jax.lax.dynamic_update_slice(to_LBME, new, _index(0, target_row[j], start, 0))

      return tuple(map(one, kv, (source.k, source.v)))

    return jax.lax.fori_loop(0, num_blocks_g[j], visit, kv)

  k, v = jax.lax.fori_loop(0, target_row.shape[0], row, (target.k, target.v))
  return KVCache(k, v, target.length.at[target_row].set(source.length, mode='drop'))


def attend(q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, cache: KVCache, layer: Array,
           takes_rows: bool = True) -> Array:
  """Attention of T new tokens to a layer's cached tokens and, causally, to each other.

  Loops over blocks of the cache with the online softmax in float32 (float64 for float64). Each
  group of devices that has rows, or heads, of its own computes them without hearing of the others.

  Args:
    takes_rows: whether blocks of some rows alone may be read, where few rows reach so far. Not on a
      TPU, whose compiler would copy the cache to another layout for it.

  Returns:
    [B, T, N, H] in the dtype of q.
  """
  mesh = jax.sharding.get_abstract_mesh()
  on_device = functools.partial(_attend, takes_rows=takes_rows)
  if mesh.size <= 1:
    return on_device(q_BTNH, k_BTKH, v_BTKH, cache, layer)
  lies = _specs(mesh, cache, k_BTKH.shape[2])
  tokens = PartitionSpec(lies.k[1], None, lies.k[3], None)
  return jax.shard_map(
      on_device, in_specs=(tokens, tokens, tokens, lies, PartitionSpec()), out_specs=tokens,
      check_vma=False)(q_BTNH, k_BTKH, v_BTKH, cache, layer)


def _attend(q_BTNH, k_BTKH, v_BTKH, cache, layer, takes_rows):
  """`attend` on one device.

  A single new token's heads share one product over keys as they lie in memory, zeros where a head
  meets another group's: reading them is what costs then.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BTKH.shape[2]
  if T > 1:
    return _over_blocks(q_BTNH, k_BTKH, v_BTKH, cache, layer, H**-0.5, (B,))
  own_1K1K1 = jnp.eye(K, dtype=q_BTNH.dtype)[None, :, None, :, None]
  q_BKGKH = q_BTNH.reshape(B, K, N // K, 1, H) * own_1K1K1
  out_BTND = _over_blocks(
      q_BKGKH.reshape(B, T, N, K * H), k_BTKH, v_BTKH, cache, layer, H**-0.5,
      _row_counts(B) if takes_rows else (B,))
  out_BKGKH = out_BTND.reshape(B, K, N // K, K, H) * own_1K1K1
  return out_BKGKH.sum(3).reshape(B, T, N, H)


def _over_blocks(q_BTNH, k_BTKH, v_BTKH, cache, layer, scale, sizes):
  """`_attend` with heads of the width of q: as many make up those of k and v side by side.

  The blocks that most rows reach into are read for all B rows, further ones for the longest of them
  alone, as many as `sizes` has next: so cost follows what is live.
  """
  B, T, N, H = q_BTNH.shape
  M, K = cache.k.shape[2], math.prod(k_BTKH.shape[2:]) // H
  k_BTKH, v_BTKH = (x.reshape(B, T, K, H) for x in (k_BTKH, v_BTKH))
  block = min(BLOCK, M)
  dtype = jnp.promote_types(jnp.float32, q_BTNH.dtype)
  # Scaling queries rounds less and costs less than scaling scores, but not in bfloat16.
  query_scale, score_scale = (scale, 1.0) if q_BTNH.dtype == dtype else (1.0, scale)
  q_BTKGH = (q_BTNH * query_scale).reshape(B, T, K, N // K, H)
  q_BKrH = q_BTKGH.transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)

  def read(x_LBME, start, rows_b):
    if rows_b is None:
      x_bcE = jax.lax.dynamic_slice(x_LBME, _index(layer, 0, start, 0), (1, B, block, K * H))
    else:
      index = jnp.stack([jnp.full_like(rows_b, layer), rows_b, jnp.full_like(rows_b, start)], -1)
      x_bcE = jax.lax.gather(
          x_LBME, index, jax.lax.GatherDimensionNumbers(
              offset_dims=(1, 2), collapsed_slice_dims=(0, 1), start_index_map=(0, 1, 2)),
          slice_sizes=(1, 1, block, K * H), mode='promise_in_bounds')
    return x_bcE.reshape(-1, block, K, H)

  def visit(q_bKrH, length_b, rows_b, i, state):
    # The last block is moved back to stay inside M; what the previous one covered is masked.
    start = jnp.minimum(i * block, M - block)
    key_1c = (start + jnp.arange(block, dtype=jnp.int32))[None]
    mask_b1c = ((key_1c < length_b[:, None]) & (key_1c >= i * block))[:, None]
    k_bcKH, v_bcKH = (read(x, start, rows_b) for x in (cache.k, cache.v))
    return _accumulate(state, q_bKrH, k_bcKH, v_bcKH, mask_b1c, score_scale)

  zeros_BKr = jnp.zeros(q_BKrH.shape[:-1], dtype)
  state = jnp.zeros(q_BKrH.shape, dtype), zeros_BKr + _LOWEST, zeros_BKr
  order_B = jnp.argsort(-cache.length).astype(jnp.int32)
  blocks_B = (jnp.minimum(cache.length[order_B], M) + block - 1) // block  # falling
  begin = 0
  for size, fewer in zip(sizes, (*sizes[1:], 0)):
    rows_b = order_B[:size] if size < B else None
    of = (lambda x: x) if rows_b is None else (lambda x: x[rows_b])  # noqa: B023
    end = blocks_B[fewer]
    new = jax.lax.fori_loop(begin, end, functools.partial(
        visit, of(q_BKrH), of(cache.length), rows_b), jax.tree.map(of, state))
    state = new if rows_b is None else jax.tree.map(
        lambda x, y: x.at[rows_b].set(y), state, new)  # noqa: B023
    begin = end
  index_T = jnp.arange(T, dtype=jnp.int32)
  is_causal_TT = masks.visible(index_T[:, None], index_T[None, :], jnp.int32(T))
  acc_BKrH, _, sum_BKr = _accumulate(
      state, q_BKrH, k_BTKH, v_BTKH, jnp.tile(is_causal_TT, (N // K, 1))[None], score_scale)
  out_BKGTH = (acc_BKrH / sum_BKr[..., None]).reshape(B, K, N // K, T, H)
  return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H).astype(q_BTNH.dtype)


def _row_counts(num_rows: int) -> tuple[int, ...]:
  """All rows, half of them, …: falling, down to an eighth."""
  return tuple(dict.fromkeys(max(1, num_rows // part) for part in _PARTS))


def _accumulate(state, q_BKrH, k_BcKH, v_BcKH, mask_Brc, scale):
  """One step of the online softmax (arXiv 1805.02867) over keys c."""
  acc_BKrH, max_BKr, sum_BKr = state
  # Keys as the left factor: XLA for CPUs would transpose the right one, which costs more than
  # the product where rows are few.
  scores_BKcr = jax.lax.dot_general(
      k_BcKH, q_BKrH, (((3,), (3,)), ((0, 2), (0, 1))), preferred_element_type=max_BKr.dtype)
  scores_BKrc = scores_BKcr.swapaxes(2, 3) * scale
  mask_B1rc = mask_Brc[:, None]
  scores_BKrc = jnp.where(mask_B1rc, scores_BKrc, _LOWEST)
  new_max_BKr = jnp.maximum(max_BKr, scores_BKrc.max(-1))
  weights_BKrc = jnp.where(mask_B1rc, jnp.exp(scores_BKrc - new_max_BKr[..., None]), 0)
  shrink_BKr = jnp.exp(max_BKr - new_max_BKr)
  new_acc_BKrH = acc_BKrH * shrink_BKr[..., None] + jnp.einsum(
      'bkrc,bckh->bkrh', weights_BKrc.astype(v_BcKH.dtype), v_BcKH,
      preferred_element_type=max_BKr.dtype)
  return new_acc_BKrH, new_max_BKr, sum_BKr * shrink_BKr + weights_BKrc.sum(-1)
