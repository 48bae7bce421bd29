"""Parameters in the dtype that they are computed in.

Every use of a parameter in model/ and ops/ begins with a cast to `ModelConfig.dtype` (adapters,
norm scales, biases, embedding and unembedding, too). So a copy that was cast before gives the same
bits, and reads and holds half as much where masters are float32 and computation is bfloat16. A
value head is not such a parameter: it is used in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Params


def narrowed(params: Params, dtype: str) -> Params:
  """`params` with the floats that are wider than `dtype` cast to it; the others as they are."""
  return jax.tree.map(lambda x: x.astype(dtype) if is_wider(x, dtype) else x, params)


def shapes(params: Params, dtype: str) -> Params:
  """`jax.ShapeDtypeStruct`s of `narrowed(params, dtype)`; `params` may be such, too."""
  return jax.eval_shape(lambda p: narrowed(p, dtype), params)


def is_wider(x: jax.Array, dtype: str) -> bool:
  """Whether x has floats of more bytes than `dtype`."""
  return (jnp.issubdtype(x.dtype, jnp.floating)
          and x.dtype.itemsize > jnp.dtype(dtype).itemsize)


def which_change(dtype: str, like: Params, shardings: Params, target: Params) -> Params:
  """A tree of bools: the leaves that `make_copy` copies."""
  return jax.tree.map(lambda x, a, b: is_wider(x, dtype) or not a.is_equivalent_to(b, x.ndim),
                      like, shardings, target)


def make_copy(dtype: str, like: Params, shardings: Params, target: Params,
              ) -> Callable[[Params], Params]:
  """The function that gives `narrowed(params, dtype)` lying as `target`, as one jitted program.

  What is neither wider nor lies elsewhere is the very array: nothing of it is computed or copied.

  Args:
    dtype: of computation.
    like: arrays or `jax.ShapeDtypeStruct`s of the parameters that it will get.
    shardings, target: where they lie, and where they are wanted; trees like `like`.
  """
  froms, to = jax.tree.leaves(shardings), jax.tree.leaves(target)
  is_changed = jax.tree.leaves(which_change(dtype, like, shardings, target))
  if not any(is_changed):
    return lambda params: params

  def changed(values):
    return [x for x, is_one in zip(values, is_changed, strict=True) if is_one]

  copy = jax.jit(lambda values: [x.astype(dtype) if is_wider(x, dtype) else x for x in values],
                 in_shardings=(changed(froms),), out_shardings=changed(to))

  def copied(params):
    leaves, structure = jax.tree.flatten(params)
    new = iter(copy(changed(leaves)))
    return structure.unflatten([next(new) if is_one else x for x, is_one in zip(leaves, is_changed)])

  return copied
