"""Checkpoints of transformers in and out.

Only the piece that is being copied is in memory beside the parameters, and a host reads only what
its devices hold.
"""

import json
import math
import pathlib
import re
import shutil
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy

from mem1_jax.arrays import Array, Params
from mem1_jax.model import hf_config
from mem1_jax.model.config import ModelConfig
from mem1_jax.model.hf_files import INDEX, WEIGHTS, Source
from mem1_jax.model.hf_tensors import HEAD, VALUE_BIAS, Tensor, num_layers, tensors

_PIECE_BYTES = 64 << 20
_ALIGNMENT = 64  # bytes; lets XLA's CPU client use a NumPy buffer as it lies
_DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16,
           'float64': np.float64}
# Constants that old checkpoints carry.
_IGNORED = re.compile(r'.*\.rotary_emb\.inv_freq')


def load(source: Source, config: ModelConfig, shardings: Params | None = None) -> Params:
  """Parameters of `build_policy(config)`, in `config.param_dtype`.

  Args:
    source: the checkpoint.
    config: as its config.json says.
    shardings: a tree of `jax.sharding.Sharding` like the parameters; None for the default device.

  Raises:
    ValueError: a tensor is missing, left over, of another shape, or too large for the dtype.
  """
  table = tensors(config)
  _check(source, table, config)
  params: dict[str, Any] = {}
  for path, tensor in table.items():
    *parents, last = path.split('.')
    node, sharding = params, shardings
    for parent in parents:
      node = node.setdefault(parent, {})
      sharding = None if sharding is None else sharding[parent]
    node[last] = _leaf(source, tensor, num_layers(path, config), config.param_dtype,
                       None if sharding is None else sharding[last])
  return params


def _check(source: Source, table: dict[str, Tensor], config: ModelConfig):
  expected = {tensor.name.format(i): tensor.shape for path, tensor in table.items()
              for i in range(num_layers(path, config) or 1)}
  left = [name for name in source.shapes if name not in expected and not _IGNORED.fullmatch(name)]
  if HEAD in left and config.tie_embeddings:
    _check_tied(source, table['embed.embedding'])
    left.remove(HEAD)
  missing = [name for name in expected if name not in source.shapes]
  wrong = [name for name in expected if source.shapes.get(name, expected[name]) != expected[name]]
  if missing:
    remedy = ('set tie_word_embeddings to true if the head is the embedding'
              if missing == [HEAD] else 'fetch all of its files, or the config.json that '
              'belongs to them')
    raise ValueError(f'{source.path}: tensor {_some(missing)} missing; {remedy}')
  if wrong:
    name = wrong[0]
    raise ValueError(
        f'{source.where(name)}: tensor {name!r} has shape {list(source.shapes[name])}, the '
        f'configuration wants {list(expected[name])} ({len(wrong)} such); use the configuration '
        'that belongs to these weights')
  if left:
    raise ValueError(
        f'{source.where(left[0])}: tensor {_some(left)} not part of a {config.num_layers}-layer '
        f'model with qkv_bias={config.qkv_bias}, o_bias={config.o_bias}, qk_norm={config.qk_norm}; '
        'use the configuration that belongs to these weights')


def _some(names: list[str]) -> str:
  more = f' and {len(names) - 1} more are' if len(names) > 1 else ' is'
  return f'{names[0]!r}{more}'


