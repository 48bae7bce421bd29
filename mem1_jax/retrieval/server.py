"""A search server that speaks Search-R1's protocol (retrieval/wire.py), on FastAPI and uvicorn.

    POST /retrieve   searches; what comes while a search is under way makes the next batch
    GET  /health     200 while it can answer, 503 where a search hangs
    GET  /metrics    counts and latencies, as Prometheus reads them

What exceeds a limit is refused with a sentence that names it: 413 a body, 422 what is in it, 429
where too many queries wait. A search that fails is a 500, one whose back end is down a 503.
"""

import asyncio
import bisect
import collections
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import json
import logging
import queue
import socket
import time
from typing import Any

from mem1_jax import types
from mem1_jax.retrieval import batching
from mem1_jax.retrieval import protocol
from mem1_jax.retrieval import wire

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that none is closed under them
_GRACE_S = 10  # for requests under way when the server is told to stop


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server takes, and what it answers with.

  Attributes:
    top_k: passages per query where the request does not say.
    max_top_k: that a request may ask for.
    max_queries: of one request.
    max_query_chars: of one query.
    max_body_bytes: of one request.
    max_batch: queries of one search, from however many requests.
    max_waiting: queries that may wait for a search.
    stuck_s: seconds after which a search is taken to hang.
  """

  top_k: int = 3
  max_top_k: int = 100
  max_queries: int = 512
  max_query_chars: int = 4096
  max_body_bytes: int = 8 << 20
  max_batch: int = 64
  max_waiting: int = 8192
  stuck_s: float = 60.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value <= 0:
        raise ValueError(f'{field.name}={value} must be above 0')
    if self.top_k > self.max_top_k:
      raise ValueError(f'top_k={self.top_k} is above max_top_k={self.max_top_k}; lower it')
    if self.max_queries > self.max_waiting:
      raise ValueError(f'max_queries={self.max_queries} is above max_waiting={self.max_waiting}; '
                       'raise max_waiting')


class _Down(Exception):
  """The retriever's own back end is not there."""


class Service:
  """What the server does, apart from HTTP."""

  def __init__(self, retriever: protocol.Retriever, limits: Limits):
    self._retriever, self._limits = retriever, limits
    self._batcher = batching.Batcher(self._search, limits.max_batch, limits.max_waiting)
    self._begun = time.monotonic()
    self._statuses: collections.Counter[int] = collections.Counter()
    self._latencies, self._seconds = [0] * (len(_BUCKETS_S) + 1), 0.0
    self._num_queries = self._num_errors = 0

  def close(self):
    self._batcher.close()

  async def retrieve(self, body: bytes | None) -> tuple[int, bytes]:
    """(status, body) of the reply to a request; None is a body that was too large."""
    begun = time.monotonic()
    status, reply = await self._reply(body)
    seconds = time.monotonic() - begun
    self._statuses[status] += 1
    self._latencies[bisect.bisect_left(_BUCKETS_S, seconds)] += 1
    self._seconds += seconds
    return status, reply if status == 200 else json.dumps({'detail': reply}).encode()

  async def _reply(self, body: bytes | None) -> tuple[int, Any]:
    limits = self._limits
    if body is None:
      return 413, f'the body has more than {limits.max_body_bytes} bytes; send fewer queries'
    try:
      request = wire.read_request(body)
      self._check(request)
      key = request.top_k or limits.top_k, request.has_scores
      future = self._batcher.submit(request.queries, key)
    except ValueError as error:
      return 422, str(error)
    except queue.Full as error:
      return 429, str(error)
    try:
      results = await asyncio.wrap_future(future)
    except _Down as error:
      return 503, f'search is unavailable: {error}'
    except Exception as error:  # pylint: disable=broad-except
      self._num_errors += 1
      logging.exception('a search failed')
      return 500, f'the search failed: {type(error).__name__}: {error}'
    self._num_queries += len(results)
    return 200, wire.write_reply(results)

  def _check(self, request: wire.Request):
    limits = self._limits
    if len(request.queries) > limits.max_queries:
      raise ValueError(f'{len(request.queries)} queries are more than {limits.max_queries}; send '
                       'them in several requests')
    if (request.top_k or 0) > limits.max_top_k:
      raise ValueError(f'topk is {request.top_k}, more than {limits.max_top_k}; ask for fewer')
    for i, query in enumerate(request.queries):
      if len(query) > limits.max_query_chars:
        raise ValueError(f'queries[{i}] has {len(query)} characters, more than '
                         f'{limits.max_query_chars}; shorten it')

  def _search(self, queries: Sequence[str], key: tuple[int, bool]) -> list[bytes]:
    """In the batcher's thread: searches, and writes what was found."""
    top_k, has_scores = key
    found = self._retriever.search(queries, top_k)
    for passages in found:
      if isinstance(passages, types.Unavailable):
        raise _Down(passages.reason)
    return [wire.write_result(passages, has_scores) for passages in found]

  def health(self) -> tuple[int, dict[str, Any]]:
    """(status, what to say)."""
    is_stuck = self._batcher.busy_s > self._limits.stuck_s
    return 503 if is_stuck else 200, {
        'status': 'stuck' if is_stuck else 'ok', 'retriever': type(self._retriever).__name__,
        'waiting_queries': self._batcher.num_waiting, 'search_s': round(self._batcher.busy_s, 3),
        'uptime_s': round(time.monotonic() - self._begun, 1)}

  def metrics(self) -> str:
    """Prometheus's text format, version 0.0.4."""
    lines = []

    def add(name: str, kind: str, text: str, samples: dict[str, float]):
      lines.extend([f'# HELP mem1_retriever_{name} {text}', f'# TYPE mem1_retriever_{name} {kind}'])
      lines.extend(f'mem1_retriever_{name}{label} {value}' for label, value in samples.items())

    batcher = self._batcher
    add('requests_total', 'counter', 'Requests answered.',
        {f'{{status="{status}"}}': n for status, n in sorted(self._statuses.items())})
    for name, text, value in (
        ('queries_total', 'Queries answered with passages.', self._num_queries),
        ('errors_total', 'Searches that failed.', self._num_errors),
        ('batches_total', 'Calls of the retriever.', batcher.num_calls),
        ('batched_queries_total', 'Queries of those calls.', batcher.num_items)):
      add(name, 'counter', text, {'': value})
    add('waiting_queries', 'gauge', 'Queries whose search has not begun.',
        {'': batcher.num_waiting})
    total, samples = 0, {}
    for bound, count in zip((*_BUCKETS_S, '+Inf'), self._latencies):
      total += count
      samples[f'_bucket{{le="{bound}"}}'] = total
    add('request_seconds', 'histogram', 'From a request to its reply.',
        samples | {'_sum': self._seconds, '_count': total})
    return '\n'.join(lines) + '\n'


