"""A small web made of documents, each a page: search and pages without a network.

    Passage('Oslo', 'A city. Its country is Norway. Its …')  →  https://atlas.invalid/oslo

A result shows the beginning of its page: what does not stand there is worth opening it for.
"""

from collections.abc import Sequence
import dataclasses

from mem1_jax import types
from mem1_jax.retrieval import bm25
from mem1_jax.retrieval import protocol

SITE = 'atlas.invalid'  # RFC 2606: no such host will ever be


class SmallWeb:
  """`retrieval.Retriever` and `retrieval.Pages` of one site."""

  def __init__(self, documents: Sequence[types.Passage], retriever: protocol.Retriever,
               snippet_chars: int, site: str = SITE):
    """Puts the documents on the site.

    Args:
      documents: its pages; of those that are alike, one.
      retriever: over `documents`.
      snippet_chars: of a page that a result shows, ≥ 1, cut at a word.
      site: its host.

    Raises:
      ValueError: `snippet_chars` < 1.
    """
    if snippet_chars < 1:
      raise ValueError(f'snippet_chars={snippet_chars} is below 1; raise it')
    self._retriever, self._snippet_chars = retriever, snippet_chars
    self._pages: dict[str, types.Passage] = {}
    self._urls: dict[tuple[str, str], str] = {}
    for document in documents:
      if (document.title, document.text) in self._urls:
        continue
      stem = url = f'https://{site}/{"-".join(bm25.words(document.title)) or "page"}'
      number = 1
      while url in self._pages:
        number += 1
        url = f'{stem}-{number}'
      self._urls[document.title, document.text] = url
      self._pages[url] = dataclasses.replace(document, id=url)

  def search(self, queries: Sequence[str], top_k: int) -> list[list[types.Passage]]:
    """See `retrieval.protocol.Retriever`; `id` is the URL."""
    return [[self._result(passage) for passage in found]
            for found in self._retriever.search(queries, top_k)]

  def open(self, urls: Sequence[str]) -> list[types.Passage | types.Unavailable]:
    """See `retrieval.protocol.Pages`."""
    return [self._pages.get(url) or types.Unavailable('bad_status: no such page', True)
            for url in urls]

  def metrics(self) -> dict[str, int]:
    """What its retriever counts (`retrieval.protocol.Counted`)."""
    return protocol.metrics_of(self._retriever)

  def _result(self, passage: types.Passage) -> types.Passage:
    return dataclasses.replace(passage, text=beginning(passage.text, self._snippet_chars),
                               id=self._urls[passage.title, passage.text])


def beginning(text: str, max_chars: int) -> str:
  """A text up to a word, with `…` where it goes on."""
  if len(text) <= max_chars:
    return text
  return f'{text[:max_chars + 1].rpartition(" ")[0] or text[:max_chars]} …'
