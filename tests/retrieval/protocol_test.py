"""Retrievers have the protocol's signature."""

import inspect

import pytest

from mem1_jax import retrieval
from mem1_jax.retrieval import bm25
from mem1_jax.retrieval import client
from mem1_jax.retrieval import protocol


@pytest.mark.parametrize('cls', [bm25.BM25Retriever, client.RemoteRetriever])
def test_they_are_retrievers(cls):
  assert retrieval.Retriever is protocol.Retriever
  assert (list(inspect.signature(cls.search).parameters)
          == list(inspect.signature(protocol.Retriever.search).parameters))
