"""Vectors of texts: what they are, that queries do not see each other, devices, programs."""

import jax
import numpy as np
import pytest

from mem1_jax import metrics, types
from mem1_jax.retrieval.dense import bert, encoder, settings, weights
from tests.retrieval.dense import bert_small

QUERIES = ['oslo', 'the capital of norway is', 'a' * 40, 'sea', 'a, b? c!', 'fjord']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return bert_small.write(tmp_path_factory.mktemp('encoder'))


@pytest.fixture(scope='module')
def small(folder):
  return encoder.SentenceEncoder(folder, query_prefix='q: ', batch_tokens=128)


@pytest.fixture(scope='module')
def vector(folder):
  """text → its vector, without batches: one program for texts of up to 48 tokens."""
  config = settings.bert_config(folder)
  params = weights.load(folder, config, 'float32')

  @jax.jit
  def run(params, ids, length):
    return bert.sentence_vectors(
        params, config, settings.Pooling('mean', True), ids, ids * 0, length)

  def of(text):
    ids = np.array(bert_small.tokenizer().encode(text).ids, np.int32)
    padded = np.pad(ids, (0, 48 - len(ids)))
    return np.asarray(run(params, padded[None], np.array([len(ids)], np.int32)))[0]

  return of


def test_vectors_are_those_of_the_texts_with_their_prefix(small, vector):
  assert small.prefixes == ('q: ', '') and small.dim == 24 and small.max_length == 70
  queries = small.encode_queries(small.tokenize_queries(QUERIES))
  passages = small.encode_passages(small.tokenize_passages(QUERIES))
  assert queries.dtype == passages.dtype == np.float32
  for text, query, passage in zip(QUERIES[:3], queries, passages):
    np.testing.assert_allclose(query, vector(f'q: {text}'), atol=1e-6)
    np.testing.assert_allclose(passage, vector(text), atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-6)


def test_a_query_has_the_same_bits_in_any_company(small):
  def encode(queries):
    return small.encode_queries(small.tokenize_queries(queries))

  together = encode(QUERIES * 7)  # more than go at once
  assert together.shape == (42, 24)
  np.testing.assert_array_equal(together, np.tile(encode(QUERIES), (7, 1)))
  np.testing.assert_array_equal(encode(QUERIES[::-1]), encode(QUERIES)[::-1])
  for query, row in zip(QUERIES, together):
    np.testing.assert_array_equal(encode([query])[0], row)
  assert encode([]).shape == (0, 24)


def test_progress_is_heard(small):
  done = []
  small.encode_passages(small.tokenize_passages(QUERIES * 3), done.append)
  assert sum(done) == 18 and len(done) > 1


def test_several_devices_make_the_same_vectors(folder, small):
  wide = encoder.SentenceEncoder(folder, query_prefix='q: ', batch_tokens=128,
                                 devices=jax.devices()[:2])
  tokens = small.tokenize_passages(QUERIES * 3)
  np.testing.assert_allclose(
      wide.encode_passages(tokens), small.encode_passages(tokens), atol=1e-6)
  queries = small.tokenize_queries(QUERIES)
  np.testing.assert_array_equal(wide.encode_queries(queries), small.encode_queries(queries))


def test_nothing_is_compiled_after_the_warm_up(folder):
  cold = encoder.SentenceEncoder(folder)
  cold.warm_up()
  counter = metrics.CompileCounter()
  cold.encode_queries(cold.tokenize_queries([*QUERIES, 'b' * 64, 'c' * 99]))
  counter.assert_none()


def test_a_fingerprint_is_of_what_makes_vectors(folder, small, tmp_path):
  def fingerprint(folder, **kwargs):
    return encoder.SentenceEncoder(folder, **kwargs).fingerprint

  same = bert_small.write(tmp_path / 'same')
  assert fingerprint(same) == fingerprint(folder, batch_tokens=64) == small.fingerprint
  assert len({small.fingerprint, fingerprint(folder, max_length=9),
              fingerprint(folder, dtype='bfloat16'),
              fingerprint(bert_small.write(tmp_path / 'seed', seed=1)),
              fingerprint(bert_small.write(tmp_path / 'cls', pooling='cls'))}) == 5


def test_an_unknown_dtype(folder):
  with pytest.raises(ValueError, match="dtype 'float16' is unknown; choose one of"):
    encoder.SentenceEncoder(folder, dtype='float16')


def test_a_cross_encoder_scores_pairs_one_by_one(tmp_path):
  folder = bert_small.write(tmp_path, is_classifier=True, prefix='bert.')
  cross = encoder.CrossEncoder(folder, template='{title}: {text}')
  passages = [types.Passage('a', 'sea'), types.Passage('b', 'fjord'), types.Passage('c', 'x' * 99)]
  found = cross.scores('oslo', passages)
  assert cross.num_cut == 1 and len(set(found)) == 3
  assert cross.metrics() == {'rerank_pairs': 3, 'rerank_cut_pairs': 1}
  assert [cross.scores('oslo', [passage])[0] for passage in passages] == found
  config = settings.bert_config(folder)
  pair = bert_small.tokenizer().encode('oslo', 'a: sea')
  ids, length = np.array([pair.ids, pair.type_ids], np.int32), np.array([len(pair.ids)])
  expected = jax.jit(lambda params: bert.scores(params, config, ids[:1], ids[1:], length))(
      weights.load(folder, config, 'float32', True))
  assert found[0] == pytest.approx(float(expected[0]), abs=1e-6)
  assert cross.scores('oslo', []) == []
