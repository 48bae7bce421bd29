"""What the JSON files of an encoder say, and what is refused."""

import json

import pytest

from mem1_jax.retrieval.dense import settings
from tests.retrieval.dense import bert_small


def write(folder, name, **raw):
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(json.dumps(raw))
  return folder


def test_sizes(tmp_path):
  config = settings.bert_config(write(tmp_path, 'config.json', **bert_small.raw_config()))
  assert (config.dim, config.ffn_dim, config.num_layers, config.num_heads) == (24, 40, 2, 3)
  assert config.norm_eps == 1e-3 and config.num_types == 2 and config.max_length == 70
  raw = bert_small.raw_config('roberta')
  config = settings.bert_config(write(tmp_path, 'config.json', **raw))
  assert config.first_position == 2 and config.max_length == 68


@pytest.mark.parametrize('change, message', [
    (dict(model_type='mpnet'), "model_type 'mpnet' is not supported; use an encoder of one of"),
    (dict(position_embedding_type='relative_key'), 'position_embedding_type .*absolute'),
    (dict(hidden_act='swish'), "hidden_act 'swish' is not supported; use .*gelu"),
    (dict(is_decoder=True), 'is_decoder True is not supported'),
    (dict(num_attention_heads=5), 'num_attention_heads 5 .*must divide hidden_size 24'),
    (dict(layer_norm_eps=None), "lacks 'layer_norm_eps'"),
])
def test_what_is_not_computed_is_refused(change, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    settings.bert_config(write(tmp_path, 'config.json', **(bert_small.raw_config() | change)))


def test_files_that_are_not_there_or_no_json(tmp_path):
  with pytest.raises(FileNotFoundError, match='config.json is missing; give the folder'):
    settings.bert_config(tmp_path)
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(ValueError, match='config.json is not JSON .*fetch'):
    settings.bert_config(tmp_path)


def test_pooling(tmp_path):
  assert settings.pooling(tmp_path) == settings.Pooling('mean', True)  # as E5 has it
  for kind, is_normalised in (('mean', True), ('cls', False)):
    bert_small.write_modules(tmp_path, kind, is_normalised)
    assert settings.pooling(tmp_path) == settings.Pooling(kind, is_normalised)
    write(tmp_path, '1_Pooling/config.json', pooling_mode=kind, embedding_dimension=24)
    assert settings.pooling(tmp_path) == settings.Pooling(kind, is_normalised)


def test_other_pooling_is_refused(tmp_path):
  bert_small.write_modules(tmp_path, 'max', True)
  with pytest.raises(ValueError, match=r"pooling by \['pooling_mode_max_tokens'\].*use"):
    settings.pooling(tmp_path)
  bert_small.write_modules(tmp_path, 'mean', True, pooling_mode_lasttoken=True)
  with pytest.raises(ValueError, match='lasttoken'):
    settings.pooling(tmp_path)
  bert_small.write_modules(tmp_path, 'mean', True, include_prompt=False)
  with pytest.raises(ValueError, match='include_prompt False'):
    settings.pooling(tmp_path)
  modules = [{'type': f'sentence_transformers.models.{kind}', 'path': ''}
             for kind in ('Transformer', 'Pooling', 'Dense')]
  (tmp_path / 'modules.json').write_text(json.dumps(modules))
  with pytest.raises(ValueError, match=r"modules \['Dense'\] are not supported"):
    settings.pooling(tmp_path)
  (tmp_path / 'modules.json').write_text(json.dumps(modules[:1]))
  with pytest.raises(ValueError, match='has no Pooling'):
    settings.pooling(tmp_path)


def test_max_length(tmp_path):
  config = settings.bert_config(write(tmp_path, 'config.json', **bert_small.raw_config()))
  assert settings.max_length(tmp_path, config, None) == 70
  write(tmp_path, 'tokenizer_config.json', model_max_length=10**30)
  assert settings.max_length(tmp_path, config, None) == 70
  write(tmp_path, 'sentence_bert_config.json', max_seq_length=50)
  assert settings.max_length(tmp_path, config, None) == 50
  assert settings.max_length(tmp_path, config, 60) == 60
  for asked in (2, 71):
    with pytest.raises(ValueError, match=f'max_length={asked} is outside 3 to 70'):
      settings.max_length(tmp_path, config, asked)


@pytest.mark.parametrize('name, raw, prompts, expected', [
    ('e5-base-v2', {}, None, settings.E5_PREFIXES),
    ('multilingual_e5', {}, {}, settings.E5_PREFIXES),
    ('x', {'_name_or_path': 'intfloat/e5-small'}, {'query': '', 'document': ''},
     settings.E5_PREFIXES),
    ('base5', {}, None, ('', '')),
    ('models--intfloat--e5-large/snapshots/0a1b', {}, None, settings.E5_PREFIXES),
    ('e5/of/any/name', {}, None, ('', '')),
    ('e5', {}, {'query': 'Q ', 'passage': 'P '}, ('Q ', 'P ')),
    ('x', {}, {'query': 'Q ', 'document': 'D '}, ('Q ', 'D ')),
    ('x', {}, {'query': 'Q '}, ('Q ', '')),
])
def test_prefixes(name, raw, prompts, expected, tmp_path):
  folder = write(tmp_path / name, 'config.json', **raw)
  if prompts is not None:
    write(folder, 'config_sentence_transformers.json', prompts=prompts)
  assert settings.prefixes(folder) == expected
