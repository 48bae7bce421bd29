"""What a search back end is."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from mem1_jax import types


class Retriever(Protocol):

  def search(
      self, queries: Sequence[str], top_k: int
  ) -> Sequence[list[types.Passage] | types.Unavailable]:
    """For each query its best passages, best first, at most `top_k`.

    The same queries give the same passages in the same order, whatever else is in
    the batch. A query without any usable word finds nothing. A back end that is not
    there does not raise: it answers `Unavailable`, which is never what was found.
    """


class Pages(Protocol):

  def open(self, urls: Sequence[str]) -> Sequence[types.Passage | types.Unavailable]:
    """The text of each page, and its title; `id` is the URL. Does not raise."""


@runtime_checkable
class Counted(Protocol):
  """What back ends, and environments over them, may be besides: something that counts."""

  def metrics(self) -> Mapping[str, int]:
    """What it has counted since it was made, by names that a run's metrics can have."""


def metrics_of(*parts: object) -> dict[str, int]:
  """What those of the parts that count have counted; one that is given twice counts once."""
  found = {}
  for part in parts:
    if isinstance(part, Counted):
      found |= part.metrics()
  return found


def has_word(query: str) -> bool:
  """Whether there is anything in it to look for."""
  return any(character.isalnum() for character in query)
