"""BM25 over titled passages, on bm25s (https://arxiv.org/abs/2407.03618)."""

import array
from collections.abc import Callable, Sequence
import dataclasses
import functools
import logging
import re
import sys
from types import ModuleType
from typing import Any
import unicodedata

import numpy as np

from mem1_jax import types

_WORD = re.compile(r'\w+')
_POSSESSIVE = re.compile(r"['’]s\b")


def words(text: str) -> tuple[str, ...]:
  """Lower-case words without accents and possessives: `Reykjavík's` is the word `reykjavik`."""
  decomposed = unicodedata.normalize('NFKD', _POSSESSIVE.sub('', text.casefold()))
  return tuple(_WORD.findall(''.join(c for c in decomposed if not unicodedata.combining(c))))


def check(k1: float, b: float, title_weight: int):
  """Raises ValueError for a setting that `BM25Retriever` cannot have."""
  if k1 < 0 or not 0 <= b <= 1 or title_weight < 1:
    raise ValueError(f'k1={k1}, b={b}, title_weight={title_weight}: need k1 ≥ 0,'
                     ' 0 ≤ b ≤ 1 and title_weight ≥ 1')


class Builder:
  """Takes passages one by one, and makes of their words what bm25s scores with."""

  def __init__(self, *, k1: float, b: float, title_weight: int):
    """See `BM25Retriever`. Raises ValueError where an argument is outside its range."""
    check(k1, b, title_weight)
    self._k1, self._b, self._title_weight = k1, b, title_weight
    self._vocabulary: dict[str, int] = {}
    self._documents: list[array.array] = []  # ids of words, 4 bytes each: a list takes 8

  def add(self, passage: types.Passage) -> tuple[str, ...]:
    """Takes a passage; returns the words of its title."""
    title, known = words(passage.title), self._vocabulary
    document = (*(title * self._title_weight), *words(passage.text))
    self._documents.append(array.array('i', [known.setdefault(w, len(known)) for w in document]))
    return title

  def scores(self) -> Any:
    """bm25s's index of the passages, in their order. Raises ValueError where none has a word."""
    if not self._vocabulary:
      raise ValueError(f'none of the {len(self._documents)} passages has a word; give text')
    found = import_bm25s().BM25(k1=self._k1, b=self._b, method='lucene')
    found.index((self._documents, self._vocabulary), show_progress=False)
    return found


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
    passages, titled = tuple(passages), {}
    builder = Builder(k1=k1, b=b, title_weight=title_weight)
    for index, passage in enumerate(passages):
      titled.setdefault(builder.add(passage), []).append(index)
      on_passage()
    self._take(passages, builder.scores(), lambda title: titled.get(title, ()), cache_size)

  @classmethod
  def over(cls, passages: Sequence[types.Passage], scores: Any,
           titled: Callable[[tuple[str, ...]], Sequence[int]], cache_size: int) -> 'BM25Retriever':
    """Of parts that were made before (retrieval/bm25_index.py).

    Args:
      passages: the corpus, in memory or on disk.
      scores: of `Builder`, for these passages.
      titled: words → the passages that have them for a title, in order.
      cache_size: queries whose results are kept.
    """
    made = cls.__new__(cls)
    made._take(passages, scores, titled, cache_size)
    return made

  def _take(self, passages, scores, titled, cache_size: int):
    self.passages, self._scores, self._titled = passages, scores, titled
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
    token_ids = self._scores.get_tokens_ids(list(query))
    if not token_ids:
      return ()
    scores = self._scores.get_scores_from_ids(token_ids)
    if titled := list(self._titled(query)):
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


def import_bm25s() -> ModuleType:
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