def _check_tied(source: Source, embedding: Tensor):
  """A tied checkpoint may store its head all the same, but only the embedding's."""
  V, D = embedding.shape
  step = max(1, _PIECE_BYTES // (4 * D))
  for start in range(0, V, step):
    rows, columns = slice(start, min(start + step, V)), slice(0, D)
    pair = [source.read(name, rows, columns) for name in (embedding.name, HEAD)]
    if pair[0].tobytes() != pair[1].tobytes():
      raise ValueError(f'{source.where(HEAD)}: tensor {HEAD!r} is not the embedding, though '
                       'tie_word_embeddings is true; set it to false to use both')


def _leaf(source: Source, tensor: Tensor, num_layers: int | None, dtype: str,
          sharding: jax.sharding.Sharding | None) -> Array:
  shape = ((num_layers,) if num_layers else ()) + tensor.our_shape
  blocks: dict[str, np.ndarray] = {}  # replicas share one

  def block(index):
    if str(index) not in blocks:
      blocks[str(index)] = _block(source, tensor, num_layers, [
          slice(*part.indices(size)[:2]) for part, size in zip(index, shape)], dtype)
    return blocks[str(index)]

  if sharding is None:
    leaf = jax.device_put(block((slice(None),) * len(shape)))
  else:
    leaf = jax.make_array_from_callback(shape, sharding, block)
  # Else the next leaf's buffer would be allocated while this one is still being sent.
  return jax.block_until_ready(leaf)


def _block(source: Source, tensor: Tensor, num_layers: int | None, index: list[slice],
           dtype: str) -> np.ndarray:
  """The part `index` of a leaf."""
  out = _empty([part.stop - part.start for part in index], _DTYPES[dtype])
  if not num_layers:
    _copy(source, tensor, tensor.name, index, out)
    return out
  for i, layer in enumerate(range(index[0].start, index[0].stop)):
    _copy(source, tensor, tensor.name.format(layer), index[1:], out[i])
  return out


def _empty(shape: list[int], dtype: Any) -> np.ndarray:
  """Memory that a CPU device takes over without a copy."""
  size = math.prod(shape) * np.dtype(dtype).itemsize
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start:start + size].view(dtype).reshape(shape)


def _copy(source: Source, tensor: Tensor, name: str, index: list[slice], out: np.ndarray):
  """Fills `out` with the part `index` (of our axes) of one tensor, piece by piece."""
  part: list[Any] = [None] * len(index)  # of each of tensor.parts
  for axis, wanted in zip(tensor.order, index):
    part[axis] = wanted
  num_rows, width = len(tensor.rows), math.prod(tensor.rows[1:])
  # Read whole along all axes but the first of rows and of columns, and cut afterwards.
  read, inside, columns = (-1, *tensor.rows[1:]), [slice(None), *part[1:num_rows]], slice(0, 1)
  if tensor.columns:
    depth, outer = math.prod(tensor.columns[1:]), part[num_rows]
    columns = slice(outer.start * depth, outer.stop * depth)
    read += (outer.stop - outer.start, *tensor.columns[1:])
    inside += [slice(None), *part[num_rows + 1:]]
  step = max(1, _PIECE_BYTES // (4 * width * (columns.stop - columns.start)))
  first, place = part[0], [slice(None)] * out.ndim
  for start in range(first.start, first.stop, step):
    stop = min(start + step, first.stop)
    piece = source.read(name, slice(start * width, stop * width), columns)
    piece = piece.reshape(read)[tuple(inside)]
    place[tensor.order.index(0)] = slice(start - first.start, stop - first.start)
    out[tuple(place)] = _cast(piece, out.dtype, name, source.path).transpose(tensor.order)


def _cast(x: np.ndarray, dtype: Any, name: str, path: pathlib.Path) -> np.ndarray:
  if dtype == np.float16 and x.dtype != np.float16 and np.abs(x).max(initial=0) > 65_504:
    raise ValueError(f'{path}: tensor {name!r} has values that float16 cannot hold; use bfloat16 '
                     'or float32')
  return x.astype(dtype, copy=False)


def save(folder: str | pathlib.Path, params: Params, config: ModelConfig, dtype: str, *,
         is_critic: bool = False, base: dict[str, Any] | None = None,
         max_shard_bytes: int = 5 * 10**9):
  """Writes config.json and the weights, as one file or as shards and their index.

  `AutoModelForCausalLM` loads the folder, `AutoModelForTokenClassification` that of a critic, whose
  value is the one logit: `score.weight` [1, D], and a `score.bias` of 0, which ours has not.

  Args:
    folder: made if missing.
    params: of `build_policy(config)` or, where is_critic, `build_critic(config)`.
    config: its sizes.
    dtype: what the tensors are cast to.
    is_critic: the parameters have a value head.
    base: a config.json whose other keys are kept.
    max_shard_bytes: most bytes of a file, and of memory beside the parameters.

  Raises:
    FileExistsError: the folder holds weights already.
    ValueError: parameters of another model, or an unknown dtype.
  """
  folder = pathlib.Path(folder)
  if dtype not in _DTYPES:
    raise ValueError(f'dtype={dtype!r} must be one of {sorted(_DTYPES)}')
  if any(folder.glob('*.safetensors')):
    raise FileExistsError(f'{folder} holds weights already; choose another folder')
  table = tensors(config, is_critic)
  leaves = {jax.tree_util.keystr(path, simple=True, separator='.'): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  wanted = {path: ((num_layers(path, config),) if num_layers(path, config) else ())
            + tensor.our_shape for path, tensor in table.items()}
  if {path: leaf.shape for path, leaf in leaves.items()} != wanted:
    differing = sorted(path for path in leaves.keys() | wanted.keys() if path not in wanted
                       or path not in leaves or leaves[path].shape != wanted[path])
    raise ValueError(f'these parameters are not those of {config}: {differing[0]} differs, and '
                     f'{len(differing) - 1} more; export with the config they were trained with')
  raw = hf_config.to_hf(config, dtype, is_critic, base)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / hf_config.CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True) + '\n')
  _write(folder, _plan(table, config, dtype, max_shard_bytes), leaves, dtype, is_critic)


