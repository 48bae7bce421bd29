"""Retrieval by vectors: a query's nearest passages, exactly or by an approximate index."""

from collections import OrderedDict
from collections.abc import Sequence
import dataclasses
import re
import threading
from typing import NamedTuple

from mem1_jax import types
from mem1_jax.retrieval.dense.encoder import SentenceEncoder
from mem1_jax.retrieval.nearest import Nearest

_WORD = re.compile(r'\w')


class CacheInfo(NamedTuple):
  """As `functools.lru_cache` counts."""

  hits: int
  misses: int
  maxsize: int
  currsize: int


class DenseRetriever:
  """Ranks passages by the inner product of their vector and the query's.

  Ties go to the passage that comes first in the corpus. A query without a letter or digit finds
  nothing. May be called from several threads.

  Attributes:
    passages: the corpus.
    num_cut: queries so far that were too long and lost their end.
  """

  def __init__(self, encoder: SentenceEncoder, passages: Sequence[types.Passage],
               nearest: Nearest, cache_size: int = 65536):
    """Takes vectors that the encoder made.

    Args:
      encoder: of the queries.
      passages: the corpus, in memory or on disk; scores in it are ignored.
      nearest: finds among the passages' vectors.
      cache_size: queries whose results are kept, the least recently used go first.

    Raises:
      ValueError: there is not one vector for each passage, or it has another width.
    """
    vectors = nearest.vectors
    if len(vectors) != len(passages) or vectors.dim != encoder.dim:
      raise ValueError(f'{len(vectors)} vectors of {vectors.dim} numbers for {len(passages)} '
                       f'passages and an encoder of {encoder.dim}; index the passages anew')
    self.passages, self.num_cut = passages, 0
    self._encoder, self._nearest = encoder, nearest
    self._cache, self._cache_size = OrderedDict(), cache_size
    self._hits, self._misses, self._lock = 0, 0, threading.Lock()

  def search(self, queries: Sequence[str], top_k: int) -> list[list[types.Passage]]:
    """See `retrieval.protocol.Retriever`. Raises ValueError where `top_k` < 1."""
    if top_k < 1:
      raise ValueError(f'top_k={top_k} is below 1; ask for at least 1 passage')
    asked = [i for i, query in enumerate(queries) if _WORD.search(query)]
    tokens = self._encoder.tokenize_queries([queries[i] for i in asked])
    keys = [(row.tobytes(), top_k) for row in tokens.rows]
    found, missing = self._known(keys, tokens.num_cut)
    if missing:
      rows = dict(zip(keys, tokens.rows))
      vectors_QD = self._encoder.encode_queries(
          dataclasses.replace(tokens, rows=[rows[key] for key in missing]))
      for key, hits in zip(missing, self._nearest.search(vectors_QD, top_k)):
        found[key] = tuple(dataclasses.replace(self.passages[i], score=s) for i, s in hits)
      self._keep({key: found[key] for key in missing})
    results = dict(zip(asked, keys))
    return [list(found[results[i]]) if i in results else [] for i in range(len(queries))]

  def warm_up(self) -> None:
    """Compiles what searches need, so that nothing is compiled later."""
    self._encoder.warm_up()

  def cache_info(self) -> CacheInfo:
    return CacheInfo(self._hits, self._misses, self._cache_size, len(self._cache))

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`."""
    with self._lock:
      return {'search_queries': self._hits + self._misses, 'search_cache_hits': self._hits,
              'search_cut_queries': self.num_cut}

  def _known(self, keys, num_cut: int):
    """What the cache has of these queries, and which it lacks, each once."""
    found, missing = {}, {}
    with self._lock:
      self.num_cut += num_cut
      for key in keys:
        if key in self._cache:
          found[key] = self._cache[key]
          self._cache.move_to_end(key)
        elif key not in missing:
          missing[key] = None
          self._misses += 1
          continue
        self._hits += 1
    return found, list(missing)

  def _keep(self, results) -> None:
    with self._lock:
      self._cache |= results
      while len(self._cache) > self._cache_size:
        self._cache.popitem(last=False)
