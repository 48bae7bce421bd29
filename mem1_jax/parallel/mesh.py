"""The devices of a run as one mesh of three axes.

    data     copies of the model, each with its own rows
    fsdp     rows too, and a slice of every parameter, gathered where it is used
    tensor   heads, ffn columns and vocabulary: a slice of every product

What lies on which axis is parallel/sharding.py.
"""

from collections.abc import Sequence
import dataclasses
import logging
import math

import jax
from jax.experimental import mesh_utils

AXES = ('data', 'fsdp', 'tensor')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis, ≥ 1; one of them may be -1, for as many as are left."""

  data: int
  fsdp: int
  tensor: int

  def sizes(self, num_devices: int) -> tuple[int, int, int]:
    """(data, fsdp, tensor), each ≥ 1, on `num_devices` devices.

    Raises:
      ValueError: sizes that are not ≥ 1 or -1, two of -1, or more devices than there are.
    """
    sizes = dataclasses.astuple(self)
    text = ' x '.join(f'{axis} {size}' for axis, size in zip(AXES, sizes))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
      raise ValueError(f'mesh {text}: each size must be ≥ 1, or -1 for one of them')
    known = math.prod(size for size in sizes if size != -1)
    if known > num_devices:
      raise ValueError(f'mesh {text} needs {known} devices, there are {num_devices}; lower a size, '
                       'or set one to -1 for what is left')
    if -1 in sizes and num_devices % known:
      raise ValueError(f'mesh {text}: {num_devices} devices are not a multiple of {known}; choose '
                       'sizes whose product divides them')
    return tuple(num_devices // known if size == -1 else size for size in sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """The mesh of `config` on the first of `devices` (default: all); says if some stay idle.

  Raises:
    ValueError: as `MeshConfig.sizes`, or a process would have none of the devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = config.sizes(len(devices))
  used = math.prod(sizes)
  if idle := {d.process_index for d in devices} - {d.process_index for d in devices[:used]}:
    raise ValueError(f'the mesh uses {used} of {len(devices)} devices, none of processes '
                     f'{sorted(idle)}; set a size to -1 to use all, or start fewer processes')
  if used < len(devices):
    logging.warning('the mesh uses %d of %d devices; set one of mesh.data, mesh.fsdp and '
                    'mesh.tensor to -1 to use all', used, len(devices))
  # Near ones share an axis; a size that no axis of the slice has is a part of one.
  placed = mesh_utils.create_device_mesh(sizes, devices[:used], allow_split_physical_axes=True)
  return jax.sharding.Mesh(
      placed, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def one_device() -> jax.sharding.Mesh:
  """The mesh of this process's default device alone."""
  return make_mesh(MeshConfig(1, 1, 1), jax.local_devices()[:1])
