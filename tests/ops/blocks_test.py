"""The lists name the pairs of blocks with something to see, and no other, in either order."""

from hypothesis import given, settings, strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops import blocks, masks
from tests.ops import layouts

B, S = 2, 61
SIZES = [(8, 8), (8, 4), (4, 8), (16, 4), (6, 4)]  # (query, key) tokens
ORDERS = {name: jax.jit(function, static_argnames=('query_block', 'key_block', 'visits_idle'))
          for name, function in (('query', blocks.by_query), ('key', blocks.by_key))}


def _listed(visits, row):
  """[(major, minor, flags)] of a row, up to its count."""
  packed = visits.packed[row, :int(visits.count[row])]
  return list(zip(_major(packed).tolist(), _minor(packed).tolist(),
                  (np.asarray(packed) & 15).tolist()))


def _major(packed):
  return np.asarray(packed) >> 18


def _minor(packed):
  return np.asarray(packed) >> 4 & 8191


def _needed(key_end, query_block, key_block):
  """(some pair visible, all pairs visible) of each pair of blocks, by the definition."""
  index = np.arange(key_end.shape[1])
  mask = np.asarray(masks.visible(index[None, :, None], index[None, None], key_end[:, None]))
  length = mask.shape[1]
  whole = np.lcm(query_block, key_block)
  mask = np.pad(mask, ((0, 0), *[(0, -length % whole)] * 2))
  mask = mask.reshape(len(mask), -1, query_block, mask.shape[1] // key_block, key_block)
  return mask.any((2, 4)), mask.all((2, 4))


def _assert_lists_what_is_needed(key_end, query_block, key_block, order, visits_idle):
  visits = jax.tree.map(np.asarray, ORDERS[order](
      jnp.asarray(key_end), query_block, key_block, visits_idle=visits_idle))
  is_active, is_full = _needed(key_end, query_block, key_block)
  if order == 'key':
    is_active, is_full = is_active.mT, is_full.mT
  for row in range(len(key_end)):
    listed = _listed(visits, row)
    active = [(x, y) for x, y, flags in listed if flags & blocks.ACTIVE]
    assert sorted(active) == [tuple(pair) for pair in np.argwhere(is_active[row]).tolist()]
    full = [(x, y) for x, y, flags in listed if flags & blocks.FULL]
    assert sorted(full) == [tuple(pair) for pair in np.argwhere(is_full[row]).tolist()]
    idle = [x for x, _, flags in listed if not flags & blocks.ACTIVE]
    assert idle == (np.flatnonzero(~is_active[row].any(1)).tolist() if visits_idle else [])
    # In order of the major block, full ones first, each block's first and last marked.
    assert listed == sorted(listed, key=lambda v: (v[0], not v[2] & blocks.FULL, v[1]))
    begin = np.asarray(visits.begin[row]).tolist()
    for x, (first, end) in enumerate(zip(begin[:-1], begin[1:])):
      flags = [f for _, _, f in listed[first:end]]
      assert {m for m, _, _ in listed[first:end]} <= {x}
      assert [bool(f & blocks.FIRST) for f in flags] == [i == 0 for i in range(end - first)]
      assert [bool(f & blocks.LAST) for f in flags] == [i == end - first - 1
                                                       for i in range(end - first)]
      assert int(visits.num_full[row, x]) == sum(bool(f & blocks.FULL) for f in flags)
    past = np.asarray(visits.packed[row, begin[-1]:])
    assert not (past & 15).any()
    if listed and past.size:
      assert np.unique(_major(past)) == listed[-1][0]
      assert np.unique(_minor(past)) == listed[-1][1]


# Any vector is a legal key_end: keys nobody sees, queries that see nothing, padding inside.
_any_key_end = st.lists(st.lists(st.integers(0, S), min_size=S, max_size=S), min_size=B, max_size=B)


@settings(deadline=None, max_examples=60)
@given(_any_key_end, st.sampled_from(SIZES), st.sampled_from(sorted(ORDERS)), st.booleans())
def test_visits_are_the_pairs_with_something_to_see_of_any_vector(key_end, sizes, order, idle):
  _assert_lists_what_is_needed(np.asarray(key_end, np.int32), *sizes, order, idle)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31 - 1), st.sampled_from(['exact', 'stitched', 'full']),
       st.sampled_from(SIZES), st.sampled_from(sorted(ORDERS)), st.booleans())
def test_visits_are_the_pairs_with_something_to_see_of_episodes(seed, layout, sizes, order, idle):
  key_end, _ = layouts.episodes(B, S, seed, layout, max_turns=24)
  _assert_lists_what_is_needed(key_end, *sizes, order, idle)


def test_the_drawing():
  lines = blocks.__doc__.splitlines()
  head = next(i for i, line in enumerate(lines) if 'tokens  qq' in line)
  drawn = [line.split()[1:] for line in lines[head + 1:head + 7]]
  key_end = np.array([[9] * 3 + [6] * 3 + [9] * 3 + [0] * 3], np.int32)
  visits = ORDERS['query'](jnp.asarray(key_end), 2, 2, visits_idle=False)
  listed = {(x, y): 'F' if flags & blocks.FULL else 'x' for x, y, flags in _listed(visits, 0)}
  assert drawn == [[listed.get((x, y), '.') for y in range(6)] for x in range(6)]


def test_rows_without_tokens_are_visited_for_their_zeros_alone():
  key_end = jnp.zeros((B, S), jnp.int32).at[0, :3].set(3)
  by_query = ORDERS['query']
  assert by_query(key_end, 8, 8, visits_idle=False).count.tolist() == [1, 0]
  assert by_query(key_end, 8, 8, visits_idle=True).count.tolist() == [8, 8]


def test_too_many_blocks_are_refused():
  with pytest.raises(ValueError, match='more than 8191 blocks of 16 queries or 16 keys; use larger'):
    jax.eval_shape(lambda e: blocks.by_query(e, 16, 16, visits_idle=False),
                   jax.ShapeDtypeStruct((1, 2**18), jnp.int32))


def test_a_kernel_reads_what_is_written():
  visit = jnp.asarray([(8190 << 18) | (1 << 17) | (8189 << 4) | blocks.ACTIVE | blocks.LAST])
  assert blocks.major(visit).tolist() == [8190] and blocks.minor(visit).tolist() == [8189]
  assert [bool(blocks.has(visit, f)[0]) for f in (
      blocks.ACTIVE, blocks.FULL, blocks.FIRST, blocks.LAST)] == [True, False, False, True]