def make_app(retriever: protocol.Retriever, limits: Limits = Limits()) -> Any:
  """The FastAPI application.

  Raises:
    ValueError: FastAPI is not installed.
  """
  fastapi, starlette, _ = _import()
  service = Service(retriever, limits)

  @contextlib.asynccontextmanager
  async def lifespan(_):
    yield
    service.close()

  app = fastapi.FastAPI(title='mem1_jax search', lifespan=lifespan, docs_url=None, redoc_url=None)

  # Bodies are read by hand: FastAPI would take any amount before it looks.
  @app.post('/retrieve')
  async def retrieve(request: fastapi.Request):
    try:
      body = await _body(request, limits.max_body_bytes)
    except starlette.requests.ClientDisconnect:
      return fastapi.Response(status_code=400)  # nobody reads it
    status, reply = await service.retrieve(body)
    return fastapi.Response(reply, status, media_type='application/json', headers={
        'Retry-After': '1'} if status in (429, 503) else None)

  @app.get('/health')
  async def health():
    status, told = service.health()
    return fastapi.responses.JSONResponse(told, status)

  @app.get('/metrics')
  async def metrics():
    return fastapi.Response(service.metrics(), media_type='text/plain; version=0.0.4')

  return app


async def _body(request: Any, max_bytes: int) -> bytes | None:
  """What a client sends; None as soon as that is too much."""
  if int(request.headers.get('content-length', 0)) > max_bytes:
    return None
  body = bytearray()
  async for chunk in request.stream():
    body += chunk
    if len(body) > max_bytes:
      return None
  return bytes(body)


def make_server(retriever: protocol.Retriever, host: str = '127.0.0.1', port: int = 8000,
                limits: Limits = Limits()) -> tuple[Any, socket.socket, str]:
  """A uvicorn server that does not run yet, the socket for its `run`, and its address.

  Args:
    port: 0 for any that is free.

  Raises:
    ValueError: FastAPI or uvicorn is not installed, or nothing can listen there.
  """
  *_, uvicorn = _import()
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    listening = socket.create_server((host, port), family=family)
  except (OSError, OverflowError) as error:
    raise ValueError(f'cannot listen on port {port} of {host} ({error}); choose another, or port '
                     '0 for any that is free') from error
  server = uvicorn.Server(uvicorn.Config(
      make_app(retriever, limits), log_level='warning', access_log=False, lifespan='on',
      timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=_GRACE_S))
  shown = f'[{host}]' if family == socket.AF_INET6 else host
  return server, listening, f'http://{shown}:{listening.getsockname()[1]}'


def serve(retriever: protocol.Retriever, host: str = '127.0.0.1', port: int = 8000,
          limits: Limits = Limits(), on_ready: Callable[[str], None] = lambda url: None):
  """Serves until SIGINT or SIGTERM, and answers then what is under way.

  Args:
    on_ready: hears the address once connections are taken.

  Raises:
    ValueError: see `make_server`.
  """
  server, listening, url = make_server(retriever, host, port, limits)
  with listening, contextlib.suppress(KeyboardInterrupt):
    on_ready(url)
    server.run(sockets=[listening])


def _import() -> tuple[Any, Any, Any]:
  try:
    import fastapi
    import fastapi.responses
    import starlette.requests
    import uvicorn
  except ImportError as error:
    raise ValueError(f'the search server needs {error.name}; pip install "mem1_jax[retriever]"'
                     ) from error
  return fastapi, starlette, uvicorn
