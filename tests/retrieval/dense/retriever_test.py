"""The retriever's promises: order, ties, batches, cache, limits."""

from concurrent import futures

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.retrieval.dense import encoder, retriever, texts
from mem1_jax.retrieval.nearest import Flat, Vectors
from tests.retrieval.dense import bert_small

CORPUS = [types.Passage(f'p{chr(97 + i)}', 'sea fjord capital norway oslo'[i:i + 12])
          for i in range(12)] + [types.Passage('Twin', 'same'), types.Passage('twin', 'same')]
QUERIES = ['oslo', '', 'norway city', 'oslo', 'twin same', 'OSLO ']


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  return encoder.SentenceEncoder(bert_small.write(tmp_path_factory.mktemp('retriever')))


@pytest.fixture(scope='module')
def vectors(small):
  filled = [texts.fill(texts.TEMPLATE, passage) for passage in CORPUS]
  return Vectors([small.encode_passages(small.tokenize_passages(filled))])


def build(small, vectors, **kwargs):
  return retriever.DenseRetriever(small, CORPUS, Flat(vectors), **kwargs)


def test_scores_are_inner_products_best_first(small, vectors):
  found = build(small, vectors).search(['oslo'], 5)[0]
  query = small.encode_queries(small.tokenize_queries(['oslo']))[0].astype(np.float64)
  scores = vectors.rows(np.arange(14)) @ query
  order = np.lexsort((np.arange(14), -scores))[:5]
  assert [p.title for p in found] == [CORPUS[i].title for i in order]
  np.testing.assert_allclose([p.score for p in found], scores[order], rtol=1e-12)


def test_ties_go_to_the_first(small):
  same = Vectors([np.repeat(np.eye(24, dtype=np.float32)[:1], 14, axis=0)])
  found = build(small, same).search(['oslo'], 3)[0]
  assert [p.title for p in found] == ['pa', 'pb', 'pc']


def test_a_batch_is_its_queries_one_by_one(small, vectors):
  whole = build(small, vectors).search(QUERIES, 4)
  assert whole == [build(small, vectors).search([query], 4)[0] for query in QUERIES]
  assert whole[0] == whole[3] == whole[5] and whole[1] == []
  assert build(small, vectors).search([], 4) == []


@pytest.mark.parametrize('query', ['', '  ', '?!', '\n'])
def test_nothing_to_look_for_finds_nothing(query, small, vectors):
  assert build(small, vectors).search([query], 5) == [[]]


def test_results_are_cached_by_tokens(small, vectors):
  dense = build(small, vectors, cache_size=2)
  first = dense.search(['oslo', ' Oslo', 'oslo'], 2)[0]
  assert dense.cache_info() == (2, 1, 2, 1)
  first.clear()  # the caller's list is its own
  assert len(dense.search(['oslo'], 2)[0]) == 2
  assert len(dense.search(['oslo'], 3)[0]) == 3
  dense.search(['sea'], 2)  # ('oslo', 2) was asked longest ago
  assert dense.cache_info() == (3, 3, 2, 2)
  dense.search(['oslo'], 2)
  assert dense.cache_info().misses == 4


def test_limits(small, vectors):
  dense = build(small, vectors)
  assert len(dense.search(['sea'], 99)[0]) == len(CORPUS)
  dense.search(['sea ' * 99], 1)
  assert dense.num_cut == 1
  assert dense.metrics() == {
      'search_queries': 2, 'search_cache_hits': 0, 'search_cut_queries': 1}
  with pytest.raises(ValueError, match='top_k=0 is below 1'):
    dense.search(['a'], 0)
  for passages, wrong in ((CORPUS[:3], vectors), (CORPUS, Vectors([np.zeros([14, 8])]))):
    with pytest.raises(ValueError, match='passages and an encoder of 24; index'):
      retriever.DenseRetriever(small, passages, Flat(wrong))


def test_threads_may_ask_at_once(small, vectors):
  dense = build(small, vectors, cache_size=3)
  asked = [[QUERIES[i % 6], f'{chr(97 + i)} sea'] for i in range(20)]
  expected = [build(small, vectors).search(queries, 3) for queries in asked]
  with futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(lambda queries: dense.search(queries, 3), asked)) == expected
