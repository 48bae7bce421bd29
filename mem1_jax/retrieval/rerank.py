"""A second look: the first candidates of a retriever in the order of a slower, better scorer."""

from collections.abc import Sequence
import dataclasses
from typing import Protocol

from mem1_jax import types
from mem1_jax.retrieval.protocol import Retriever, metrics_of


class Scorer(Protocol):
  """How well passages answer a query, such as `dense.CrossEncoder`."""

  def scores(self, query: str, passages: Sequence[types.Passage]) -> list[float]:
    """Each passage's score, higher is better; it does not depend on the other passages."""


class Reranked:
  """A retriever whose best `num_candidates` passages are ranked by a scorer.

  Ties stay in the retriever's order. Passages carry the scorer's score. What the retriever could
  not find out stays `Unavailable`.

  Raises:
    ValueError: `num_candidates` < 1.
  """

  def __init__(self, retriever: Retriever, scorer: Scorer, num_candidates: int):
    if num_candidates < 1:
      raise ValueError(f'num_candidates={num_candidates} is below 1; rank at least 1 passage')
    self._retriever, self._scorer = retriever, scorer
    self._num_candidates = num_candidates

  def search(
      self, queries: Sequence[str], top_k: int
  ) -> list[list[types.Passage] | types.Unavailable]:
    """See `retrieval.protocol.Retriever`.

    Raises:
      ValueError: `top_k` < 1, or more than are ranked.
    """
    if not 1 <= top_k <= self._num_candidates:
      raise ValueError(f'top_k={top_k} is outside 1 to num_candidates={self._num_candidates}; '
                       'rank more candidates, or ask for fewer passages')
    found = self._retriever.search(queries, self._num_candidates)
    return [passages if isinstance(passages, types.Unavailable)
            else self._ranked(query, passages)[:top_k] for query, passages in zip(queries, found)]

  def metrics(self) -> dict[str, int]:
    """What its parts count (`retrieval.protocol.Counted`)."""
    return metrics_of(self._retriever, self._scorer)

  def _ranked(self, query: str, passages: list[types.Passage]) -> list[types.Passage]:
    scores = self._scorer.scores(query, passages) if passages else []
    scored = [dataclasses.replace(p, score=s) for p, s in zip(passages, scores, strict=True)]
    return sorted(scored, key=lambda passage: -passage.score)
