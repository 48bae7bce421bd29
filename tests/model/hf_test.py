"""Import and export without torch: bit for bit, sharded, streamed, and errors that say what to do."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mem1_jax.model import build_critic, build_policy, hf, hf_files
from tests.goldens import make_hf
from tests.model import hf_small, small

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = tuple(make_hf.TIED)


def _bits(tensors):
  return {name: (x.dtype.name, x.shape, x.tobytes()) for name, x in tensors.items()}


def _as(weights, dtype):
  return {name: x.astype(dtype) for name, x in weights.items()}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('stored, held', [
    ('float32', 'float32'), ('bfloat16', 'bfloat16'), ('bfloat16', 'float32'),
    ('float16', 'float32')])
def test_there_and_back_is_bit_exact(family, stored, held, tmp_path):
  weights = _as(hf_small.stored(family)[0], np.dtype(getattr(ml_dtypes, stored, stored)))
  hf_small.write(tmp_path / 'theirs', family, weights)
  config, params = hf_small.load(tmp_path / 'theirs', param_dtype=held)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {held}
  hf.save(tmp_path / 'one', params, config, stored)
  hf.save(tmp_path / 'many', params, config, stored, max_shard_bytes=4000)
  for folder in ('one', 'many'):
    tensors, num_files = hf_small.tensors_of(tmp_path / folder)
    assert _bits(tensors) == _bits(weights)
    assert (num_files > 1) == (folder == 'many')
    assert not config.differences(hf_small.config_of(tmp_path / folder))
  # The shards' index is complete, and reading them gives the same parameters.
  index = json.loads((tmp_path / 'many' / hf_files.INDEX).read_text())
  assert index['weight_map'].keys() == weights.keys()
  assert index['metadata']['total_size'] == sum(x.nbytes for x in weights.values())
  again = hf_small.load(tmp_path / 'many', param_dtype=held)[1]
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize('flags', [small.QWEN2, small.QWEN3, dict(qkv_bias=True, o_bias=True)])
def test_ours_there_and_back(flags, tmp_path):
  config = small.small_config(**flags)
  params = build_policy(config).init(jax.random.key(0))
  hf.save(tmp_path, params, config, 'float32')
  again = hf_small.load(tmp_path)[1]
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # all as readable


def test_rows_that_pad_the_vocabulary_are_kept(tmp_path):
  weights = hf_small.stored('qwen2')[0]
  for name in ('model.embed_tokens.weight', 'lm_head.weight'):
    # Never trained: transformers pads with noise, some with nan.
    weights[name] = np.concatenate([weights[name], np.full((3, 24), np.nan, np.float32)])
  config, params = hf_small.load(hf_small.write(tmp_path / 'a', 'qwen2', weights, vocab_size=64))
  assert config.vocab_size == 64
  hf.save(tmp_path / 'b', params, config, 'float32')
  assert _bits(hf_small.tensors_of(tmp_path / 'b')[0]) == _bits(weights)


SPECS = {  # of 8 devices as data 2 x tensor 4
    'embed.embedding': ('tensor', 'data'), 'head': ('data', 'tensor'),
    'layers.attention.q.kernel': (None, 'data', 'tensor', None),
    'layers.attention.k.kernel': ('data', None, None, 'tensor'),
    'layers.attention.q.bias': (None, 'tensor', 'data'),
    'layers.attention.o.kernel': (None, 'tensor', 'data', None),
    'layers.attention.v.kernel': (None, None, 'data', 'tensor'),
    'layers.mlp.gate.kernel': (None, 'data', 'tensor'), 'layers.mlp.down.kernel': ('data',),
    'layers.mlp.up.kernel': (None, None, ('data', 'tensor'))}


def test_straight_into_shardings(tmp_path, monkeypatch):
  folder = hf_small.write(tmp_path, 'qwen2', dict(
      hf_small.stored('qwen2')[0], **{
          name: np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)
          for name in ('model.embed_tokens.weight', 'lm_head.weight')}), vocab_size=64)
  config, whole = hf_small.load(folder)
  mesh = jax.make_mesh((2, 4), ('data', 'tensor'),
                       axis_types=(jax.sharding.AxisType.Auto,) * 2)
  shardings = jax.tree_util.tree_map_with_path(
      lambda path, _: jax.sharding.NamedSharding(mesh, jax.P(*SPECS.get(
          jax.tree_util.keystr(path, simple=True, separator='.'), ()))), whole)
  read = _count_reads(monkeypatch)
  params = hf_small.load(folder, shardings)[1]
  jax.tree.map(np.testing.assert_array_equal, params, whole)
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, params, shardings))
  sizes = {name: x.size for name, x in hf_small.tensors_of(folder)[0].items()}
  assert read['lm_head.weight'] == sizes['lm_head.weight']  # each number once
  assert read['model.norm.weight'] == sizes['model.norm.weight']  # replicas share
  assert config.num_layers == 2


def _count_reads(monkeypatch):
  """{tensor: numbers read}, filled as folders are read from now on."""
  counts, original = {}, hf_files.SafetensorsFolder.read

  def read(self, name, rows, columns):
    part = original(self, name, rows, columns)
    counts[name] = counts.get(name, 0) + part.size
    return part

  monkeypatch.setattr(hf_files.SafetensorsFolder, 'read', read)
  return counts


def test_large_tensors_are_read_in_pieces(tmp_path, monkeypatch):
  folder = hf_small.write(tmp_path, 'qwen3')
  whole = hf_small.load(folder)[1]
  monkeypatch.setattr(hf, '_PIECE_BYTES', 4 * 100)
  largest, original = [], hf_files.SafetensorsFolder.read
  monkeypatch.setattr(hf_files.SafetensorsFolder, 'read', lambda *args: (
      largest.append(original(*args)) or largest[-1]))
  jax.tree.map(np.testing.assert_array_equal, hf_small.load(folder)[1], whole)
  # At least a head's rows [H, D] at a time.
  assert max(part.size for part in largest) <= 8 * 24


def test_a_critic(tmp_path):
  config = small.small_config(**small.QWEN2)
  critic = build_critic(config)
  params = critic.from_policy(build_policy(config).init(jax.random.key(0)), jax.random.key(1))
  params['value'] = jnp.arange(24.0)[:, None]
  hf.save(tmp_path, params, critic.config, 'float32', is_critic=True)
  tensors = hf_small.tensors_of(tmp_path)[0]
  assert tensors['score.weight'].tolist() == [list(range(24))]
  assert tensors['score.bias'].tolist() == [0] and 'lm_head.weight' not in tensors


def _changed(name, change):
  weights = hf_small.stored('qwen2')[0]
  weights[name] = change(weights[name])
  return weights


def _without(name):
  return {key: x for key, x in hf_small.stored('qwen2')[0].items() if key != name}


Q = 'model.layers.1.self_attn.q_proj'


@pytest.mark.parametrize('weights, overrides, message', [
    (lambda: _without(f'{Q}.weight'), {}, f"'{Q}.weight' is missing; fetch all of its files"),
    (lambda: _without('lm_head.weight'), {}, 'is missing; set tie_word_embeddings to true'),
    (lambda: None, {'num_hidden_layers': 3}, 'layers.2.* and 11 more are missing'),
    (lambda: _changed(f'{Q}.weight', lambda x: x[:, :-1]), {},
     rf"model.safetensors: tensor '{Q}.weight' has shape \[32, 23\], .* wants \[32, 24\]"),
    (lambda: None, {'num_hidden_layers': 1}, "layers.1.* and 11 more are not part of a 1-layer"),
    (lambda: dict(hf_small.stored('qwen2')[0], extra=np.zeros(1)), {},
     "model.safetensors: tensor 'extra' is not part of .*; use the configuration"),
    (lambda: None, {'tie_word_embeddings': True},
     "model.safetensors: tensor 'lm_head.weight' is not the embedding.*set it to false"),
])
def test_tensors_that_do_not_fit(weights, overrides, message, tmp_path):
  folder = hf_small.write(tmp_path, 'qwen2', weights(), **overrides)
  with pytest.raises(ValueError, match=message):
    hf_small.load(folder)


def test_what_is_left_over_without_harm(tmp_path):
  weights = hf_small.stored('qwen3')[0]
  weights['lm_head.weight'] = weights['model.embed_tokens.weight']
  weights['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(4, np.float32)
  config, params = hf_small.load(hf_small.write(tmp_path, 'qwen3', weights))
  assert config.tie_embeddings and 'head' not in params


def test_numbers_beyond_float16_are_refused(tmp_path):
  folder = hf_small.write(tmp_path, 'qwen2', _changed('model.norm.weight', lambda x: x + 1e5))
  with pytest.raises(ValueError, match="'model.norm.weight' has values that float16 cannot hold"):
    hf_small.load(folder, param_dtype='float16')


def test_exports_that_are_refused(tmp_path):
  config = small.small_config()
  params = build_policy(config).init(jax.random.key(0))
  with pytest.raises(ValueError, match="dtype='int8' must be one of"):
    hf.save(tmp_path, params, config, 'int8')
  with pytest.raises(ValueError, match='head differs'):
    hf.save(tmp_path, params, small.small_config(tie_embeddings=False), 'float32')
  with pytest.raises(ValueError, match='embed.embedding differs'):
    hf.save(tmp_path, params, small.small_config(vocab_size=62), 'float32')
  assert not list(tmp_path.iterdir())
  hf.save(tmp_path, params, config, 'float32')
  with pytest.raises(FileExistsError, match='holds weights already; choose another folder'):
    hf.save(tmp_path, params, config, 'float32')


# A model of the shapes of Qwen2.5-0.5B with two more layers: 1.05 GB in bfloat16.
_LARGE = dict(vocab_size=151_936, hidden_size=896, num_hidden_layers=26, num_attention_heads=14,
              num_key_value_heads=2, head_dim=64, intermediate_size=4864,
              tie_word_embeddings=True)
_MEASURE = """
import sys, jax
from tests.model import hf_small
import pathlib
def kib(key):
  lines = open('/proc/self/status').read().splitlines()
  return int(next(line for line in lines if line.startswith(key)).split()[1])
