"""A web that was seen once, in a file: recorded as it is searched, replayed without a network.

    {"query": "capital of norway", "top_k": 10, "results": [{"title": …, "text": …, "url": …}]}
    {"url": "https://…", "title": "Oslo", "text": "Oslo is …"}
    {"url": "https://…", "unreadable": "bad_status: status 404"}

What was asked for and what came back, and nothing else: no header, no key. An outage is not
recorded. Several processes may write one file.
"""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import threading
from typing import Any

from mem1_jax import types
from mem1_jax.retrieval import protocol
from mem1_jax.retrieval import tally

COUNTERS = ('queries', 'pages', 'missing')  # asked of it; of those, not in the file

Results = list[types.Passage] | types.Unavailable
Page = types.Passage | types.Unavailable


class _Seen:
  """What was found, by query and by URL."""

  def __init__(self):
    self._results: dict[str, tuple[int, tuple[types.Passage, ...]]] = {}
    self._pages: dict[str, Page] = {}

  def results(self, query: str, top_k: int) -> list[types.Passage] | None:
    """What was found by at least so many results; None where that is not known."""
    asked, passages = self._results.get(query, (0, ()))
    is_all = asked and len(passages) < asked  # there was no more
    return list(passages[:top_k]) if asked >= top_k or is_all else None

  def page(self, url: str) -> Page | None:
    return self._pages.get(url)

  def add_results(self, query: str, top_k: int, passages: Sequence[types.Passage]):
    if top_k > self._results.get(query, (0, ()))[0]:
      self._results[query] = top_k, tuple(passages)

  def add_page(self, url: str, page: Page):
    self._pages[url] = page


class Recorder:
  """Searches and opens pages as its parts do, and writes down what came back.

  Safe to use from several threads.
  """

  def __init__(self, retriever: protocol.Retriever, pages: protocol.Pages, file: pathlib.Path):
    """Goes on where the file ends.

    Raises:
      ValueError: it is no record.
      OSError: it cannot be written.
    """
    self._retriever, self._pages, self._lock = retriever, pages, threading.Lock()
    file.parent.mkdir(parents=True, exist_ok=True)
    self._seen = _load(file) if file.exists() else _Seen()
    self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    text = file.read_bytes()
    if not text.endswith(b'\n'):  # whoever wrote the last line was killed
      os.ftruncate(self._file, text.rfind(b'\n') + 1)

  def close(self):
    """Closes the file, not its parts."""
    os.close(self._file)

  def search(self, queries: Sequence[str], top_k: int) -> Sequence[Results]:
    """See `retrieval.protocol.Retriever`."""
    found = self._retriever.search(queries, top_k)
    with self._lock:
      for query, results in zip(queries, found, strict=True):
        if not isinstance(results, types.Unavailable) and protocol.has_word(query):
          if self._seen.results(query, top_k) is None:
            self._seen.add_results(query, top_k, results)
            self._write({'query': query, 'top_k': top_k, 'results': [
                {'title': p.title, 'text': p.text, 'url': p.id, 'score': p.score}
                for p in results]})
    return found

  def open(self, urls: Sequence[str]) -> Sequence[Page]:
    """See `retrieval.protocol.Pages`."""
    found = self._pages.open(urls)
    with self._lock:
      for url, page in zip(urls, found, strict=True):
        is_outage = isinstance(page, types.Unavailable) and not page.is_lasting
        if not is_outage and self._seen.page(url) is None:
          self._seen.add_page(url, page)
          self._write({'url': url, **(
              {'unreadable': page.reason} if isinstance(page, types.Unavailable) else
              {'title': page.title, 'text': page.text})})
    return found

  def metrics(self) -> dict[str, int]:
    """What its parts count (`retrieval.protocol.Counted`)."""
    return protocol.metrics_of(self._retriever, self._pages)

  def _write(self, entry: Mapping[str, Any]):
    os.write(self._file, json.dumps(entry).encode() + b'\n')  # at once: others append, too


class Replay:
  """The web of a record. What is not in it is `Unavailable`, counted; there is no network.

  Attributes:
    counts: of everything in `COUNTERS`, since it was made.
  """

  def __init__(self, file: pathlib.Path):
    """Reads the record.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is none; names the line.
    """
    if not file.is_file():
      raise FileNotFoundError(f'{file} is not there; record one, or search the embedded web')
    self._seen = _load(file)
    self._tally = tally.Tally('replay', COUNTERS, ('queries', 'pages'))

  @property
  def counts(self) -> dict[str, int]:
    return self._tally.counts

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `replay_missing`, …"""
    return self._tally.metrics()

  def search(self, queries: Sequence[str], top_k: int) -> list[Results]:
    """See `retrieval.protocol.Retriever`. Raises ValueError where `top_k` < 1."""
    if top_k < 1:
      raise ValueError(f'top_k={top_k} is below 1; ask for at least 1 passage')
    self._tally.count('queries', len(queries))
    return [self._known(self._seen.results(query, top_k), 'this query')
            if protocol.has_word(query) else [] for query in queries]

  def open(self, urls: Sequence[str]) -> list[Page]:
    """See `retrieval.protocol.Pages`."""
    self._tally.count('pages', len(urls))
    return [self._known(self._seen.page(url), 'this page') for url in urls]

  def _known(self, value: Any, what: str) -> Any:
    if value is None:
      self._tally.count('missing')
      self._tally.tell()
      return types.Unavailable(f'missing: {what} is not in the record')
    return value


def _load(file: pathlib.Path) -> _Seen:
  seen = _Seen()
  *lines, _ = file.read_bytes().split(b'\n')  # behind the last line's end is what was cut short
  for number, line in enumerate(lines):
    try:
      _take(json.loads(line), seen)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
      raise ValueError(f'{file}:{number + 1} is no line of a record ({type(error).__name__}: '
                       f'{error}); remove it') from error
  return seen


def _take(entry: Any, seen: _Seen):
  if 'query' in entry:
    seen.add_results(entry['query'], int(entry['top_k']), [
        types.Passage(str(p['title']), str(p['text']), float(p['score']), str(p['url']))
        for p in entry['results']])
  elif 'unreadable' in entry:
    seen.add_page(entry['url'], types.Unavailable(str(entry['unreadable']), True))
  else:
    seen.add_page(entry['url'],
                  types.Passage(str(entry['title']), str(entry['text']), id=entry['url']))
