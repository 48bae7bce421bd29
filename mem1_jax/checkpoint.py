"""Checkpoints of training (Orbax) and of parameters alone (safetensors).

`Checkpointer` holds all that a run needs to go on as if it had never stopped:
the arrays of its state, bit for bit, and a JSON dictionary (data position,
seed, what the caller wants). `save_params` writes the small folders that ship
with the package: `model.safetensors` and `config.json`.
"""

import json
import logging
import math
import os
from typing import Any

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from orbax.checkpoint.checkpoint_managers import preservation_policy

from mem1_jax import storage
from mem1_jax.arrays import Params
from mem1_jax.parallel import multihost

_STATE, _META = 'state', 'meta'
_METRICS = 'metrics'  # Orbax's name for a folder and a file in it, {} where there are none
_ORBAX_MARK = '_CHECKPOINT_METADATA'
_WEIGHTS, _CONFIG = 'model.safetensors', 'config.json'
_FLOAT_DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16}


def flatten(tree) -> dict[str, Any]:
  """{dotted path: leaf}, e.g. `policy.layers.attention.kernel`.

  Raises:
    ValueError: two leaves with the same dotted path.
  """
  flat = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    if name in flat:
      raise ValueError(f'two leaves are called {name!r}; rename the key that contains a dot')
    flat[name] = leaf
  return flat


