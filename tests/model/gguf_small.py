"""Small GGUF files, written as llama.cpp's converter does."""

import numpy as np

from mem1_jax.model.gguf_import import _NAMES
from tests.goldens import make_hf
from tests.model import hf_small


def write(path, family, quantise=None, without=(), **facts):
  """A golden model as a GGUF file; `facts` change its metadata, `quantise` its 2-D tensors."""
  import gguf

  raw = make_hf.raw_config(family)
  if 'architecture' in facts:
    raw['model_type'] = facts.pop('architecture')
  writer = gguf.GGUFWriter(path, raw['model_type'])
  numbers = {
      'block_count': raw['num_hidden_layers'], 'context_length': 64,
      'embedding_length': raw['hidden_size'], 'feed_forward_length': raw['intermediate_size'],
      'attention.head_count': raw['num_attention_heads'], 'attention.key_length': raw['head_dim'],
      'attention.head_count_kv': raw['num_key_value_heads'], 'rope.freq_base': raw['rope_theta'],
      'attention.layer_norm_rms_epsilon': raw['rms_norm_eps']} | facts
  for key, value in numbers.items():
    if value is not None:
      add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
      add[type(value)](f'{raw["model_type"]}.{key}', value)
  for name, x in hf_small.stored(family)[0].items():
    if name in without:
      continue
    if family == 'llama' and ('q_proj.weight' in name or 'k_proj.weight' in name):
      x = interleave(x, raw['head_dim'])
    if quantise is not None and x.ndim == 2:
      writer.add_tensor(gguf_name(name), gguf.quantize(x, quantise), raw_dtype=quantise)
    else:
      writer.add_tensor(gguf_name(name), x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def interleave(x, head_dim):
  """Rows (half, i) of each head as (i, half), by a loop: the reader's inverse, found otherwise."""
  out = np.empty_like(x)
  for row in range(len(x)):
    head, channel = divmod(row, head_dim)
    half, i = divmod(channel, head_dim // 2)
    out[head * head_dim + 2 * i + half] = x[row]
  return out


def gguf_name(name):
  stem, _, kind = name.rpartition('.')
  prefix = ''
  if stem.startswith('model.layers.'):
    layer, _, stem = stem.removeprefix('model.layers.').partition('.')
    prefix = f'blk.{layer}.'
  return f'{prefix}{_NAMES[stem]}.{kind}'
