"""Which blocks of a packed row see which: listed once per batch, on the device, for every layer.

Rows are cut into blocks of queries and blocks of keys. A pair of blocks is

    active   some query sees some key
    full     every query sees every key: no mask is needed inside

by ops/masks.py, to the pair. A row of a question (3 tokens), two turns of 3 and padding, in
blocks of 2; 'F' full, 'x' active, '.' neither, a row of the drawing is a block of queries:

    tokens  qq qa aa bb b- --
         qq  x  .  .  .  .  .
         qa  F  x  .  .  .  .
         aa  F  F  x  .  .  .
         bb  F  x  .  x  .  .
         b-  x  x  .  x  x  .
         --  .  .  .  .  .  .

A list is flat, so that a kernel walks it along one grid axis. It is ordered by query block for the
forward pass, by key block for gradients of keys and values. The full visits of a block come before
its others, so that a loop over either kind needs no branch. One visit is one int32:

    bits 18-30 the block that the list is ordered by, 17 not full, 4-16 the other, 0-3 flags
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import Array, pytree

ACTIVE, FULL, FIRST, LAST = 1, 2, 4, 8  # FIRST, LAST: of the visits of a major block
_FLAGS = np.int32(15)
_MINOR_SHIFT, _PARTIAL, _MAJOR_SHIFT = 4, 1 << 17, 18
_MAX_BLOCKS = 2**13 - 1
_NO_VISIT = np.int32(2**31 - 1)


@pytree
class Visits:
  """All visits of each row: the major blocks in order, each one's full ones first.

  Past the last visit its blocks are repeated without flags: a kernel that goes on moves no memory
  and computes nothing.
  """

  packed: Array  # [B, V] int32
  begin: Array  # [B, majors + 1] int32; packed[begin[i]:begin[i + 1]] are those of block i
  num_full: Array  # [B, majors] int32; so many of them, the first, are full
  major_block: int = dataclasses.field(metadata={'static': True})  # tokens
  minor_block: int = dataclasses.field(metadata={'static': True})  # tokens

  @property
  def count(self) -> Array:
    """[B] int32, visits of each row."""
    return self.begin[:, -1]

  @property
  def num_positions(self) -> int:
    """The row's length, padded to whole blocks of either kind."""
    return self.major_block * self.num_full.shape[1]


@pytree
class Plan:
  """What the layers of a model share: visits in the order of each pass."""

  by_query: Visits
  by_key: Visits


def major(visit: Array) -> Array:
  """The block that the list is ordered by."""
  return jax.lax.shift_right_logical(visit, np.int32(_MAJOR_SHIFT))


def minor(visit: Array) -> Array:
  """The other block."""
  return jax.lax.shift_right_logical(visit, np.int32(_MINOR_SHIFT)) & np.int32(_MAX_BLOCKS)


def has(visit: Array, flag: int) -> Array:
  """Whether the visit carries a flag."""
  return (visit & np.int32(flag)) != 0


def by_query(key_end_BS: Array, query_block: int, key_block: int, *, visits_idle: bool) -> Visits:
  """For each block of queries the blocks of keys that it sees.

  Args:
    key_end_BS: int32, first row index that cannot see this token; 0 for padding. Rows are padded
      to whole blocks of both kinds.
    visits_idle: whether a block of queries that sees nothing is visited once all the same, without
      ACTIVE, so that a kernel can write its zeros.

  Raises:
    ValueError: a row has too many blocks.
  """
  is_active_BIJ, is_full_BIJ, is_causal_IJ = _pairs(key_end_BS, query_block, key_block)
  return _visits(is_active_BIJ, is_full_BIJ, is_causal_IJ, query_block, key_block, visits_idle)


def by_key(key_end_BS: Array, query_block: int, key_block: int, *, visits_idle: bool) -> Visits:
  """For each block of keys the blocks of queries that see it; otherwise as `by_query`."""
  is_active_BIJ, is_full_BIJ, is_causal_IJ = _pairs(key_end_BS, query_block, key_block)
  return _visits(is_active_BIJ.mT, is_full_BIJ.mT, is_causal_IJ.T, key_block, query_block,
                 visits_idle)


