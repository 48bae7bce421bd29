"""Several processes as one run: who owns a row, and arrays that all of them hold together.

Every process runs the same device programs in the same order, on one mesh of all their devices.
What differs is what only a host knows: its environments. A process steps those of the rows
(slots) that it owns,

    rows        0 1 2 3 | 4 5 6 7        over data x fsdp
    held by     0       | 0 and 1        processes with a device that has them
    owned by    0       | 0              the lowest of these

and reads and writes arrays [rows, …] of full size, of which only its own rows count. Where one
process is all there is, everything here is what jax does anyway, and free.

An error that all processes meet ends all. So does one of an environment (rollout/collect.py). Of a
process that dies alone the others hear from jax's heartbeat, within two minutes, and die.
"""

import functools
import os
import pickle
import signal
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

Tree = Any  # a pytree

_ADDRESS, _COUNT, _INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
_CHUNK_BYTES = 1 << 20  # that `gather` sends at a time: one shape, so one program


def initialize(is_cluster: bool = False) -> None:
  """Joins the other processes of the run; to be called before anything else of jax.

  Processes that are started by hand are told by their environment, the same on all but the last:

      JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0

  Args:
    is_cluster: ask the cluster (TPU pod, Slurm, Kubernetes, Open MPI) for what is not set there.
      Without it and without these variables the process is alone.

  Raises:
    ValueError: a variable is missing or out of its range, or there is no cluster.
  """
  given = {name: os.environ[name] for name in (_ADDRESS, _COUNT, _INDEX) if os.environ.get(name)}
  if jax.distributed.is_initialized() or not (given or is_cluster):
    return
  count, index = _whole_number(given, _COUNT, 1), _whole_number(given, _INDEX, 0)
  if None not in (count, index) and index >= count:
    raise ValueError(f'{_INDEX}={index} must be below {_COUNT}={count}; number the processes from 0')
  if ':' not in given.get(_ADDRESS, ':'):
    raise ValueError(f'{_ADDRESS}={given[_ADDRESS]} has no port; give HOST:PORT of process 0')
  missing = [name for name in (_ADDRESS, _COUNT, _INDEX) if name not in given]
  if missing and not is_cluster:
    raise ValueError(f'{", ".join(given)} set, {", ".join(missing)} not; set all three, or none')
  handler = signal.getsignal(signal.SIGTERM)
  try:
    jax.distributed.initialize(given.get(_ADDRESS), count, index,
                               cluster_detection_method=None if missing else 'deactivate')
  except ValueError as error:
    raise ValueError(f'found no TPU pod, Slurm, Kubernetes or Open MPI cluster that tells all of '
                     f'{", ".join(missing)} ({error}); set them') from error
  signal.signal(signal.SIGTERM, handler)  # jax's service has taken it, and it would end nothing


def _whole_number(given: dict[str, str], name: str, least: int) -> int | None:
  text = given.get(name)
  if text is not None and (not text.isdecimal() or int(text) < least):
    raise ValueError(f'{name}={text} must be a whole number ≥ {least}')
  return None if text is None else int(text)


def is_main() -> bool:
  """Whether this process writes what is written once: metrics, records, progress."""
  return jax.process_index() == 0


def put(tree: Tree, shardings: Tree) -> Tree:
  """Arrays of host values that are the same on every process, which is not checked.

  Args:
    shardings: a tree of them, or of less depth, as `jax.device_put` takes it.
  """
  if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
    return jax.device_put(tree, shardings)
  return jax.tree.map(lambda sharding, part: jax.tree.map(
      lambda x: _put(x, sharding), part), shardings, tree)


def _put(x: Any, sharding: Sharding) -> jax.Array:
  x = x if isinstance(x, jax.Array) else np.asarray(x)
  return _make_array(x.shape, sharding, lambda index: x[index])


def _make_array(shape: tuple[int, ...], sharding: Sharding, part) -> jax.Array:
  with jax.transfer_guard_host_to_device('allow'):  # asked for, though jax cannot see it
    return jax.make_array_from_callback(shape, sharding, part)


