"""Hidden states and logits equal those that transformers made; padding changes nothing."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.retrieval.dense import bert, settings, weights
from tests.retrieval.dense import bert_small

GOLDENS = pathlib.Path(__file__).parents[2] / 'goldens' / 'bert.npz'


def load(folder, dtype='float32', is_classifier=False):
  config = settings.bert_config(folder)
  return jax.device_put(weights.load(folder, config, dtype, is_classifier)), config


# As programs: op by op, each would be compiled alone.
hidden_states = jax.jit(bert.hidden_states, static_argnums=1)
sentence_vectors = jax.jit(bert.sentence_vectors, static_argnums=(1, 2))
scores = jax.jit(bert.scores, static_argnums=1)


def is_text(lengths, size):
  return np.arange(size)[None] < lengths[:, None]


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_stored_hidden_states(family, tmp_path):
  golden = np.load(GOLDENS)[family]
  params, config = load(bert_small.write(tmp_path, family))
  tokens, types, lengths = bert_small.inputs(family)
  ours = hidden_states(params, config, tokens, types, lengths)
  assert ours.dtype == jnp.float32 and np.abs(golden).max() > 1
  mask = is_text(lengths, 19)
  np.testing.assert_allclose(np.asarray(ours)[mask], golden[mask], atol=2e-5)
  half, _ = load(tmp_path, 'bfloat16')
  rough = hidden_states(half, config, tokens, types, lengths)
  assert rough.dtype == jnp.bfloat16
  gap = np.abs(np.asarray(rough, np.float32)[mask] - golden[mask])
  assert 1e-4 < gap.mean() < 0.05


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_stored_logits_of_a_classifier(family, tmp_path):
  golden = np.load(GOLDENS)[f'{family}_scores']
  folder = bert_small.write(tmp_path, family, is_classifier=True, prefix=f'{family}.')
  params, config = load(folder, is_classifier=True)
  ours = scores(params, config, *bert_small.inputs(family))
  assert golden.std() > 0.01
  np.testing.assert_allclose(ours, golden, atol=1e-5)


def test_padding_and_what_lies_in_it_change_nothing(tmp_path):
  params, config = load(bert_small.write(tmp_path))
  tokens, types, lengths = bert_small.inputs()
  mask = is_text(lengths, 19)
  before = np.asarray(hidden_states(params, config, tokens, types, lengths))
  other = np.where(mask, tokens, 9)
  again = hidden_states(params, config, other, types, lengths)
  np.testing.assert_array_equal(again[mask], before[mask])
  tokens, types = (np.pad(x, ((0, 0), (0, 5))) for x in (tokens, types))
  wider = hidden_states(params, config, tokens, types, lengths)
  np.testing.assert_allclose(wider[:, :19][mask], before[mask], atol=1e-5)


@pytest.mark.parametrize('kind, is_normalised', [('mean', True), ('mean', False), ('cls', True)])
def test_pooling(kind, is_normalised, tmp_path):
  params, config = load(bert_small.write(tmp_path))
  tokens, types, lengths = bert_small.inputs()
  hidden = np.asarray(hidden_states(params, config, tokens, types, lengths))
  expected = (hidden[:, 0] if kind == 'cls'
              else np.stack([row[:n].mean(axis=0) for row, n in zip(hidden, lengths)]))
  if is_normalised:
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
  found = sentence_vectors(
      params, config, settings.Pooling(kind, is_normalised), tokens, types, lengths)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('name, at_1', [('gelu', 0.8413447), ('gelu_new', 0.8411920),
                                        ('gelu_pytorch_tanh', 0.8411920), ('relu', 1.0)])
def test_activations(name, at_1):
  assert float(bert._ACTIVATIONS[name](jnp.float32(1.0))) == pytest.approx(at_1, abs=1e-6)
  assert name in settings._ACTIVATIONS
