"""GGUF files (llama.cpp) as a source of parameters, quantised ones included.

Keys and names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp rotates
neighbouring channels of a head in `llama` models, transformers and we rotate i with i + H/2, so
rows of its q and k lie (i, half) where ours lie (half, i).
"""

import pathlib
import re

import numpy as np

from mem1_jax.model.config import ModelConfig

_NAMES = {  # of transformers → of llama.cpp, without `.weight` and `.bias`
    'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output',
    'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm',
    'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output', 'self_attn.q_norm': 'attn_q_norm',
    'self_attn.k_norm': 'attn_k_norm', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down'}
_THEIRS = {theirs: ours for ours, theirs in _NAMES.items()}
_ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
_IGNORED = ('rope_freqs.weight',)
_INTERLEAVED = re.compile(r'.*\.self_attn\.[qk]_proj\.weight')


class GGUFFile:
  """A GGUF file as a `hf_files.Source`, dequantised to float32 as it is read.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or of an architecture that the decoder lacks.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path)
    self._reader = _reader(self.path)
    self._architecture = self.value('general.architecture')
    if self._architecture not in _ARCHITECTURES:
      raise ValueError(f'{path}: general.architecture = {self._architecture!r} is not supported; '
                       f'use a model of one of {_ARCHITECTURES}')
    self._tensors = {_to_hf_name(tensor.name): tensor for tensor in self._reader.tensors
                     if tensor.name not in _IGNORED}
    # GGUF lists the innermost axis first.
    self.shapes = {name: tuple(int(size) for size in reversed(tensor.shape))
                   for name, tensor in self._tensors.items()}

  def value(self, key: str, default=None):
    """A metadata value; `{}` stands for the architecture.

    Raises:
      ValueError: the key is missing and there is no default.
    """
    key = key.format(getattr(self, '_architecture', ''))
    field = self._reader.get_field(key)
    if field is None and default is None:
      raise ValueError(f'{self.path}: key {key!r} is missing; use a file written by a current '
                       'llama.cpp')
    return default if field is None else field.contents()

  def config(self, **overrides) -> ModelConfig:
    """The configuration that the metadata describes.

    Args:
      **overrides: fields of ModelConfig that the file does not fix, such as both dtypes.

    Raises:
      ValueError: a missing key, or rotary scaling.
    """
    scaling = self.value('{}.rope.scaling.type', 'none')
    if scaling != 'none' or 'rope_freqs.weight' in {t.name for t in self._reader.tensors}:
      raise ValueError(f'{self.path}: rope scaling ({scaling}) is not supported; use a model '
                       'without it')
    num_heads, head_dim = self.value('{}.attention.head_count'), self._head_dim()
    if self.value('{}.rope.dimension_count', head_dim) != head_dim:
      raise ValueError(f'{self.path}: {self._architecture}.rope.dimension_count is not the width '
                       f'of a head, {head_dim}; use a model that rotates every channel')
    fields = dict(
        vocab_size=self.shapes.get('model.embed_tokens.weight', (0,))[0],
        dim=self.value('{}.embedding_length'),
        num_layers=self.value('{}.block_count'), num_heads=num_heads,
        num_kv_heads=self.value('{}.attention.head_count_kv', num_heads), head_dim=head_dim,
        ffn_dim=self.value('{}.feed_forward_length'),
        rope_theta=_as_written(self.value('{}.rope.freq_base')),
        rms_eps=_as_written(self.value('{}.attention.layer_norm_rms_epsilon')),
        init_std=0.02, tie_embeddings='lm_head.weight' not in self.shapes,
        qkv_bias=self._architecture == 'qwen2', o_bias=False,
        qk_norm=self._architecture == 'qwen3')
    try:
      return ModelConfig(**(fields | overrides))
    except ValueError as error:
      raise ValueError(f'{self.path}: {error}') from error

  def hf_keys(self) -> dict[str, object]:
    """Keys of config.json that do not concern the arithmetic: context length, token ids."""
    keys = {'max_position_embeddings': self.value('{}.context_length')}
    for ours, theirs in (('bos', 'bos'), ('eos', 'eos'), ('pad', 'padding')):
      index = self.value(f'tokenizer.ggml.{theirs}_token_id', -1)
      keys |= {f'{ours}_token_id': index} if index >= 0 else {}
    return keys

  def where(self, name: str) -> pathlib.Path:
    del name
    return self.path

  def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
    import gguf

    tensor = self._tensors[name]
    try:
      x = gguf.dequantize(tensor.data[rows], tensor.tensor_type)
    except NotImplementedError as error:
      raise ValueError(f'{self.path}: tensor {name!r} is stored as {tensor.tensor_type.name}, '
                       'which the gguf package cannot dequantise; use another quantisation'
                      ) from error
    if x.ndim == 1:
      return x
    if self._architecture == 'llama' and _INTERLEAVED.fullmatch(name):
      # Rows are asked for by whole heads.
      half = self._head_dim() // 2
      x = x.reshape(-1, half, 2, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
    return x[:, columns]

  def _head_dim(self) -> int:
    dim, num_heads = self.value('{}.embedding_length'), self.value('{}.attention.head_count')
    return self.value('{}.attention.key_length', dim // num_heads)


def _as_written(number: float) -> float:
  """The shortest decimal that is this float32: 1e-5, not 9.999999747378752e-06."""
  return float(str(np.float32(number)))


def _to_hf_name(name: str) -> str:
  """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; others stay as they are."""
  match = re.fullmatch(r'(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)', name)
  if match is None or match[2] not in _THEIRS:
    return name
  prefix = '' if match[1] is None else f'model.layers.{match[1]}.'
  return f'{prefix}{_THEIRS[match[2]]}.{match[3]}'


def _reader(path: pathlib.Path):
  if not path.is_file():
    raise FileNotFoundError(f'{path} is missing; give a GGUF file, or the name of an installed '
                            'package that holds one')
  try:
    import gguf
  except ImportError as error:
    raise ValueError(f'{path} needs the package gguf; pip install "mem1_jax[gguf]"') from error
  try:
    return gguf.GGUFReader(path)
  except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
    raise ValueError(f'{path} is cut short or no GGUF file ({error}); fetch it again') from error
