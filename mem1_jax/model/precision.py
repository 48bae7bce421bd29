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


def is_wider(x: jax.Array, dtype: str) -> bool:
  """Whether x has floats of more bytes than `dtype`."""
  return (jnp.issubdtype(x.dtype, jnp.floating)
          and x.dtype.itemsize > jnp.dtype(dtype).itemsize)


def make_narrow(dtype: str, like: Params, shardings: Params) -> Callable[[Params], Params]:
  """The function `narrowed(params, dtype)` as one jitted program that leaves arrays where they lie.

  Where nothing is wider it gives back the very arrays: nothing is computed or copied.

  Args:
    dtype: of computation.
    like: arrays or `jax.ShapeDtypeStruct`s of the parameters that it will get.
    shardings: theirs, a tree like `like`.
  """
  is_cast = [is_wider(x, dtype) for x in jax.tree.leaves(like)]
  if not any(is_cast):
    return lambda params: params
  where = [x for x, is_one in zip(jax.tree.leaves(shardings), is_cast, strict=True) if is_one]
  cast = jax.jit(lambda wide: [x.astype(dtype) for x in wide], in_shardings=(where,),
                 out_shardings=where)

  def narrow(params):
    leaves, structure = jax.tree.flatten(params)
    narrower = iter(cast([x for x, is_one in zip(leaves, is_cast, strict=True) if is_one]))
    return structure.unflatten(
        [next(narrower) if is_one else x for x, is_one in zip(leaves, is_cast)])

  return narrow