def fetch(x: jax.Array | np.ndarray) -> np.ndarray:
  """All of an array on every process, wherever it lies."""
  if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
    x = _replication(x.sharding.mesh)(x)
  return jax.device_get(x)


@functools.cache
def _replication(mesh: Mesh):
  return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def owners(sharding: Sharding, num_rows: int) -> np.ndarray:
  """[num_rows], the process that owns each row; `sharding` splits at most axis 0."""
  owner = np.full(num_rows, jax.process_count())
  for device, (rows, *_) in sharding.devices_indices_map((num_rows,)).items():
    owner[rows] = np.minimum(owner[rows], device.process_index)
  return owner


def own_rows(sharding: Sharding, num_rows: int) -> list[int]:
  """The rows that this process owns, in order."""
  return np.flatnonzero(owners(sharding, num_rows) == jax.process_index()).tolist()


def put_rows(tree: Tree, sharding: Sharding) -> Tree:
  """Arrays [rows, …] of host arrays of that size, each row as its owner has it.

  Where several processes hold the same rows, the owner's are sent to the others.
  """
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)
  num_rows = len(jax.tree.leaves(tree)[0])
  if _is_shared(sharding, num_rows):
    rows = own_rows(sharding, num_rows)
    tree = jax.tree.map(np.array, tree)
    for rows, sent in gather((rows, jax.tree.leaves(jax.tree.map(lambda x: x[rows], tree)))):
      for x, part in zip(jax.tree.leaves(tree), sent):
        x[rows] = part
  return put(tree, sharding)


@functools.cache
def _is_shared(sharding: Sharding, num_rows: int) -> bool:
  """Whether several processes hold the same row."""
  held = {(rows.start, device.process_index) for device, (rows, *_)
          in sharding.devices_indices_map((num_rows,)).items()}
  return len(held) > len({start for start, _ in held})


def fetch_rows(tree: Tree) -> Tree:
  """Host arrays of arrays [rows, …]: this process has its own rows of them, others may be 0."""
  return jax.tree.map(_fetch_rows, tree)


def _fetch_rows(x: jax.Array) -> np.ndarray:
  if x.is_fully_addressable:
    return jax.device_get(x)
  out = np.zeros(x.shape, x.dtype)
  for shard in x.addressable_shards:
    out[shard.index] = jax.device_get(shard.data)
  return out


def gather(item: Any) -> list[Any]:
  """Every process's item on each of them, in their order; any that can be pickled."""
  if jax.process_count() == 1:
    return [item]
  # A length, then the bytes. All know how many chunks there are from the lengths in the first.
  data = pickle.dumps(item)
  data = len(data).to_bytes(8, 'little') + data
  received, longest = [b''] * jax.process_count(), 1
  while len(received[0]) < longest:
    start = len(received[0])
    chunk = np.zeros(_CHUNK_BYTES, np.uint8)
    piece = np.frombuffer(data[start:start + _CHUNK_BYTES], np.uint8)
    chunk[:len(piece)] = piece
    received = [old + new.tobytes() for old, new in zip(received, _all_gather(chunk))]
    longest = max(8 + _length(each) for each in received)
  return [pickle.loads(each[8:8 + _length(each)]) for each in received]


def _length(data: bytes) -> int:
  return int.from_bytes(data[:8], 'little')


def _all_gather(x: np.ndarray) -> np.ndarray:
  """[processes, …]: the array of each."""
  split, program = _gathering()
  stacked = _make_array((jax.process_count(), *x.shape), split, lambda _: x[None])
  return jax.device_get(program(stacked))


@functools.cache
def _gathering():
  """(a row on the first device of each process, the program that brings all rows to all)."""
  first = {device.process_index: device for device in reversed(jax.devices())}
  mesh = Mesh([first[process] for process in range(jax.process_count())], ('process',))
  split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('process',), ()))
  return split, jax.jit(lambda x: x, in_shardings=split, out_shardings=whole)


def is_any(flag: bool) -> bool:
  """Whether it is true on any process; all of them get the same answer."""
  return bool(_all_gather(np.array([flag], np.uint8)).any()) if jax.process_count() > 1 else flag


def barrier() -> None:
  """Returns when every process has come here."""
  gather(None)