jax.block_until_ready(jax.numpy.zeros(8) + 1)
before = kib('VmRSS:')
params = hf_small.load(pathlib.Path(sys.argv[1]), param_dtype=sys.argv[2])[1]
size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print((kib('VmHWM:') - before) * 1024 / size, size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='no /proc to measure by')
def test_peak_memory_of_a_large_file(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(make_hf.raw_config('qwen2', **_LARGE)))
  config = hf_small.config_of(tmp_path)
  weights = {tensor.name.format(i): np.full(tensor.shape, 0.5, ml_dtypes.bfloat16)
             for path, tensor in hf.tensors(config).items()
             for i in range(config.num_layers if path.startswith('layers.') else 1)}
  safetensors.numpy.save_file(weights, tmp_path / 'model.safetensors')
  del weights
  assert (tmp_path / 'model.safetensors').stat().st_size >= 10**9
  for dtype in ('bfloat16', 'float32'):
    # Not ru_maxrss: a child starts with its parent's, and the high-water mark below with 0.
    done = subprocess.run(
        [sys.executable, '-c', _MEASURE, tmp_path, dtype], cwd=ROOT, check=True, text=True,
        capture_output=True, env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': '.'})
    ratio, size = map(float, done.stdout.split())
    print(f'{dtype}: peak {ratio:.3f}x of {size / 1e9:.2f} GB')
    assert ratio <= 1.3