class Checkpointer:
  """Keeps the latest checkpoints of a run and, if asked, the best one.

  A checkpoint is written beside its final name and renamed when complete, so
  one that was cut short is never seen. `save` returns when it is on disk. With several processes
  each calls every method, on a folder that all of them see; Orbax writes it once.

  Args:
    directory: created if missing; nothing else should be put there.
    keep: how many of the latest checkpoints stay, ≥ 1.
    best_metric: the key of `metrics` whose highest value marks the best
      checkpoint, which then also stays; None to keep none for that.
  """

  def __init__(self, directory: str | os.PathLike, keep: int, best_metric: str | None = None):
    if keep < 1:
      raise ValueError(f'keep={keep} must be ≥ 1, or a run could not be resumed')
    self.directory = storage.absolute(storage.path(directory))
    self.best_metric = best_metric
    _set_aside_incomplete(self.directory)

    def rank(metrics):
      return metrics.get(best_metric, -math.inf)

    policies = [preservation_policy.LatestN(keep)]
    if best_metric is not None:
      policies.append(preservation_policy.BestN(
          get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
        best_fn=None if best_metric is None else rank, enable_async_checkpointing=False,
        cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers={
        _STATE: ocp.StandardCheckpointHandler(), _META: ocp.JsonCheckpointHandler()})

  def save(self, step: int, state, meta: dict, metrics: dict[str, float] | None = None) -> None:
    """Writes `state` (a pytree of arrays) and `meta` (JSON) as checkpoint `step`.

    Raises:
      ValueError: the step is there already or is not later than the latest, or
        `metrics` lacks the best metric.
    """
    latest = self._manager.latest_step()
    if latest is not None and step <= latest:
      raise ValueError(f'step {step} is not after the latest checkpoint, {latest}, in '
                       f'{self.directory}; resume from it or choose another directory')
    if metrics and self.best_metric not in (None, *metrics):
      raise ValueError(f'metrics lack {self.best_metric!r}, by which the best checkpoint is kept; '
                       f'there are {sorted(metrics)}')
    args = ocp.args.Composite(**{
        _STATE: ocp.args.StandardSave(flatten(state)), _META: ocp.args.JsonSave(meta)})
    # {} and not None, about which Orbax would warn at every save.
    self._manager.save(step, args=args, metrics=metrics or {})
    self._manager.wait_until_finished()

  def rank(self, step: int, metrics: dict[str, float]) -> None:
    """Gives checkpoint `step`, which was saved without, the metrics that say which is the best."""
    if multihost.is_main():
      (self.directory / str(step) / _METRICS / _METRICS).write_text(json.dumps(metrics))
    multihost.barrier()
    self._manager.reload()

  def steps(self) -> list[int]:
    """The complete checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def restore_latest(self, like) -> tuple[Any, dict]:
    """(state, meta) of the latest checkpoint.

    Args:
      like: a tree of arrays or `jax.ShapeDtypeStruct`s with the structure,
        shapes, dtypes and shardings wanted; another topology than the saved
        one is fine.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: the checkpoint's leaves differ from `like`; names them.
    """
    return self._restore(self._manager.latest_step(), like)

  def restore_best(self, like) -> tuple[Any, dict]:
    """(state, meta) of the checkpoint with the highest best metric; see `restore_latest`."""
    if self.best_metric is None:
      raise ValueError('no best_metric was given to this Checkpointer; name one or use '
                       'restore_latest')
    step = self._manager.best_step()
    if step is not None and self.best_metric not in self._manager.metrics(step):
      raise FileNotFoundError(f'no checkpoint in {self.directory} was saved with the metric '
                              f'{self.best_metric!r}; evaluate before saving, or use '
                              'restore_latest')
    return self._restore(step, like)

  def _restore(self, step: int | None, like) -> tuple[Any, dict]:
    if step is None:
      raise FileNotFoundError(f'no complete checkpoint in {self.directory}; check the path, or '
                              'start without resuming')
    wanted = flatten(like)
    _check_leaves(self._manager.item_metadata(step)[_STATE], wanted, self.directory / str(step))
    abstract = jax.tree.map(_abstract, wanted)
    restored = self._manager.restore(step, args=ocp.args.Composite(**{
        _STATE: ocp.args.StandardRestore(abstract), _META: ocp.args.JsonRestore()}))
    leaves = [restored[_STATE][name] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), restored[_META]

  def close(self) -> None:
    self._manager.close()


def _set_aside_incomplete(directory: storage.Path) -> None:
  """Renames step folders without Orbax's mark of completion to `<step>.incomplete`.

  Such a folder can only come from a copy or deletion that was cut short. In a bucket, where nothing
  can be renamed, Orbax marks and clears away its own.
  """
  is_ours = multihost.is_main() and not storage.is_remote(directory) and directory.is_dir()
  for folder in directory.iterdir() if is_ours else ():
    needed = [folder / _ORBAX_MARK, folder / _STATE, folder / _META]
    if folder.name.isdigit() and not all(part.exists() for part in needed):
      logging.warning('%s is not a complete checkpoint; set aside and not used', folder)
      folder.rename(folder.with_name(folder.name + '.incomplete'))
  multihost.barrier()  # none looks for checkpoints before


def _abstract(leaf) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None))


def _check_leaves(saved, wanted: dict, path: storage.Path) -> None:
  """Orbax would pad, cut or cast silently where shapes or dtypes differ."""
  saved = dict(saved)
  missing, extra = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
  problems = [f'{name}: not in the checkpoint' for name in missing]
  problems += [f'{name}: only in the checkpoint' for name in extra]
  for name in sorted(wanted.keys() & saved.keys()):
    have = (tuple(saved[name].shape), np.dtype(saved[name].dtype))
    want = (tuple(wanted[name].shape), np.dtype(wanted[name].dtype))
    if have != want:
      problems.append(f'{name}: saved as {have[1]}{list(have[0])}, wanted {want[1]}{list(want[0])}')
  if problems:
    shown = '\n  '.join(problems[:8]) + ('\n  …' if len(problems) > 8 else '')
    raise ValueError(f'{path} does not fit this run in {len(problems)} of its arrays:\n  {shown}\n'
                     'use the config that the checkpoint was made with')


def check_resumed(workdir: str | os.PathLike, is_resumed: bool) -> None:
  """Guards a run folder that holds checkpoints.

  Raises:
    FileExistsError: the run was not asked to resume.
  """
  if not is_resumed:
    raise FileExistsError(f'{workdir} holds checkpoints of an earlier run; continue it with '
                          '--resume, or choose another --workdir')


def check_origin(meta: dict, origin: dict) -> None:
  """Checks that a checkpoint continues the run that is to use it.

  Args:
    meta: of the checkpoint; it may lack names, which were then not written yet.
    origin: what must not change, such as the seed, whose tasks would not continue, or what the
      adapters were trained beside.

  Raises:
    ValueError: names what differs.
  """
  for name, wanted in origin.items():
    if meta.get(name, wanted) != wanted:
      raise ValueError(f'the run was begun with {name} {meta[name]}, not {wanted}; resume it with '
                       f'the same {name}.')


def save_params(path: str | os.PathLike, params: Params, meta: dict, dtype: str) -> None:
  """Writes `path/model.safetensors` and `path/config.json`, once; every process calls it.

  Args:
    params: nested dictionaries of arrays; keys are joined with dots.
    meta: JSON; what a reader needs to build the model.
    dtype: 'float32' or 'bfloat16' for the floating-point tensors; the others
      keep theirs.

  Raises:
    ValueError: unknown dtype, or a key with a dot.
  """
  if dtype not in _FLOAT_DTYPES:
    raise ValueError(f'dtype={dtype!r} is not one of {sorted(_FLOAT_DTYPES)}; use one of them')
  tensors = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
    names = [jax.tree_util.keystr((key,), simple=True) for key in keys]
    if any('.' in name for name in names):
      raise ValueError(f'the key {names} contains a dot, which separates levels; rename it')
    array = multihost.fetch(leaf)
    if not multihost.is_main():
      continue
    is_float = jax.numpy.issubdtype(array.dtype, np.floating)
    # safetensors reads the buffer as it lies, so it must be contiguous.
    tensors['.'.join(names)] = np.ascontiguousarray(
        array.astype(_FLOAT_DTYPES[dtype]) if is_float else array)
  if multihost.is_main():
    path = storage.path(path)
    path.mkdir(parents=True, exist_ok=True)
    if storage.is_remote(path):
      (path / _WEIGHTS).write_bytes(safetensors.numpy.save(tensors))
    else:
      safetensors.numpy.save_file(tensors, path / _WEIGHTS)
    (path / _CONFIG).write_text(json.dumps(meta, indent=2, sort_keys=True) + '\n')
  multihost.barrier()


def load_meta(path: str | os.PathLike) -> dict:
  """The meta that `save_params` wrote.

  Raises:
    FileNotFoundError: there is none.
    ValueError: the file is damaged.
  """
  file = storage.path(path) / _CONFIG
  if not file.is_file():
    raise FileNotFoundError(_missing(file))
  try:
    return json.loads(file.read_text())
  except json.JSONDecodeError as error:
    raise ValueError(_damaged(file.parent, error)) from error


def _missing(file: storage.Path) -> str:
  return (f'{file} is missing; give the folder of a checkpoint written by `export` or `sft`, which '
          f'holds {_WEIGHTS} and {_CONFIG}')


def _damaged(path: storage.Path, error: Exception) -> str:
  return f'a file of {path} is damaged ({error}); fetch or export the checkpoint again'


def load_params(path: str | os.PathLike) -> tuple[dict, dict]:
  """(nested dictionaries of NumPy arrays, meta) from a folder of `save_params`.

  Floating-point tensors come back as float32, whatever they were stored as.

  Raises:
    FileNotFoundError: the folder or one of its two files is missing.
    ValueError: a file is damaged or a tensor cannot be placed.
  """
  path = storage.path(path)
  if not (path / _WEIGHTS).is_file():
    raise FileNotFoundError(_missing(path / _WEIGHTS))
  meta = load_meta(path)
  try:
    tensors = (safetensors.numpy.load((path / _WEIGHTS).read_bytes()) if storage.is_remote(path)
               else safetensors.numpy.load_file(path / _WEIGHTS))
  except safetensors.SafetensorError as error:
    raise ValueError(_damaged(path, error)) from error
  params: dict = {}
  for name, array in tensors.items():
    *parents, last = name.split('.')
    node = params
    for parent in parents:
      node = node.setdefault(parent, {})
      if not isinstance(node, dict):
        raise ValueError(f'tensor {name!r} of {path / _WEIGHTS} lies under another tensor; '
                         'export the checkpoint again')
    is_float = jax.numpy.issubdtype(array.dtype, np.floating)
    node[last] = array.astype(np.float32) if is_float else array
  return params, meta


def check_params(params: Params, like: Params, path: str | os.PathLike) -> None:
  """Checks that loaded parameters have the names and shapes of the model's.

  Raises:
    ValueError: names the tensors that differ.
  """
  _check_leaves(flatten(params), flatten(like), storage.path(path) / _WEIGHTS)
