"""BM25 over titled passages, on bm25s (https://arxiv.org/abs/2407.03618)."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import logging
import re
import sys
from types import ModuleType
import unicodedata

import numpy as np

from mem1_jax import types

_WORD = re.compile(r'\w+')
_POSSESSIVE = re.compile(r"['’]s\b")


def words(text: str) -> tuple[str, ...]:
  """Lower-case words without accents and possessives: `Reykjavík's` is the word `reykjavik`."""
  decomposed = unicodedata.normalize('NFKD', _POSSESSIVE.sub('', text.casefold()))
  return tuple(_WORD.findall(''.join(c for c in decomposed if not unicodedata.combining(c))))


class BM25Retriever:
  """Ranks passages by BM25 (Lucene's variant) over title and text.

  Two rules are added. A title counts `title_weight` times, and a passage whose
  title *is* the query ranks before all others. Ties go to the passage that comes
  first in the corpus. Passages that share no word with the query are not returned.
  """

  def __init__(
      self,
      passages: Sequence[types.Passage],
      *,
      k1: float,
      b: float,
      title_weight: int,
      cache_size: int = 65536,
      on_passage: Callable[[], None] = lambda: None,
  ):
    """Indexes the passages.

    Args:
      passages: the corpus; scores in it are ignored.
      k1: saturation of term frequency, ≥ 0 (usually 0.9 to 1.5).
      b: length normalisation, in [0, 1] (usually 0.4 to 0.75).
      title_weight: times that a title's words are counted, ≥ 1.
      cache_size: queries whose results are kept, the least recently used go first.
      on_passage: called after each passage that was read.

    Raises:
      ValueError: a corpus without a word, or an argument outside its range.
    """
    if not passages:
      raise ValueError('there are 0 passages; give at least 1')
    if k1 < 0 or not 0 <= b <= 1 or title_weight < 1:
      raise ValueError(f'k1={k1}, b={b}, title_weight={title_weight}: need k1 ≥ 0,'
                       ' 0 ≤ b ≤ 1 and title_weight ≥ 1')
    self.passages = tuple(passages)
    self._titled: dict[tuple[str, ...], list[int]] = {}
    documents = []
    for index, passage in enumerate(self.passages):
      title = words(passage.title)
      self._titled.setdefault(title, []).append(index)
      documents.append([*(title * title_weight), *words(passage.text)])
      on_passage()
    if not any(documents):
      raise ValueError(f'none of the {len(documents)} passages has a word; give text')
    self._index = _import_bm25s().BM25(k1=k1, b=b, method='lucene')
    self._index.index(documents, show_progress=False)
    self._cached = functools.lru_cache(maxsize=cache_size)(self._rank)

  def search(self, queries: Sequence[str], top_k: int) -> list[list[types.Passage]]:
    """See `retrieval.protocol.Retriever`. Raises ValueError where `top_k` < 1."""
    if top_k < 1:
      raise ValueError(f'top_k={top_k} is below 1; ask for at least 1 passage')
    return [list(self._cached(words(query), top_k)) for query in queries]

  def cache_info(self):
    """Hits, misses, size and bound of the cache, as `functools.lru_cache` counts them."""
    return self._cached.cache_info()

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`."""
    info = self.cache_info()
    return {'search_queries': info.hits + info.misses, 'search_cache_hits': info.hits}

  def _rank(self, query: tuple[str, ...], top_k: int) -> tuple[types.Passage, ...]:
    token_ids = self._index.get_tokens_ids(list(query))
    if not token_ids:
      return ()
    scores = self._index.get_scores_from_ids(token_ids)
    titled = self._titled.get(query, [])
    if titled:
      scores[titled] += scores.max()  # above any other, and still in order
    best = _top(scores, top_k)
    return tuple(dataclasses.replace(self.passages[i], score=float(scores[i])) for i in best)


def _top(scores: np.ndarray, k: int) -> np.ndarray:
  """Indices of the `k` largest positive scores, ties by index."""
  candidates = np.flatnonzero(scores > 0)
  if len(candidates) > k:
    # Keep every tie of the k-th: argpartition alone would pick among them at random.
    threshold = np.partition(scores[candidates], -k)[-k]
    candidates = candidates[scores[candidates] >= threshold]
  return candidates[np.lexsort((candidates, -scores[candidates]))][:k]


def _import_bm25s() -> ModuleType:
  """bm25s, imported without jax.

  Where jax can be imported, bm25s runs `jax.lax.top_k` at import, which would claim
  the accelerator before `jax.distributed.initialize` or a platform choice could run.
  """
  if 'bm25s' not in sys.modules:
    jax = sys.modules.get('jax')
    sys.modules['jax'] = None  # type: ignore[assignment]  # makes `import jax` fail
    try:
      import bm25s
    finally:
      if jax is None:
        del sys.modules['jax']
      else:
        sys.modules['jax'] = jax
  logging.getLogger('bm25s').setLevel(logging.WARNING)  # it prints at every index
  return sys.modules['bm25s']
