"""The mask rule is what its docstring draws."""

import re

import jax.numpy as jnp
import numpy as np

from mem1_jax.ops import masks


def _drawings():
  """(key_end, mask of 'x') of each drawing in the docstring, left to right."""
  lines = masks.__doc__.splitlines()
  head = next(i for i, line in enumerate(lines) if 'key_end 6' in line)
  key_ends = re.findall(r'(\d(?: \d){5})', lines[head])
  grids = zip(*(re.findall(r'[x.](?: [x.]){5}', line) for line in lines[head + 1:head + 7]))
  return [([int(end) for end in key_end.split()], [row.split() for row in grid])
          for key_end, grid in zip(key_ends, grids, strict=True)]


def test_drawings_are_the_mask():
  drawings = _drawings()
  assert len(drawings) == 3
  for key_end, grid in drawings:
    expected = np.array(grid) == 'x'
    np.testing.assert_array_equal(masks.visible_BSS(jnp.asarray([key_end]))[0], expected)


def test_visible_is_causal_and_ends_at_key_end():
  assert bool(masks.visible(jnp.int32(3), jnp.int32(3), jnp.int32(4)))
  assert not bool(masks.visible(jnp.int32(2), jnp.int32(3), jnp.int32(4)))
  assert not bool(masks.visible(jnp.int32(4), jnp.int32(3), jnp.int32(4)))
