"""BM25 has the protocol's signature."""

import inspect

from mem1_jax import retrieval
from mem1_jax.retrieval import bm25
from mem1_jax.retrieval import protocol


def test_bm25_is_a_retriever():
  assert retrieval.Retriever is protocol.Retriever
  assert (list(inspect.signature(bm25.BM25Retriever.search).parameters)
          == list(inspect.signature(protocol.Retriever.search).parameters))
