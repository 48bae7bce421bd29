"""BERT's tensors by transformers' names, and how they lie in ours.

    weight [out, in]                                   → kernel [in, out]
    encoder.layer.{0…L-1}.attention.self.query.weight  → layers/q/kernel [L, D, D]

Names may have a prefix, such as `bert.`, which the file itself tells.
"""

import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors

from mem1_jax.retrieval.dense.bert import Params
from mem1_jax.retrieval.dense.settings import BertConfig

WEIGHTS = 'model.safetensors'
_WORDS = 'embeddings.word_embeddings.weight'
_DTYPES = ('F32', 'F16', 'BF16', 'F64')


class Tensor(NamedTuple):
  """A tensor of the file; `{}` in its name stands for the layer."""

  name: str
  shape: tuple[int, ...]
  is_transposed: bool = False


def tensors(config: BertConfig) -> dict[str, Tensor]:
  """{dotted path of our leaf: its tensor} of the encoder."""
  D, F, layer = config.dim, config.ffn_dim, 'encoder.layer.{}.'
  table = {'embed.word': Tensor(_WORDS, (config.vocab_size, D)),
           'embed.position': Tensor('embeddings.position_embeddings.weight',
                                    (config.num_positions, D)),
           'embed.type': Tensor('embeddings.token_type_embeddings.weight', (config.num_types, D))}
  table |= _norm('embed.norm', 'embeddings.LayerNorm', D)
  for ours, theirs in (('q', 'self.query'), ('k', 'self.key'), ('v', 'self.value'),
                       ('o', 'output.dense')):
    table |= linear(f'layers.{ours}', f'{layer}attention.{theirs}', D, D)
  table |= _norm('layers.norm', f'{layer}attention.output.LayerNorm', D)
  table |= linear('layers.up', f'{layer}intermediate.dense', D, F)
  table |= linear('layers.down', f'{layer}output.dense', F, D)
  return table | _norm('layers.ffn_norm', f'{layer}output.LayerNorm', D)


def linear(ours: str, theirs: str, inputs: int, outputs: int) -> dict[str, Tensor]:
  return {f'{ours}.kernel': Tensor(f'{theirs}.weight', (outputs, inputs), True),
          f'{ours}.bias': Tensor(f'{theirs}.bias', (outputs,))}


def _norm(ours: str, theirs: str, size: int) -> dict[str, Tensor]:
  return {f'{ours}.scale': Tensor(f'{theirs}.weight', (size,)),
          f'{ours}.bias': Tensor(f'{theirs}.bias', (size,))}


def load(folder: pathlib.Path, config: BertConfig, dtype: str,
         is_classifier: bool = False) -> Params:
  """The parameters in `dtype`, NumPy arrays.

  Args:
    is_classifier: read the head of a classifier with one label, too.

  Raises:
    FileNotFoundError: there is no model.safetensors.
    ValueError: it is damaged, or a tensor is missing, of another shape or quantised.
  """
  file = folder / WEIGHTS
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing; give the folder of a checkpoint in safetensors '
                            'format (transformers writes one by save_pretrained)')
  try:
    opened = safetensors.safe_open(file, 'numpy')
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(f'{file} is cut short or damaged ({error}); fetch it again') from error
  with opened:
    return _Reader(file, opened).params(config, dtype, is_classifier)


class _Reader:

  def __init__(self, file: pathlib.Path, opened: Any):
    self._file, self._opened, self._names = file, opened, set(opened.keys())
    found = [name for name in self._names if name.endswith(_WORDS)]
    if len(found) != 1:
      raise ValueError(f'{file} has {len(found)} tensors named …{_WORDS}, not one; use a '
                       "checkpoint of transformers' BertModel")
    self._prefix = found[0].removesuffix(_WORDS)

  def params(self, config: BertConfig, dtype: str, is_classifier: bool) -> Params:
    table = {path: tensor._replace(name=self._prefix + tensor.name)
             for path, tensor in tensors(config).items()}
    if is_classifier:
      table |= self._head(config.dim)
    params = {}
    for path, tensor in table.items():
      *rooms, leaf = path.split('.')
      node = params
      for room in rooms:
        node = node.setdefault(room, {})
      node[leaf] = self._leaf(tensor, config.num_layers).astype(jnp.dtype(dtype))
    return params

  def _head(self, D: int) -> dict[str, Tensor]:
    # RoBERTa's head has both of its matrices beside the encoder.
    pooler, classifier = ('classifier.dense', 'classifier.out_proj')
    if f'{classifier}.weight' not in self._names:
      pooler, classifier = f'{self._prefix}pooler.dense', 'classifier'
    if f'{classifier}.weight' not in self._names:
      raise ValueError(f'{self._file} has no classifier, so it ranks nothing; use a cross-encoder: a '
                       'BERT or RoBERTa classifier with 1 label')
    labels = self._opened.get_slice(f'{classifier}.weight').get_shape()[0]
    if labels != 1:
      raise ValueError(f'{self._file} is a classifier with {labels} labels; use one with 1')
    return linear('pooler', pooler, D, D) | linear('classifier', classifier, D, 1)

  def _leaf(self, tensor: Tensor, num_layers: int) -> np.ndarray:
    if '{}' not in tensor.name:
      return self._read(tensor)
    return np.stack([self._read(tensor._replace(name=tensor.name.format(i)))
                     for i in range(num_layers)])

  def _read(self, tensor: Tensor) -> np.ndarray:
    name = tensor.name
    if name not in self._names:
      raise ValueError(f'{self._file} lacks tensor {name!r}; use a checkpoint whose weights are '
                       'those that its config.json describes')
    part = self._opened.get_slice(name)
    if part.get_dtype() not in _DTYPES:
      raise ValueError(f'{self._file}: tensor {name!r} is stored as {part.get_dtype()}; use a '
                       f'checkpoint in one of {_DTYPES}')
    if tuple(part.get_shape()) != tensor.shape:
      raise ValueError(f'{self._file}: tensor {name!r} has the shape {tuple(part.get_shape())}, '
                       f'config.json makes it {tensor.shape}; fetch both again')
    array = np.asarray(self._opened.get_tensor(name), np.float32)
    return array.T if tensor.is_transposed else array
