"""Reranking: a scorer's order over a retriever's candidates."""

import pytest

from mem1_jax import types
from mem1_jax.retrieval import bm25, rerank

CORPUS = [types.Passage(title, 'sea') for title in ('a', 'bbb', 'cc', 'dd')]


class ByTitleLength:

  def __init__(self):
    self.asked = []

  def scores(self, query, passages):
    self.asked.append((query, len(passages)))
    return [float(len(passage.title)) for passage in passages]


def build(num_candidates):
  scorer = ByTitleLength()
  found = bm25.BM25Retriever(CORPUS, k1=1.2, b=0.75, title_weight=1)
  return rerank.Reranked(found, scorer, num_candidates), scorer


def test_the_scorers_order_ties_as_they_came():
  reranked, scorer = build(4)
  found = reranked.search(['sea', 'nothing'], 3)
  assert [p.title for p in found[0]] == ['bbb', 'cc', 'dd']
  assert [p.score for p in found[0]] == [3, 2, 2] and found[1] == []
  assert scorer.asked == [('sea', 4)]  # nothing to score, nothing asked


def test_only_candidates_are_ranked():
  assert [p.title for p in build(1)[0].search(['sea'], 1)[0]] == ['a']


def test_an_outage_stays_one_and_is_not_ranked():
  outage = types.Unavailable('timeouts: slow')

  class Half:
    """Can do every other search (a fake)."""

    def search(self, queries, top_k):
      return [outage if i % 2 else CORPUS[:top_k] for i in range(len(queries))]

  scorer = ByTitleLength()
  found = rerank.Reranked(Half(), scorer, 2).search(['sea', 'sea'], 1)
  assert [p.title for p in found[0]] == ['bbb'] and found[1] == outage
  assert scorer.asked == [('sea', 2)]


def test_its_metrics_are_those_of_its_parts():
  reranked, _ = build(4)
  reranked.search(['sea'], 1)
  assert reranked.metrics() == {'search_queries': 1, 'search_cache_hits': 0}


def test_limits():
  with pytest.raises(ValueError, match='num_candidates=0 is below 1'):
    build(0)
  for top_k in (0, 3):
    with pytest.raises(ValueError, match=f'top_k={top_k} is outside 1 to num_candidates=2'):
      build(2)[0].search(['sea'], top_k)
