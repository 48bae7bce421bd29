"""config.json of transformers ⇄ ModelConfig: Qwen2 (Qwen2.5), Qwen3 and Llama-shaped decoders.

What changes numbers must be said by the file: a feature that our decoder lacks is refused, never
skipped. The keys are those of `Qwen2Config`, `Qwen3Config` and `LlamaConfig`
(https://huggingface.co/docs/transformers).
"""

import json
import pathlib
from typing import Any

from mem1_jax.model.config import ModelConfig

FAMILIES = {'qwen2': 'Qwen2', 'qwen3': 'Qwen3', 'llama': 'Llama'}
CONFIG = 'config.json'
_LLAMA_THETA = 1e4  # of the Llama checkpoints that were made before the key was
_MAX_POSITIONS = 32_768  # what other programs reserve; no length is built into the parameters


def is_hf_folder(path: str | pathlib.Path) -> bool:
  """Whether the folder's config.json is one of transformers."""
  file = pathlib.Path(path) / CONFIG
  return file.is_file() and 'model_type' in read_config(path)


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
  """config.json of a folder.

  Raises:
    FileNotFoundError: it has none.
    ValueError: the file is not a JSON object.
  """
  file = pathlib.Path(path) / CONFIG
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing; give the folder of a Hugging Face checkpoint')
  try:
    raw = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{file} is not JSON ({error}); fetch the checkpoint again') from error
  if not isinstance(raw, dict):
    raise ValueError(f'{file} holds no JSON object; fetch the checkpoint again')
  return raw


def from_hf(raw: dict[str, Any], file: str | pathlib.Path, **overrides) -> ModelConfig:
  """The configuration that a config.json describes.

  Args:
    raw: its contents.
    file: its path, for messages.
    **overrides: fields of ModelConfig that the file does not fix, such as both dtypes.

  Raises:
    ValueError: an architecture or feature that the decoder lacks, or a missing key.
  """
  keys = _Keys(raw, file)
  family = raw.get('model_type')
  if family not in FAMILIES:
    keys.refuse('model_type', f'use a checkpoint of one of {sorted(FAMILIES)}')
  _check_features(keys, family)
  dim, num_heads = keys.need('hidden_size'), keys.need('num_attention_heads')
  head_dim = raw.get('head_dim')
  if head_dim is None:
    if family == 'qwen3' or dim % num_heads:
      keys.refuse('head_dim', 'state the width of a head')
    head_dim = dim // num_heads
  has_attention_bias = family != 'qwen2' and bool(raw.get('attention_bias', False))
  fields = dict(
      vocab_size=keys.need('vocab_size'), dim=dim, num_layers=keys.need('num_hidden_layers'),
      num_heads=num_heads, num_kv_heads=raw.get('num_key_value_heads') or num_heads,
      head_dim=head_dim, ffn_dim=keys.need('intermediate_size'),
      rope_theta=float(_rope_theta(keys, family)), rms_eps=keys.need('rms_norm_eps'),
      init_std=raw.get('initializer_range', 0.02),
      tie_embeddings=bool(raw.get('tie_word_embeddings', False)),
      qkv_bias=family == 'qwen2' or has_attention_bias, o_bias=has_attention_bias,
      qk_norm=family == 'qwen3')
  try:
    return ModelConfig(**(fields | overrides))
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from error


class _Keys:
  """A config.json and the errors about it."""

  def __init__(self, raw: dict[str, Any], file: str | pathlib.Path):
    self.raw, self.file = raw, file

  def need(self, key: str) -> Any:
    if self.raw.get(key) is None:
      raise ValueError(f'{self.file}: key {key!r} is missing; fetch the checkpoint again, or add '
                       'the value that the model was trained with')
    return self.raw[key]

  def refuse(self, key: str, remedy: str):
    raise ValueError(
        f'{self.file}: {key} = {self.raw.get(key)!r} is not supported; {remedy}')