def _plan(table: dict[str, Tensor], config: ModelConfig, dtype: str,
          max_bytes: int) -> list[list[tuple[str, Tensor, int | None]]]:
  """(path, tensor, layer) of all tensors, file by file."""
  files, num_bytes = [[]], 0
  for path, tensor in table.items():
    L = num_layers(path, config)
    size = math.prod(tensor.shape) * np.dtype(_DTYPES[dtype]).itemsize
    for layer in [None] if L is None else range(L):
      if files[-1] and num_bytes + size > max_bytes:
        files.append([])
        num_bytes = 0
      files[-1].append((path, tensor, layer))
      num_bytes += size
  return files


def _write(folder: pathlib.Path, files: list, leaves: dict[str, Any], dtype: str, is_critic: bool):
  where, total = {}, 0
  for i, entries in enumerate(files, 1):
    name = WEIGHTS if len(files) == 1 else f'model-{i:05d}-of-{len(files):05d}.safetensors'
    arrays = {tensor.name.format(layer): _to_hf(leaves[path], tensor, layer, dtype, folder)
              for path, tensor, layer in entries}
    if is_critic and i == len(files):
      arrays[VALUE_BIAS] = np.zeros(1, _DTYPES[dtype])
    # transformers refuses files that do not name a framework.
    safetensors.numpy.save_file(arrays, folder / name, metadata={'format': 'pt'})
    # It makes files that only their owner may read.
    shutil.copymode(folder / hf_config.CONFIG, folder / name)
    where |= dict.fromkeys(arrays, name)
    total += sum(array.nbytes for array in arrays.values())
  if len(files) > 1:
    index = {'metadata': {'total_size': total}, 'weight_map': where}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + '\n')


def _to_hf(leaf: Any, tensor: Tensor, layer: int | None, dtype: str,
           folder: pathlib.Path) -> np.ndarray:
  x = np.asarray(leaf if layer is None else leaf[layer])
  x = x.transpose(np.argsort(tensor.order)).reshape(tensor.shape)
  name = tensor.name.format(layer)
  # safetensors writes the buffer as it lies.
  return np.ascontiguousarray(_cast(x, np.dtype(_DTYPES[dtype]), name, folder))
