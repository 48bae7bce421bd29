"""config.json: what is read, what is refused, and that writing inverts reading."""

import json

import pytest

from mem1_jax.model import hf_config, named_config
from tests.goldens import make_hf
from tests.model import small

DTYPES = dict(param_dtype='float32', dtype='bfloat16')
# Qwen/Qwen2.5-7B and Qwen/Qwen3-0.6B on the hub, without the keys that nothing reads.
QWEN25_7B = {
    'architectures': ['Qwen2ForCausalLM'], 'hidden_act': 'silu', 'hidden_size': 3584,
    'initializer_range': 0.02, 'intermediate_size': 18944, 'max_position_embeddings': 131072,
    'max_window_layers': 28, 'model_type': 'qwen2', 'num_attention_heads': 28,
    'num_hidden_layers': 28, 'num_key_value_heads': 4, 'rms_norm_eps': 1e-06,
    'rope_theta': 1000000.0, 'sliding_window': 131072, 'tie_word_embeddings': False,
    'torch_dtype': 'bfloat16', 'use_sliding_window': False, 'vocab_size': 152064}
QWEN3_06B = {
    'architectures': ['Qwen3ForCausalLM'], 'attention_bias': False, 'head_dim': 128,
    'hidden_act': 'silu', 'hidden_size': 1024, 'initializer_range': 0.02,
    'intermediate_size': 3072, 'max_window_layers': 28, 'model_type': 'qwen3',
    'num_attention_heads': 16, 'num_hidden_layers': 28, 'num_key_value_heads': 8,
    'rms_norm_eps': 1e-06, 'rope_scaling': None, 'rope_theta': 1000000, 'sliding_window': None,
    'tie_word_embeddings': True, 'use_sliding_window': False, 'vocab_size': 151936}


@pytest.mark.parametrize('raw, name', [(QWEN25_7B, 'qwen2.5-7b'), (QWEN3_06B, 'qwen3-0.6b')])
def test_published_files_give_the_named_sizes(raw, name):
  assert hf_config.from_hf(raw, 'x', remat='dots', **DTYPES) == named_config(name)


def test_the_layout_of_transformers_5():
  raw = {key: value for key, value in QWEN25_7B.items() if key != 'rope_theta'} | {
      'rope_parameters': {'rope_type': 'default', 'rope_theta': 7.0},
      'layer_types': ['full_attention'] * 28, 'use_sliding_window': True}
  assert hf_config.from_hf(raw, 'x', **DTYPES).rope_theta == 7.0


def test_llama_defaults():
  raw = make_hf.raw_config('llama', head_dim=None, num_key_value_heads=None)
  del raw['rope_theta'], raw['tie_word_embeddings']
  config = hf_config.from_hf(raw, 'x', **DTYPES)
  assert (config.head_dim, config.num_kv_heads, config.rope_theta) == (6, 4, 1e4)
  assert not (config.tie_embeddings or config.qkv_bias or config.o_bias or config.qk_norm)


@pytest.mark.parametrize('family, overrides, message', [
    ('gpt2', {}, "model_type = 'gpt2' is not supported; use a checkpoint of one of"),
    ('llama', {'hidden_act': 'gelu'}, "hidden_act = 'gelu'"),
    ('llama', {'mlp_bias': True}, 'mlp_bias = True'),
    ('llama', {'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}}, 'rope_scaling = .*llama3'),
    ('qwen2', {'rope_scaling': {'type': 'yarn', 'factor': 4.0}}, 'rope_scaling = .*set it to null'),
    ('qwen2', {'rope_parameters': {'rope_type': 'linear'}}, 'rope_parameters = .*linear'),
    ('llama', {'rope_parameters': {'rope_theta': 1e4, 'partial_rotary_factor': 0.5}}, 'partial_rot'),
    ('qwen2', {'use_sliding_window': True, 'sliding_window': 32, 'max_window_layers': 1},
     'use_sliding_window = True is not supported; set it to false'),
    ('qwen3', {'layer_types': ['full_attention', 'sliding_attention']}, 'layer_types'),
    ('qwen3', {'head_dim': None}, 'head_dim = None'),
    ('qwen2', {'rms_norm_eps': None}, "key 'rms_norm_eps' is missing"),
    ('qwen2', {'rope_theta': None}, "key 'rope_theta' is missing"),
    ('llama', {'quantization_config': {'quant_method': 'awq'}}, 'not quantised'),
    ('llama', {'num_key_value_heads': 3}, 'num_kv_heads=3'),
])
def test_what_we_lack_is_refused_by_file_key_and_remedy(family, overrides, message):
  raw = make_hf.raw_config('llama' if family == 'gpt2' else family)
  with pytest.raises(ValueError, match=f'some/config.json: .*{message}'):
    hf_config.from_hf(raw | {'model_type': family} | overrides, 'some/config.json', **DTYPES)


def test_unused_windows_pass():
  raw = make_hf.raw_config('qwen2', use_sliding_window=True, sliding_window=32, max_window_layers=2)
  assert hf_config.from_hf(raw, 'x', **DTYPES).num_layers == 2


@pytest.mark.parametrize('flags', [
    small.QWEN2, small.QWEN3, dict(qkv_bias=False, qk_norm=False),
    dict(qkv_bias=True, o_bias=True, qk_norm=False), dict(qkv_bias=True, o_bias=True)])
def test_writing_inverts_reading(flags, tmp_path):
  config = small.small_config(**flags)
  raw = hf_config.to_hf(config, 'bfloat16', base={'eos_token_id': 3, 'vocab_size': 0})
  assert raw['eos_token_id'] == 3 and raw['max_position_embeddings'] > 0
  (tmp_path / 'config.json').write_text(json.dumps(raw))
  assert hf_config.is_hf_folder(tmp_path)
  again = hf_config.from_hf(
      hf_config.read_config(tmp_path), tmp_path, param_dtype='float32', dtype='float32')
  assert again == config


def test_a_critic_is_a_token_classifier_with_one_label():
  raw = hf_config.to_hf(small.small_config(), 'float32', is_critic=True)
  assert raw['architectures'] == ['Qwen3ForTokenClassification'] and len(raw['id2label']) == 1


def test_flags_without_an_architecture():
  with pytest.raises(ValueError, match='no architecture of transformers'):
    hf_config.to_hf(small.small_config(qkv_bias=False, o_bias=True, qk_norm=False), 'float32')


def test_files_that_are_missing_or_no_json(tmp_path):
  assert not hf_config.is_hf_folder(tmp_path)
  with pytest.raises(FileNotFoundError, match='config.json is missing; give the folder'):
    hf_config.read_config(tmp_path)
  for text, message in (('{"model_type"', 'is not JSON'), ('[]', 'no JSON object')):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=f'config.json .*{message}'):
      hf_config.read_config(tmp_path)
