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


def make_copy(convert: Callable[[Params], Params], like: Params, shardings: Params,
              target: Params) -> Callable[[Params], Params]:
  """The function that gives `convert(params)` lying as `target`, as one jitted program.

  What neither changes its dtype nor lies elsewhere is the very array: nothing of it is computed or
  copied.

  Args:
    convert: makes a tree that has the leaves it leaves alone at their old paths.
    like: arrays or `jax.ShapeDtypeStruct`s of the parameters that it will get.
    shardings: where they lie; a tree like `like`.
    target: where the converted ones are wanted; a tree like them.
  """
  is_changed = which_change(convert, like, shardings, target)
  if not any(jax.tree.leaves(is_changed)):
    return lambda params: params

  def changed(tree):
    return [x for x, is_one in zip(*map(jax.tree.leaves, (tree, is_changed)), strict=True) if is_one]

  copy = jax.jit(lambda params: changed(convert(params)), in_shardings=(shardings,),
                 out_shardings=changed(target))

  def copied(params):
    old, new = dict(jax.tree_util.tree_leaves_with_path(params)), iter(copy(params))
    return jax.tree_util.tree_map_with_path(
        lambda path, is_one: next(new) if is_one else old[path], is_changed)

  return copied


def which_change(convert: Callable[[Params], Params], like: Params, shardings: Params,
                 target: Params) -> Params:
  """A tree of bools, as `convert` makes it: the leaves that `make_copy` computes."""
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(like)]
  old = dict(zip(paths, zip(*map(jax.tree.leaves, (like, shardings))), strict=True))

  def is_changed(path, new, where):
    was, lay = old.get(path, (None, None))
    return was is None or was.dtype != new.dtype or not lay.is_equivalent_to(where, new.ndim)

  return jax.tree_util.tree_map_with_path(is_changed, jax.eval_shape(convert, like), target)
