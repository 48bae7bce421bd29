"""Every back end has the protocol's signature."""

import inspect

import pytest

from mem1_jax import retrieval
from mem1_jax.retrieval import bm25, client, dense, protocol, rerank
from mem1_jax.retrieval import tally, web_pages, web_record, web_small


@pytest.mark.parametrize('back_end', [
    bm25.BM25Retriever, client.RemoteRetriever, dense.DenseRetriever, rerank.Reranked,
    web_small.SmallWeb, web_record.Recorder, web_record.Replay])
def test_it_is_a_retriever(back_end):
  assert retrieval.Retriever is protocol.Retriever
  assert (list(inspect.signature(back_end.search).parameters)
          == list(inspect.signature(protocol.Retriever.search).parameters))


@pytest.mark.parametrize('back_end', [
    web_pages.WebPages, web_small.SmallWeb, web_record.Recorder, web_record.Replay])
def test_it_opens_pages(back_end):
  assert retrieval.Pages is protocol.Pages
  assert (list(inspect.signature(back_end.open).parameters)
          == list(inspect.signature(protocol.Pages.open).parameters))


@pytest.mark.parametrize('part', [
    bm25.BM25Retriever, client.RemoteRetriever, dense.DenseRetriever, rerank.Reranked,
    web_small.SmallWeb, web_record.Recorder, web_record.Replay, web_pages.WebPages])
def test_it_counts(part):
  assert issubclass(part, protocol.Counted)


def test_metrics_are_of_what_counts_each_once():
  one, other = tally.Tally('search', ('queries',), ()), tally.Tally('pages', ('asked',), ())
  one.count('queries', 2)
  assert retrieval.metrics_of(one, other, one) == {'search_queries': 2, 'pages_asked': 0}
  assert retrieval.metrics_of(object(), None) == retrieval.metrics_of() == {}


def test_words():
  assert [protocol.has_word(query) for query in ('a', '?7', 'ø', '', ' ?!…')] == [
      True, True, True, False, False]