def _pairs(key_end_BS, query_block, key_block):
  """(is_active [B, I, J], is_full [B, I, J], is_causal [I, J]) of all pairs of blocks."""
  B, S = key_end_BS.shape
  unit, whole = math.gcd(query_block, key_block), math.lcm(query_block, key_block)
  num_positions = -(-S // whole) * whole
  num_units = num_positions // unit
  if num_positions // min(query_block, key_block) > _MAX_BLOCKS:
    raise ValueError(f'rows of {S} positions have more than {_MAX_BLOCKS} blocks of {query_block} '
                     f'queries or {key_block} keys; use larger blocks')
  index_P = jnp.arange(num_positions, dtype=jnp.int32)
  key_end_BP = jnp.pad(key_end_BS, ((0, 0), (0, num_positions - S)))
  # A key that ends at itself or before is seen by nobody.
  key_end_BUu = jnp.where(key_end_BP > index_P[None], key_end_BP, 0).reshape(B, num_units, unit)
  unit_U = np.arange(num_units, dtype=np.int32)
  is_causal_UU, is_before_UU = unit_U <= unit_U[:, None], unit_U < unit_U[:, None]
  first_1U1 = unit_U[None, :, None] * unit
  is_active_BUU = is_causal_UU[None] & (key_end_BUu.max(-1)[:, None] > first_1U1)
  is_full_BUU = is_before_UU[None] & (key_end_BUu.min(-1)[:, None] > first_1U1 + (unit - 1))
  shape = num_positions // query_block, query_block // unit, num_positions // key_block, -1
  return (is_active_BUU.reshape(B, *shape).any((2, 4)), is_full_BUU.reshape(B, *shape).all((2, 4)),
          is_causal_UU.reshape(shape).any((1, 3)))


def _visits(is_active_BXY, is_full_BXY, is_causal_XY, major_block, minor_block, visits_idle):
  is_idle_BX = ~is_active_BXY.any(2) & visits_idle
  begin_BX = jnp.cumsum(is_active_BXY.sum(2, dtype=jnp.int32) + is_idle_BX, 1, dtype=jnp.int32)
  begin_BX = jnp.pad(begin_BX, ((0, 0), (1, 0)))
  # The causal half is static: a row of 64 blocks has 2080 pairs at most.
  x_P, y_P = (index.astype(np.int32) for index in np.nonzero(is_causal_XY))
  is_first_P = np.diff(x_P, prepend=-1) > 0
  is_active_BP, is_full_BP = is_active_BXY[:, x_P, y_P], is_full_BXY[:, x_P, y_P]
  blocks_1P = (x_P << _MAJOR_SHIFT | y_P << _MINOR_SHIFT)[None]
  visit_BP = blocks_1P | _flag(is_active_BP, ACTIVE) | jnp.where(
      is_full_BP, np.int32(FULL), np.int32(_PARTIAL))
  is_listed_BP = is_active_BP | (is_idle_BX[:, x_P] & is_first_P[None])
  # The order of the numbers is that of the visits; what is not listed goes last.
  visit_BP = jnp.sort(jnp.where(is_listed_BP, visit_BP, _NO_VISIT), axis=1)
  is_new_BP = major(visit_BP)[:, 1:] != major(visit_BP)[:, :-1]
  visit_BP |= (_flag(jnp.pad(is_new_BP, ((0, 0), (1, 0)), constant_values=True), FIRST)
               | _flag(jnp.pad(is_new_BP, ((0, 0), (0, 1)), constant_values=True), LAST))
  count_B1 = begin_BX[:, -1:]
  last_B1 = jnp.take_along_axis(visit_BP, jnp.maximum(count_B1 - 1, 0), axis=1)
  past_B1 = jnp.where(count_B1 > 0, last_B1 & ~_FLAGS, np.int32(0))
  is_visit_BP = jnp.arange(len(x_P), dtype=jnp.int32)[None] < count_B1
  return Visits(jnp.where(is_visit_BP, visit_BP, past_B1), begin_BX,
                is_full_BXY.sum(2, dtype=jnp.int32), major_block, minor_block)


def _flag(is_set: Array, flag: int) -> Array:
  return jnp.where(is_set, np.int32(flag), np.int32(0))
