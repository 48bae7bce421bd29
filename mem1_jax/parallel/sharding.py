"""Where every array lies: one table from the logical axes of the model to the axes of the mesh.

Names of parameters' axes are those of model/layers.py and model/lora.py. An axis whose size the
mesh does not divide stays whole (each device along that axis has all of it), and the log says so
once.
"""

import functools
import logging
import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any  # a pytree

RULES = {
    # parameters
    'vocab': ('tensor',),
    'heads': ('tensor',),
    'kv_heads': ('tensor',),
    'mlp': ('tensor',),
    'embed': ('fsdp',),
    'head': (),
    'norm': (),
    'layers': (),
    'rank': (),  # of adapters
    # activations
    'batch': ('data', 'fsdp'),
    'lookup': ('data',),  # rows where the embedding is read: its columns lie on fsdp
    'length': (),
    'hidden': (),
}


def rules(mesh: Mesh, **sizes: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
  """(logical axis, mesh axes) of each axis named in `sizes`, and of those that are never split.

  Raises:
    KeyError: a name that the table has not.
  """
  whole = {name: 1 for name, axes in RULES.items() if not axes}
  return tuple((name, _axes(mesh, name, size)) for name, size in (whole | sizes).items())


def named(
    mesh: Mesh, logical_axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
  """The sharding of an array of `shape`, a logical axis or None for each dimension.

  Raises:
    ValueError: another number of names than dimensions.
  """
  if len(logical_axes) != len(shape):
    raise ValueError(f'logical axes {tuple(logical_axes)} do not name the dimensions of '
                     f'shape {shape}; give one name, or None, for each')
  return NamedSharding(mesh, PartitionSpec(*(
      name and _axes(mesh, name, size) for name, size in zip(logical_axes, shape))))


def rows(mesh: Mesh, num_rows: int) -> NamedSharding:
  """Of arrays [num_rows, …] that have a row, or a slot, for each sequence."""
  return named(mesh, ('batch',), (num_rows,))


def num_row_groups(mesh: Mesh, num_rows: int) -> int:
  """Groups of devices over which `rows(mesh, num_rows)` splits them; 1 where they stay whole."""
  return num_rows // rows(mesh, num_rows).shard_shape((num_rows,))[0]


def whole(mesh: Mesh) -> NamedSharding:
  """Of arrays that every device has all of."""
  return NamedSharding(mesh, PartitionSpec())


def gathered(shardings: Tree, axis: str) -> Tree:
  """The same shardings but for `axis` of the mesh, along which every device has all."""
  def without(entry):
    names = entry if isinstance(entry, tuple) else (entry,)
    return tuple(name for name in names if name not in (axis, None)) or None

  return jax.tree.map(
      lambda s: NamedSharding(s.mesh, PartitionSpec(*map(without, s.spec))), shardings)


def tree(mesh: Mesh, logical_axes: Tree, like: Tree) -> Tree:
  """The sharding of each leaf of `like`: parameters, and what has a copy of their tree inside.

  A leaf whose path ends in a parameter's, with as many dimensions, lies as that parameter: so do
  an optimiser's moments, in a training state or out of it. Any other leaf is whole.

  Args:
    logical_axes: a PartitionSpec of logical names for each parameter: `Policy.logical_axes()`,
      through `lora.logical_axes` where there may be adapters.
    like: arrays or `jax.ShapeDtypeStruct`s.
  """
  is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
  axes_of = {_names(path): spec for path, spec in
             jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=is_spec)}

  def leaf_sharding(path, leaf):
    names = _names(path)
    for start in range(len(names)):  # the longest ending first
      spec = axes_of.get(names[start:])
      if spec is not None and len(spec) == leaf.ndim:
        return named(mesh, spec, leaf.shape)
    return whole(mesh)

  return jax.tree_util.tree_map_with_path(leaf_sharding, like)


def _names(path) -> tuple[str, ...]:
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _axes(mesh: Mesh, name: str, size: int) -> tuple[str, ...]:
  """Mesh axes over which the logical axis `name` of `size` is split; () where it stays whole."""
  axes = RULES[name]
  num_parts = math.prod(mesh.shape[axis] for axis in axes)
  if size % num_parts == 0:
    return axes
  _say_whole(name, size, ' x '.join(f'{axis} {mesh.shape[axis]}' for axis in axes))
  return ()


@functools.cache  # once for each, however many arrays have such an axis
def _say_whole(name: str, size: int, split: str):
  logging.warning("axis '%s' of size %d cannot be split over mesh axes %s: it stays whole, on each "
                  'of their devices', name, size, split)
