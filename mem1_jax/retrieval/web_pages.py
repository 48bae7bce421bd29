"""Pages of the open web, each as its main text; whoever wrote them may mean harm.

Only http and https, public addresses (retrieval/web_address.py), each redirect checked anew; only
texts; no more bytes and no more seconds than the limits say, whatever a server does. Nothing
raises: what could not be read is `types.Unavailable`, with `is_lasting` where trying again is of
no use. No cookie is kept, nothing is sent but the URL, and no proxy is asked.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import re
import socket
import threading
import time
from typing import Any
import urllib.parse

from mem1_jax import types
from mem1_jax.retrieval import tally
from mem1_jax.retrieval import web_address
from mem1_jax.retrieval import web_text
from mem1_jax.retrieval.endpoint import Failure, import_httpx

_MAX_TITLE_CHARS = 300
_MAX_ADDRESSES = 3  # of a host that are tried
COUNTERS = (
    'asked',  # of `open`
    'cache_hits',  # of those, answered without a request
    'unavailable',  # of those, not answered
    'requests',  # made, those to which others redirected included
    'cut_pages',  # longer than a limit
    'refused', 'unresolved', 'timeouts', 'connection_errors', 'bad_status', 'no_text', 'garbage',
    'redirects',  # pages that could not be read, by why; the last: too many
)
_QUIET = ('asked', 'cache_hits', 'requests', 'cut_pages')
_HEADERS = {'User-Agent': 'mem1_jax', 'Accept': 'text/html,application/xhtml+xml,text/plain;q=0.9',
            'Accept-Encoding': 'gzip', 'Connection': 'close'}


@dataclasses.dataclass(frozen=True)
class PageConfig:
  """How long a page may take, and how much of it is taken.

  Attributes:
    timeout_s: of one page, from its name to its last byte, redirects included.
    patience_s: of one `open` of several, until its last byte.
    max_redirects: of one page.
    max_bytes: of a page's HTML; the rest is left out, counted.
    max_chars: of its main text; likewise.
    cache_size: pages that are kept, the least recently used go first.
    max_concurrent: pages at a time.
    max_per_s: pages a second, evenly spaced; 0: no limit.
    ports: that may be asked.
  """

  timeout_s: float = 15.0
  patience_s: float = 30.0
  max_redirects: int = 5
  max_bytes: int = 2 << 20
  max_chars: int = 50_000
  cache_size: int = 1024
  max_concurrent: int = 8
  max_per_s: float = 0.0
  ports: tuple[int, ...] = (80, 443)

  def __post_init__(self):
    for name, least in (('max_redirects', 0), ('max_bytes', 1), ('max_chars', 1),
                        ('cache_size', 0), ('max_concurrent', 1), ('max_per_s', 0)):
      if getattr(self, name) < least:
        raise ValueError(f'{name}={getattr(self, name)} is below {least}; raise it')
    for name in ('timeout_s', 'patience_s'):
      if getattr(self, name) <= 0:
        raise ValueError(f'{name}={getattr(self, name)} is not above 0; raise it')


class WebPages:
  """`retrieval.Pages` of the open web. Safe to use from several threads.

  Args:
    config: limits and times.
    gate: of addresses; None for the public ones.
    make_transport, clock, sleep: for tests.

  Raises:
    ValueError: httpx or trafilatura is not installed.
  """

  def __init__(self, config: PageConfig = PageConfig(), *, gate: web_address.Gate | None = None,
               make_transport: Callable[[], Any] | None = None,
               clock: Callable[[], float] = time.monotonic,
               sleep: Callable[[float], None] = time.sleep):
    self._httpx = import_httpx()
    web_text.import_trafilatura()  # now, not at the first page
    self._config, self._clock = config, clock
    self._gate = gate or web_address.Gate(ports=config.ports)
    self._make_transport = make_transport or _transports(self._httpx)
    self._kept = tally.Kept(config.cache_size)
    self._tally = tally.Tally('pages', COUNTERS, _QUIET, clock)
    self._count = self._tally.count
    self._pace = tally.Pace(config.max_per_s, clock, sleep)
    self._pool = futures.ThreadPoolExecutor(config.max_concurrent, 'pages')

  def close(self):
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._gate.close()

  @property
  def counts(self) -> dict[str, int]:
    """Of everything in `COUNTERS`, since it was made."""
    return self._tally.counts

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `pages_requests`, …"""
    return self._tally.metrics()

  def open(self, urls: Sequence[str]) -> list[types.Passage | types.Unavailable]:
    """See `retrieval.protocol.Pages`."""
    pages = {url: self._kept.get(url) for url in dict.fromkeys(urls)}
    missing = [url for url, page in pages.items() if page is None]
    self._count('asked', len(urls))
    self._count('cache_hits', sum(pages[url] is not None for url in urls))
    deadline = self._clock() + self._config.patience_s
    pages |= zip(missing, self._pool.map(lambda url: self._page(url, deadline), missing))
    found = [pages[url] for url in urls]
    self._count('unavailable', sum(isinstance(page, types.Unavailable) for page in found))
    self._tally.tell()
    return found

  def _page(self, url: str, deadline: float) -> types.Passage | types.Unavailable:
    try:
      page = self._fetch(url, min(self._clock() + self._config.timeout_s, deadline))
    except Failure as failure:
      self._count(failure.kind)
      page = types.Unavailable(f'{failure.kind}: {failure}', failure.is_final)
      if not failure.is_final:
        return page
    self._kept.keep(url, page)
    return page

  def _fetch(self, url: str, end: float) -> types.Passage:
    if not self._pace.wait(end):
      raise Failure('timeouts', 'no time is left for it')
    at = url
    for _ in range(self._config.max_redirects + 1):
      target = self._gate.check(at, max(end - self._clock(), 0.001))
      following, title, text = self._request(target, end)
      if not following:
        if len(text) > self._config.max_chars:
          self._count('cut_pages')
        return types.Passage(title[:_MAX_TITLE_CHARS], text[:self._config.max_chars], id=url)
      at = following
    raise Failure('redirects', f'more than {self._config.max_redirects} redirects', is_final=True)

  def _request(self, target: web_address.Target, end: float) -> tuple[str, str, str]:
    """Where else it leads, or title and text of what is there, by whichever address answers."""
    *others, last = target.addresses[:_MAX_ADDRESSES]
    for address in others:
      try:
        return self._ask(target.url, address, end)
      except Failure as failure:
        if not isinstance(failure.__cause__, self._httpx.ConnectError):
          raise
    return self._ask(target.url, last, end)

  def _ask(self, url: Any, address: str, end: float) -> tuple[str, str, str]:
    httpx, seconds = self._httpx, max(end - self._clock(), 0.001)
    self._count('requests')
    watch = _Watch(seconds)
    request = httpx.Request(
        'GET', url.copy_with(host=address, fragment=None),
        headers={'Host': url.netloc.decode('ascii'), **_HEADERS},
        extensions={'sni_hostname': url.raw_host.decode('ascii'), 'trace': watch.trace,
                    'timeout': httpx.Timeout(seconds).as_dict()})
    try:
      # A transport alone: a client would follow, keep cookies, and ask proxies.
      with self._make_transport() as transport, watch:
        response = transport.handle_request(request)
        try:
          return self._read(response, url, end)
        finally:
          response.close()
    except httpx.TimeoutException as error:
      raise Failure('timeouts', f'{type(error).__name__} after {seconds:.3g} s') from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
      if watch.is_over:
        raise Failure('timeouts', f'no end after {seconds:.3g} s') from error
      raise Failure('connection_errors', f'{type(error).__name__}: {error}') from error

  def _read(self, response: Any, url: Any, end: float) -> tuple[str, str, str]:
    status, headers = response.status_code, response.headers
    if status in (301, 302, 303, 307, 308) and 'location' in headers:
      try:
        return urllib.parse.urljoin(str(url), headers['location']), '', ''
      except ValueError as error:
        raise Failure('refused', 'a redirect to no URL', is_final=True) from error
    if status != 200:
      raise Failure('bad_status', f'status {status}', is_final=400 <= status < 500 and
                    status not in (408, 425, 429))
    kind, _, more = headers.get('content-type', '').partition(';')
    kind = kind.strip().lower()
    if kind not in (*web_text.HTML, web_text.PLAIN):
      raise Failure('no_text', f'{kind[:40]!r} is no page of text', is_final=True)
    title, text = '', self._decoded(response, more, end)
    if kind != web_text.PLAIN:
      html, is_cut = web_text.cut_tags(text)
      self._count('cut_pages', is_cut)
      title, text = web_text.main_text(html)
    if not text.strip():
      raise Failure('no_text', 'a page without text', is_final=True)
    return '', title, text.strip()

  def _decoded(self, response: Any, more: str, end: float) -> str:
    most, body, is_cut = self._config.max_bytes, bytearray(), False
    for chunk in response.stream:
      body += chunk
      if len(body) > most:
        is_cut = True
        break
      if self._clock() >= end:
        break
    if self._clock() >= end:  # then its end may be that we hung up
      raise Failure('timeouts', 'a page that does not end in time')
    encoding = response.headers.get('content-encoding', '').strip().lower()
    unfolded, is_longer = web_text.unfold(bytes(body[:most + 1]), encoding, most)
    self._count('cut_pages', is_cut or is_longer)
    charset = re.search(r'charset\s*=\s*["\']?([\w.:-]+)', more, re.IGNORECASE)
    return web_text.decode(unfolded, charset[1] if charset else '')


def _transports(httpx: Any) -> Callable[[], Any]:
  context = httpx.create_ssl_context(trust_env=False)  # loading certificates takes a while
  return lambda: httpx.HTTPTransport(verify=context, trust_env=False, retries=0)


class _Watch:
  """Hangs up when time is over: a server that sends a byte now and then never times out.

  Attributes:
    is_over: it did.
  """

  def __init__(self, seconds: float):
    self._timer, self._sockets = threading.Timer(seconds, self._hang_up), []
    self._timer.daemon = True
    self.is_over = False

  def __enter__(self):
    self._timer.start()

  def __exit__(self, *_):
    self._timer.cancel()

  def trace(self, event: str, info: dict[str, Any]):
    """Takes the connection that httpcore makes."""
    if event == 'connection.connect_tcp.complete':
      self._sockets.append(info['return_value'].get_extra_info('socket'))
      if self.is_over:
        self._hang_up()

  def _hang_up(self):
    self.is_over = True
    for connection in self._sockets:
      try:
        # Not the method of an SSL socket, which another thread is reading from.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
      except OSError:
        pass  # it is closed
