"""BM25: titles, ties, limits, cache, and that jax stays asleep."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.retrieval import bm25

CORPUS = [
    types.Passage('Oslo Airport', 'Oslo Airport serves Oslo. Oslo, Oslo, Oslo.'),
    types.Passage('Norway', 'The capital of Norway is Oslo.'),
    types.Passage('Oslo', 'A city with a fjord and many more words that dilute its score.'),
    types.Passage('Reykjavík', 'A city.'),
    types.Passage('Twin', 'same words'),
    types.Passage('Twin', 'same words'),
]


def build(passages=CORPUS, **kwargs):
  return bm25.BM25Retriever(passages, **(dict(k1=1.2, b=0.75, title_weight=2) | kwargs))


def titles(retriever, query, top_k=10):
  return [passage.title for passage in retriever.search([query], top_k)[0]]


def test_words_fold_case_and_accents():
  assert bm25.words('Reykjavík, ÅNGSTRÖM-7!') == ('reykjavik', 'angstrom', '7')


def test_a_possessive_is_no_word():
  assert bm25.words("Spain's capital, Oslo’S fjord") == ('spain', 'capital', 'oslo', 'fjord')
  assert bm25.words("Xi'an's Soho s") == ("xi", "an", "soho", "s")
  corpus = [*CORPUS, types.Passage('Sulfur', 'The symbol is S.')]
  assert titles(build(corpus), "Norway's")[0] == 'Norway'


def test_a_title_query_finds_its_document_first():
  assert titles(build(), 'oslo')[0] == 'Oslo'
  assert titles(build(), 'OSLO airport')[0] == 'Oslo Airport'
  assert titles(build(), 'reykjavik') == ['Reykjavík']
  assert titles(build(), 'capital of norway')[0] == 'Norway'


def test_title_words_count_more():
  corpus = [types.Passage('Bergen', 'sea'), types.Passage('Moss', 'bergen sea')]
  light = [p.score for p in build(corpus, title_weight=1).search(['bergen sea'], 2)[0]]
  heavy = build(corpus, title_weight=5).search(['bergen sea'], 2)[0]
  assert heavy[0].title == 'Bergen'
  assert heavy[0].score - heavy[1].score > abs(light[0] - light[1])


def test_scores_are_lucene_bm25():
  corpus = [types.Passage('a', 'x x y'), types.Passage('b', 'y'), types.Passage('c', 'z')]
  found = build(corpus, title_weight=1).search(['x'], 3)[0]
  # idf = ln(1 + (3 - 1 + .5) / (1 + .5)); length 4 of mean 8/3; tf 2
  expected = np.log(1 + 2.5 / 1.5) * 2 / (2 + 1.2 * (0.25 + 0.75 * 4 / (8 / 3)))
  assert [p.title for p in found] == ['a']
  assert found[0].score == pytest.approx(expected, rel=1e-5)


def test_ties_go_to_the_first_and_limits_hold():
  retriever = build()
  found = retriever.search(['same'], 1)[0]
  assert found == retriever.search(['same'], 10)[0][:1]
  many = [types.Passage(f't{i}', 'tie') for i in range(50)]
  assert titles(build(many), 'tie', 3) == ['t0', 't1', 't2']
  assert titles(build(many), 'tie', 99) == [f't{i}' for i in range(50)]
  scores = [p.score for p in retriever.search(['oslo city capital'], 10)[0]]
  assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize('query', ['', '  ', '?!', 'zzz', '<search>'])
def test_nothing_to_look_for_finds_nothing(query):
  assert build().search([query], 5) == [[]]


def test_a_batch_is_its_queries_one_by_one():
  retriever, queries = build(), ['oslo', '', 'norway city', 'oslo', 'twin']
  assert retriever.search(queries, 2) == [build().search([q], 2)[0] for q in queries]
  assert retriever.search([], 2) == []


def test_results_are_cached_by_words(monkeypatch):
  retriever = build(cache_size=2)
  retriever.search(['Oslo', ' oslo!', 'oslo'], 2)
  info = retriever.cache_info()
  assert (info.misses, info.hits, info.maxsize) == (1, 2, 2)
  assert retriever.metrics() == {'search_queries': 3, 'search_cache_hits': 2}
  first = retriever.search(['oslo'], 2)[0]
  first.clear()  # the caller's list is its own
  assert len(retriever.search(['oslo'], 2)[0]) == 2


@pytest.mark.parametrize('kwargs', [dict(k1=-1), dict(b=1.5), dict(title_weight=0)])
def test_bad_arguments(kwargs):
  with pytest.raises(ValueError, match=next(iter(kwargs))):
    build(**kwargs)
  with pytest.raises(ValueError, match='0 passages'):
    build([])
  with pytest.raises(ValueError, match='top_k=0'):
    build().search(['a'], 0)


def test_passages_without_words():
  assert titles(build([types.Passage('?', '!'), types.Passage('a', 'b')]), 'a ?') == ['a']
  with pytest.raises(ValueError, match='none of the 1 passages'):
    build([types.Passage('?', '!')])


def test_building_an_index_does_not_wake_jax():
  """bm25s would run jax at its import; distributed start-up must come first."""
  code = textwrap.dedent('''
      import sys
      from mem1_jax import types
      from mem1_jax.retrieval import bm25
      passages = [types.Passage('a', 'b')]
      found = bm25.BM25Retriever(passages, k1=1.2, b=0.75, title_weight=1).search(['a'], 1)
      assert len(found[0]) == 1
      woken = [name for name in sys.modules if name.partition('.')[0] in ('jax', 'jaxlib')]
      assert not woken, woken
  ''')
  subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
