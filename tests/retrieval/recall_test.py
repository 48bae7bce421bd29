"""Gold recall by hand, and that of the retrievers on a hundred questions of HotpotQA."""

import json

import numpy as np
import pytest

from mem1_jax import index, types
from mem1_jax.retrieval import bm25, documents, recall
from tests.retrieval.dense import parity_test


def passages(*titles):
  return [types.Passage(title, '') for title in titles]


def test_shares_are_averaged_over_questions():
  found = [passages('a', 'x', 'b'), passages('y'), []]
  gold = [{'a', 'b'}, {'y'}, {'z'}]
  assert recall.gold_recall(found, gold, 3) == pytest.approx((1 + 1 + 0) / 3)
  assert recall.gold_recall(found, gold, 2) == pytest.approx((0.5 + 1 + 0) / 3)
  for wrong in ([], [{'a'}, set(), {'z'}]):
    with pytest.raises(ValueError, match='give at least 1, each with its titles'):
      recall.gold_recall(found[:len(wrong)], wrong, 3)


def hotpotqa(shared_data):
  """(994 passages, 100 questions, the titles of each one's supporting facts)."""
  folder = shared_data / 'hotpotqa'
  corpus = [d.passage for d in documents.read([folder / 'corpus_994.json'])]
  raw = json.loads((folder / 'questions_100.json').read_text())
  return corpus, [q['question'] for q in raw], [
      {title for title, _ in q['supporting_facts']} for q in raw]


def words(corpus):
  return bm25.BM25Retriever(corpus, k1=1.2, b=0.75, title_weight=2)


@pytest.mark.shared_data
def test_bm25_on_hotpotqa(shared_data):
  corpus, questions, gold = hotpotqa(shared_data)
  assert len(corpus) == 994 and len(questions) == 100
  assert recall.gold_recall(words(corpus).search(questions, 5), gold, 5) >= 0.75


@pytest.mark.slow  # a minute for 994 passages on one core, and as much again with torch
@pytest.mark.shared_data
def test_minilm_on_hotpotqa(shared_data, record_property):
  folder, (corpus, questions, gold) = parity_test.minilm(), hotpotqa(shared_data)
  encoder = index.SentenceEncoder(folder)
  dense = index.over(encoder, corpus)
  found = dense.search(questions, 5)
  ours = recall.gold_recall(found, gold, 5)
  record_property('gold_recall_at_5', ours)
  assert ours > recall.gold_recall(words(corpus).search(questions, 5), gold, 5) >= 0.75
  pytest.importorskip('torch')
  filled = [f'{passage.title} {passage.text}' for passage in corpus]
  scores = np.matmul(*(x.T if i else x for i, x in enumerate(
      parity_test.theirs(folder, texts, encoder.max_length) for texts in (questions, filled))))
  order = np.argsort(-scores, axis=1, kind='stable')[:, :5]
  assert [[p.title for p in hits] for hits in found] == [
      [corpus[i].title for i in row] for row in order]
  np.testing.assert_allclose([[p.score for p in hits] for hits in found],
                             np.take_along_axis(scores, order, axis=1), atol=1e-5)
