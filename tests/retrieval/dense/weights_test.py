"""Tensors by name: prefixes, dtypes, heads, and what is said of those that do not fit."""

import jax
import ml_dtypes
import numpy as np
import pytest

from mem1_jax.retrieval.dense import settings, weights
from tests.retrieval.dense import bert_small


def load(folder, is_classifier=False):
  return weights.load(folder, settings.bert_config(folder), 'float32', is_classifier)


def test_kernels_lie_as_they_multiply(tmp_path):
  params = load(bert_small.write(tmp_path))
  named = bert_small.tensors(bert_small.raw_config())
  up = params['layers']['up']
  assert up['kernel'].shape == (2, 24, 40) and up['bias'].shape == (2, 40)
  for layer in range(2):
    np.testing.assert_array_equal(
        up['kernel'][layer], named[f'encoder.layer.{layer}.intermediate.dense.weight'].T)
  np.testing.assert_array_equal(
      params['embed']['position'], named['embeddings.position_embeddings.weight'])
  assert 'pooler' not in params


@pytest.mark.parametrize('prefix', ['bert.', '0.auto_model.'])
def test_names_may_have_a_prefix(prefix, tmp_path):
  jax.tree.map(np.testing.assert_array_equal, load(bert_small.write(tmp_path / 'x', prefix=prefix)),
               load(bert_small.write(tmp_path / 'y')))


def test_stored_in_half(tmp_path):
  folder = bert_small.write(tmp_path, change=lambda named: {
      name: x.astype(ml_dtypes.bfloat16 if 'query' in name else np.float16)
      for name, x in named.items()})
  params = load(folder)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
  expected = bert_small.tensors(bert_small.raw_config())['encoder.layer.1.output.dense.bias']
  np.testing.assert_array_equal(params['layers']['down']['bias'][1], expected.astype(np.float16))


def _without(name):
  return lambda named: {key: value for key, value in named.items() if name not in key}


@pytest.mark.parametrize('change, message', [
    (_without('layer.1.attention.self.key.bias'),
     r"lacks tensor 'encoder.layer.1.attention.self.key.bias'; use"),
    (_without('word_embeddings'), 'has 0 tensors named …embeddings.word_embeddings.weight'),
    (lambda named: named | {'embeddings.LayerNorm.bias': np.zeros(5, np.float32)},
     r"'embeddings.LayerNorm.bias' has the shape \(5,\), config.json makes it \(24,\)"),
    (lambda named: named | {'embeddings.LayerNorm.bias': np.zeros(24, np.int8)},
     "'embeddings.LayerNorm.bias' is stored as I8; use"),
])
def test_tensors_that_do_not_fit(change, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    load(bert_small.write(tmp_path, change=change))


def test_files_that_do_not_fit(tmp_path):
  folder = bert_small.write(tmp_path)
  file = folder / weights.WEIGHTS
  file.write_bytes(file.read_bytes()[:-4])
  with pytest.raises(ValueError, match='model.safetensors is cut short or damaged'):
    load(folder)
  file.unlink()
  with pytest.raises(FileNotFoundError, match='model.safetensors is missing.*save_pretrained'):
    load(folder)


def test_a_classifier_with_more_labels(tmp_path):
  folder = bert_small.write(tmp_path, is_classifier=True, change=lambda named: named | {
      'classifier.weight': np.zeros([3, 24], np.float32)})
  with pytest.raises(ValueError, match='a classifier with 3 labels; use one with 1'):
    load(folder, is_classifier=True)
