"""Who sees whom in a packed row: one rule, one vector.

    visible(query, key) = key <= query  and  query < key_end[key]

Both are indices in the row; key_end[key] is the first row index that cannot see
`key`. The layouts of memory/layout.py differ in this vector only. A question of 2
tokens and two turns of 2 tokens ('x' sees, '.' does not; a row of the drawing is a
query):

    exact, key_end 6 6 4 4 6 6    full context, 6 6 6 6 6 6    one pad, 5 5 4 4 5 0
      x . . . . .                   x . . . . .                  x . . . . .
      x x . . . .                   x x . . . .                  x x . . . .
      x x x . . .                   x x x . . .                  x x x . . .
      x x x x . .                   x x x x . .                  x x x x . .
      x x . . x .                   x x x x x .                  x x . . x .
      x x . . x x                   x x x x x x                  . . . . . .
"""

import jax.numpy as jnp

from mem1_jax.arrays import Array


def visible(query: Array, key: Array, key_end: Array) -> Array:
  """Whether `query` sees `key`; indices in the row, arguments broadcast.

  Args:
    query: int32 row index of the token that looks.
    key: int32 row index of the token looked at.
    key_end: int32, first row index that cannot see `key`; 0 for padding.

  Returns:
    bool of the broadcast shape.
  """
  return (key <= query) & (query < key_end)


def visible_BSS(key_end_BS: Array) -> Array:
  """The whole mask [B, query, key]; quadratic: for the reference op and tests."""
  index_S = jnp.arange(key_end_BS.shape[1], dtype=jnp.int32)
  return visible(index_S[None, :, None], index_S[None, None, :], key_end_BS[:, None, :])