def _check_features(keys: _Keys, family: str):
  raw = keys.raw
  if raw.get('hidden_act', 'silu') != 'silu':
    keys.refuse('hidden_act', 'only silu is')
  if raw.get('mlp_bias'):
    keys.refuse('mlp_bias', 'use a checkpoint without')
  if raw.get('quantization_config'):
    keys.refuse('quantization_config', 'use the checkpoint that was not quantised')
  if set(raw.get('layer_types') or ()) - {'full_attention'}:
    keys.refuse('layer_types', 'every layer must be full_attention')
  if (family != 'llama' and raw.get('use_sliding_window') and not raw.get('layer_types')
      and raw.get('sliding_window') is not None
      and keys.need('max_window_layers') < keys.need('num_hidden_layers')):
    keys.refuse('use_sliding_window', 'set it to false if all contexts are shorter than '
                f'sliding_window = {raw["sliding_window"]}')


def _rope_theta(keys: _Keys, family: str) -> float:
  """Base of the rotary frequencies, from the old layout of the file or the new one."""
  rope_key = 'rope_parameters' if keys.raw.get('rope_parameters') else 'rope_scaling'
  rope = keys.raw.get(rope_key) or {}
  if rope.get('rope_type', rope.get('type', 'default')) != 'default':
    keys.refuse(rope_key, 'set it to null if all contexts are as short as in pre-training')
  if rope.get('partial_rotary_factor', keys.raw.get('partial_rotary_factor') or 1) != 1:
    keys.refuse('partial_rotary_factor', 'every channel of a head must be rotated')
  theta = rope.get('rope_theta', keys.raw.get('rope_theta'))
  if theta is None:
    return _LLAMA_THETA if family == 'llama' else keys.need('rope_theta')
  return theta


def to_hf(config: ModelConfig, dtype: str, is_critic: bool = False,
          base: dict[str, Any] | None = None) -> dict[str, Any]:
  """The config.json that transformers reads the exported parameters with.

  Args:
    config: the model.
    dtype: of the tensors that are written.
    is_critic: one label per token instead of a vocabulary.
    base: a config.json whose other keys (token ids, context length) are kept.

  Raises:
    ValueError: a combination of biases and norms that none of the architectures has.
  """
  family = _family(config)
  kind = 'ForTokenClassification' if is_critic else 'ForCausalLM'
  labels = {'id2label': {'0': 'value'}, 'label2id': {'value': 0}} if is_critic else {}
  # Both spellings, of transformers before and from 5 on.
  rope = {'rope_theta': config.rope_theta, 'rope_scaling': None,
          'rope_parameters': {'rope_type': 'default', 'rope_theta': config.rope_theta}}
  window = {} if family == 'llama' else {
      'use_sliding_window': False, 'sliding_window': None, 'max_window_layers': config.num_layers}
  bias = {} if family == 'qwen2' else {'attention_bias': config.o_bias}
  return {'max_position_embeddings': _MAX_POSITIONS} | (base or {}) | {
      'architectures': [FAMILIES[family] + kind], 'model_type': family,
      'vocab_size': config.vocab_size, 'hidden_size': config.dim,
      'num_hidden_layers': config.num_layers, 'num_attention_heads': config.num_heads,
      'num_key_value_heads': config.num_kv_heads, 'head_dim': config.head_dim,
      'intermediate_size': config.ffn_dim, 'hidden_act': 'silu', 'rms_norm_eps': config.rms_eps,
      'initializer_range': config.init_std, 'tie_word_embeddings': config.tie_embeddings,
      'dtype': dtype, 'torch_dtype': dtype} | rope | window | bias | labels


def _family(config: ModelConfig) -> str:
  if config.qk_norm and config.qkv_bias == config.o_bias:
    return 'qwen3'
  if not config.qk_norm and config.qkv_bias == config.o_bias:
    return 'llama'
  if config.qkv_bias and not config.o_bias and not config.qk_norm:
    return 'qwen2'
  raise ValueError(
      f'no architecture of transformers has qk_norm={config.qk_norm}, qkv_bias={config.qkv_bias} '
      f'and o_bias={config.o_bias} together; train a model with the flags of one of '
      f'{sorted(FAMILIES)}')
