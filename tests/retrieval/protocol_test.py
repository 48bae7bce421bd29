"""Every back end has the protocol's signature."""

import inspect

import pytest

from mem1_jax import retrieval
from mem1_jax.retrieval import bm25, client, dense, protocol, rerank


@pytest.mark.parametrize('back_end', [
    bm25.BM25Retriever, client.RemoteRetriever, dense.DenseRetriever, rerank.Reranked])
def test_it_is_a_retriever(back_end):
  assert retrieval.Retriever is protocol.Retriever
  assert (list(inspect.signature(back_end.search).parameters)
          == list(inspect.signature(protocol.Retriever.search).parameters))
