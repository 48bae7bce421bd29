"""Feeds of composed tasks: tf.data (the default) and NumPy, with the same batches.

A feed's whole state is one number, the index of the next batch's first task over
all hosts (`Batch.next_index`): starting a feed there continues it. Host h of H
gets the h-th of H equal slices of each batch, so the tasks of a batch and their
order do not depend on the number of hosts.
"""

from collections.abc import Iterator
import dataclasses
import importlib.util

import numpy as np

from mem1_jax import types
from mem1_jax.data import tfds
from mem1_jax.data.mixture import TaskSource


@dataclasses.dataclass(frozen=True)
class Batch:
  """This host's part of one batch.

  Attributes:
    indices: [batch / hosts] int64, task indices.
    tasks: the tasks at those indices.
    next_index: where to start a feed that continues behind this batch.
  """

  indices: np.ndarray
  tasks: tuple[types.Task, ...]
  next_index: int


def feed(
    composer: TaskSource, batch: int, start: int, host_index: int = 0, host_count: int = 1
) -> Iterator[Batch]:
  """The tf.data feed where TensorFlow is installed, else the NumPy feed."""
  make = tfdata_feed if importlib.util.find_spec('tensorflow') else numpy_feed
  return make(composer, batch, start, host_index, host_count)


def numpy_feed(
    composer: TaskSource, batch: int, start: int, host_index: int = 0, host_count: int = 1
) -> Iterator[Batch]:
  """Endless batches from task `start` on.

  Args:
    composer: makes the tasks.
    batch: tasks per batch over all hosts.
    start: index of the first task, over all hosts.
    host_index: this host, in [0, host_count).
    host_count: hosts; divides `batch`.

  Raises:
    ValueError: an argument is outside its range.
  """
  _check(batch, start, host_index, host_count)
  return _numpy_batches(composer, batch, start, host_index, host_count)


def _numpy_batches(composer, batch, start, host_index, host_count) -> Iterator[Batch]:
  while True:
    indices = start + _slice(batch, host_index, host_count)
    start += batch
    yield Batch(indices, composer.tasks(indices.tolist()), start)


def tfdata_feed(
    composer: TaskSource, batch: int, start: int, host_index: int = 0, host_count: int = 1
) -> Iterator[Batch]:
  """The same batches as `numpy_feed`, composed ahead of time by tf.data.

  Raises:
    ValueError: an argument is outside its range.
    ImportError: TensorFlow is not installed.
  """
  _check(batch, start, host_index, host_count)
  tf = tfds.import_tensorflow()

  composed: dict[int, Batch] = {}  # by first index: tf.data hands on numbers, not tasks

  def compose_batch(first: np.int64) -> np.int64:
    indices = first + _slice(batch, host_index, host_count)
    composed[int(first)] = Batch(indices, composer.tasks(indices.tolist()), int(first) + batch)
    return first

  dataset = tf.data.Dataset.counter(start=start, step=batch, dtype=tf.int64)
  # One call at a time keeps the order and leaves the cores to jax; composition is fast.
  dataset = dataset.map(lambda first: tf.numpy_function(compose_batch, [first], tf.int64),
                        num_parallel_calls=1, deterministic=True)
  dataset = dataset.prefetch(2)
  return (composed.pop(int(first)) for first in dataset.as_numpy_iterator())


def _slice(batch: int, host_index: int, host_count: int) -> np.ndarray:
  size = batch // host_count
  return np.arange(host_index * size, (host_index + 1) * size, dtype=np.int64)


def _check(batch: int, start: int, host_index: int, host_count: int) -> None:
  if batch < 1 or start < 0:
    raise ValueError(f'batch={batch} and start={start}: need batch ≥ 1 and start ≥ 0')
  if host_count < 1 or not 0 <= host_index < host_count or batch % host_count:
    raise ValueError(f'host_index={host_index} of host_count={host_count} with batch={batch}:'
                     ' the index must be in [0, host_count) and the count divide the batch')
