"""Search by servers over HTTP, which may be slow, wrong or gone.

They speak Search-R1's protocol, or another `Api` (retrieval/web_apis.py).

Nothing that a server does raises or ends a run: where no server answers in time, a query's result
is `types.Unavailable`, and `RemoteRetriever.counts` says what happened.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import dataclasses
import logging
import random
import time
from typing import Any, Protocol

from mem1_jax import types
from mem1_jax.retrieval import breaker as breaker_lib
from mem1_jax.retrieval import endpoint as endpoint_lib
from mem1_jax.retrieval import protocol
from mem1_jax.retrieval import tally
from mem1_jax.retrieval import wire
from mem1_jax.retrieval.endpoint import Failure, Request

_MAX_TITLE_CHARS = 300

Passages = tuple[types.Passage, ...]

# Everything that is counted.
COUNTERS = (
    'queries',  # asked of `search`
    'cache_hits',  # of those, answered without a server
    'unavailable',  # of those, not answered
    'requests',  # made
    'retries',  # rounds of requests after the first
    'skipped',  # requests that were not made, since the server was known to be down
    'opened',  # times that a server was found to be down
    'connection_errors', 'timeouts', 'server_errors', 'busy', 'refused', 'bad_status',
    'too_large', 'garbage', 'wrong_count',  # requests that brought nothing, by why
    'cut_queries', 'cut_passages', 'surplus_passages',
)
_QUIET = ('queries', 'cache_hits', 'requests', 'skipped')  # by themselves no trouble


@dataclasses.dataclass(frozen=True)
class RemoteConfig:
  """How long a search may take, and how much of a reply is taken.

  Attributes:
    timeout_s: of one request. A server that sends its body drop by drop may take it twice.
    patience_s: of one `search`, retries and pauses included; the last request ends with it.
    max_rounds: requests to each server, ≥ 1, for one batch of queries.
    backoff_s: the pause before round n is random, at most backoff_s * 2^(n-1) …
    max_backoff_s: … and at most this; so is a wait that a server asks for.
    max_failures: in a row, after which a server is left alone …
    open_s: … for so long; then one request tries it again.
    max_queries: of one request.
    max_query_chars: longer queries are cut, counted.
    max_passage_chars: longer texts are cut, counted; so are titles beyond 300.
    max_reply_bytes: a longer reply is none.
    cache_size: queries whose passages are kept, the least recently used go first.
    max_concurrent: requests at a time, of batches that are several.
    max_per_s: requests a second, evenly spaced; 0: no limit.
  """

  timeout_s: float = 10.0
  patience_s: float = 30.0
  max_rounds: int = 3
  backoff_s: float = 0.2
  max_backoff_s: float = 5.0
  max_failures: int = 5
  open_s: float = 15.0
  max_queries: int = 128
  max_query_chars: int = 2000
  max_passage_chars: int = 10_000
  max_reply_bytes: int = 32 << 20
  cache_size: int = 8192
  max_concurrent: int = 1
  max_per_s: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value < 0 or not value and field.name not in ('backoff_s', 'max_backoff_s', 'cache_size',
                                                       'open_s', 'max_per_s'):
        raise ValueError(f'{field.name}={value} is too small; raise it')


class Api(Protocol):
  """How servers are asked and what they answer.

  Attributes:
    path: where requests go, of URLs without a path.
    is_far: the servers are in the world outside.
  """

  path: str
  is_far: bool

  def write(self, queries: Sequence[str], top_k: int) -> Request:
    """The request."""

  def read(self, reply: bytes, top_k: int) -> list[list[types.Passage]]:
    """The passages of each query. Raises ValueError where the reply is none."""


class SearchR1:
  """The `Api` of retrieval/wire.py."""

  path, is_far = '/retrieve', False

  def write(self, queries: Sequence[str], top_k: int) -> Request:
    return Request(wire.write_request(queries, top_k))

  def read(self, reply: bytes, top_k: int) -> list[list[types.Passage]]:
    return wire.read_reply(reply)


@dataclasses.dataclass(frozen=True)
class _Server:
  endpoint: endpoint_lib.Endpoint
  breaker: breaker_lib.Breaker


class RemoteRetriever:
  """A `retrieval.protocol.Retriever` over HTTP. Safe to use from several threads.

  Args:
    urls: of the servers, with or without a path; each is asked where those before it fail.
    config: limits and times.
    api: what they speak.
    token: sent as `Authorization: Bearer …`; '' for none.
    headers: sent, too.
    secret: blotted out of whatever servers send; '' for the token.
    transport, clock, sleep, jitter: for tests.

  Raises:
    ValueError: no URL, one that is none or has a password in it, or httpx is not installed.
  """

  def __init__(self, urls: Sequence[str], config: RemoteConfig = RemoteConfig(), *,
               api: Api = SearchR1(), token: str = '', headers: Mapping[str, str] = {},
               secret: str = '', transport: Any = None,
               clock: Callable[[], float] = time.monotonic,
               sleep: Callable[[float], None] = time.sleep,
               jitter: Callable[[], float] = random.random):
    if not urls:
      raise ValueError('there are 0 URLs of search servers; give at least 1')
    self._config, self._clock, self._sleep, self._jitter = config, clock, sleep, jitter
    self._api, self._secret = api, secret or token
    if token:
      headers = {'Authorization': f'Bearer {token}', **headers}
    self._client = endpoint_lib.make_client(headers, transport, api.is_far)
    self._servers = [
        _Server(endpoint_lib.Endpoint(url, self._client, config.max_reply_bytes, clock,
                                      path=api.path, secret=self._secret),
                breaker_lib.Breaker(config.max_failures, config.open_s, clock)) for url in urls]
    self._cache = tally.Kept(config.cache_size)
    self._tally = tally.Tally('search', COUNTERS, _QUIET, clock)
    self._count = self._tally.count
    self._pace = tally.Pace(config.max_per_s, clock, sleep)
    self._pool = futures.ThreadPoolExecutor(config.max_concurrent, 'search')

  def close(self):
    """Closes its connections."""
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._client.close()

  @property
  def counts(self) -> dict[str, int]:
    """Of everything in `COUNTERS`, since it was made."""
    return self._tally.counts

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `search_requests`, …"""
    return self._tally.metrics()

  def search(
      self, queries: Sequence[str], top_k: int
  ) -> list[list[types.Passage] | types.Unavailable]:
    """See `retrieval.protocol.Retriever`. Raises ValueError where `top_k` < 1."""
    if top_k < 1:
      raise ValueError(f'top_k={top_k} is below 1; ask for at least 1 passage')
    config, deadline = self._config, self._clock() + self._config.patience_s
    found = {query: self._known(query, top_k) for query in dict.fromkeys(queries)}
    missing = [query for query, passages in found.items() if passages is None]
    self._count('queries', len(queries))
    self._count('cache_hits', sum(found[query] is not None for query in queries))
    self._count('cut_queries', sum(len(query) > config.max_query_chars for query in missing))
    batches = [missing[start:start + config.max_queries]
               for start in range(0, len(missing), config.max_queries)]
    many = self._pool.map if config.max_concurrent > 1 and len(batches) > 1 else map
    for some, result in zip(batches, many(lambda b: self._find(b, top_k, deadline), batches)):
      found |= zip(some, result, strict=True)
    results = [found[query] for query in queries]
    self._count('unavailable', sum(isinstance(x, types.Unavailable) for x in results))
    self._tally.tell()
    return [x if isinstance(x, types.Unavailable) else list(x) for x in results]

  def _known(self, query: str, top_k: int) -> Passages | None:
    return self._cache.get((query, top_k)) if protocol.has_word(query) else ()

  def _find(self, queries: list[str], top_k: int, deadline: float
            ) -> list[Passages | types.Unavailable]:
    """What each query finds; the halves of a request that is refused are tried for themselves."""
    try:
      found = self._ask(queries, top_k, deadline)
    except Failure as failure:
      if failure.is_final and len(queries) > 1:
        half = len(queries) // 2
        return [*self._find(queries[:half], top_k, deadline),
                *self._find(queries[half:], top_k, deadline)]
      return [types.Unavailable(self._reason(failure))] * len(queries)
    for query, passages in zip(queries, found):
      self._cache.keep((query, top_k), passages)
    return found

  def _ask(self, queries: list[str], top_k: int, deadline: float) -> list[Passages]:
    """Asks the servers in turn, and again after a pause. Raises Failure where none answers."""
    request = self._api.write([query[:self._config.max_query_chars] for query in queries], top_k)
    last = None
    for number in range(self._config.max_rounds):
      if last and not self._pause(number, last.wait_s, deadline):
        break
      failures = []
      for server in self._servers:
        if server.breaker.is_open:
          self._count('skipped')
        elif not self._pace.wait(deadline):
          failures.append(Failure('timeouts', f'no time is left of {self._config.patience_s:g} s'))
        elif not server.breaker.allows():
          self._count('skipped')
        else:
          try:
            return self._attempt(server, request, len(queries), top_k, deadline)
          except Failure as failure:
            failures.append(failure)
      if not failures:
        break
      last = failures[-1]
      if all(failure.is_final for failure in failures):
        break
    raise last or Failure('skipped', 'every search server is down, and tried again later')

  def _pause(self, number: int, wait_s: float, deadline: float) -> bool:
    """Waits before a round, `number` ≥ 1; False where none can follow."""
    if all(server.breaker.is_open for server in self._servers):
      return False
    config = self._config
    backoff_s = self._jitter() * config.backoff_s * 2 ** (number - 1)
    seconds = min(max(backoff_s, wait_s), config.max_backoff_s)
    if self._clock() + seconds >= deadline:
      return False
    self._sleep(seconds)
    self._count('retries')
    return True

  def _attempt(self, server: _Server, request: Request, num_queries: int, top_k: int,
               deadline: float) -> list[Passages]:
    """One request, and what it says about the server."""
    self._count('requests')
    is_up, reason = False, 'an error'
    try:
      left_s = max(deadline - self._clock(), 0.001)
      reply = server.endpoint.send(request, min(self._config.timeout_s, left_s))
      found = self._passages(reply, num_queries, top_k)
      is_up = True
      return found
    except Failure as failure:
      self._count(failure.kind)
      is_up, reason = failure.is_up, self._reason(failure)
      raise
    finally:  # whatever went wrong: who was allowed says so
      if is_up and server.breaker.succeeded():
        logging.warning('search at %s is back', server.endpoint.name)
      if not is_up and server.breaker.failed():
        self._count('opened')
        logging.warning('search at %s is down and left alone for %g s; the last of its failures: '
                        '%s', server.endpoint.name, self._config.open_s, reason)

  def _reason(self, failure: Failure) -> str:
    return endpoint_lib.blot(f'{failure.kind}: {failure}', self._secret)

  def _passages(self, reply: bytes, num_queries: int, top_k: int) -> list[Passages]:
    try:
      results = self._api.read(reply, top_k)
    except ValueError as error:
      raise Failure('garbage', f'a reply that is not of the protocol: {error}') from error
    if len(results) != num_queries:
      raise Failure('wrong_count', f'{len(results)} results of {num_queries} queries')
    self._count('surplus_passages', sum(max(0, len(result) - top_k) for result in results))
    return [tuple(map(self._cut, result[:top_k])) for result in results]

  def _cut(self, passage: types.Passage) -> types.Passage:
    if self._secret:  # here, where JSON's own spellings of it are undone
      title, text, id_ = (endpoint_lib.blot(value, self._secret)
                          for value in (passage.title, passage.text, passage.id))
      passage = dataclasses.replace(passage, title=title, text=text, id=id_)
    most = self._config.max_passage_chars
    if len(passage.text) <= most and len(passage.title) <= _MAX_TITLE_CHARS:
      return passage
    self._count('cut_passages')
    return dataclasses.replace(
        passage, title=passage.title[:_MAX_TITLE_CHARS], text=passage.text[:most])
