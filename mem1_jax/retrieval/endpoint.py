"""One request to one search server, and every way in which it may bring nothing."""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import time
from types import ModuleType
from typing import Any
import urllib.parse

_KEEP_ALIVE_S = 4.0  # uvicorn closes idle connections after 5 s by default


class Failure(Exception):
  """A request that brought nothing.

  Attributes:
    kind: what it is counted as.
    is_up: whether the server did answer.
    is_final: whether the same request would fail again, and only a smaller one might not.
    wait_s: what the server asks for before the next, seconds.
  """

  def __init__(self, kind: str, text: str, is_up: bool = False, is_final: bool = False,
               wait_s: float = 0.0):
    super().__init__(text)
    self.kind, self.is_up, self.is_final, self.wait_s = kind, is_up, is_final, wait_s


@dataclasses.dataclass(frozen=True)
class Request:
  """What is sent: a body, or without one the parameters of the URL alone."""

  body: bytes | None = None
  params: Mapping[str, str] = dataclasses.field(default_factory=dict)


def make_client(headers: Mapping[str, str], transport: Any = None, is_far: bool = False) -> Any:
  """The connections that all endpoints share, an `httpx.Client`.

  Args:
    headers: sent with every request.
    transport: in place of the network, for tests.
    is_far: the servers are in the world outside, which the environment's proxies are for.
  """
  httpx = import_httpx()
  headers = {'Content-Type': 'application/json', 'Accept-Encoding': 'identity', **headers}
  limits = httpx.Limits(
      max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEEP_ALIVE_S)
  return httpx.Client(transport=transport, headers=headers, limits=limits, trust_env=is_far,
                      verify=transport is None)  # certificates take a while to load


def check_secret(secret: str, name: str) -> str:
  """A secret that can be sent, without the blanks around it.

  Raises:
    ValueError: it cannot; names the environment's variable and not what is in it.
  """
  secret = secret.strip()
  if not secret.isascii() or not secret.isprintable() or ' ' in secret:
    raise ValueError(f'{name} of the environment is no key: it has blanks or characters beyond '
                     'ASCII in it; export the key alone')
  return secret


def blot(text: str, secret: str) -> str:
  """The text without a secret, however it is spelled in a URL."""
  quoted = (urllib.parse.quote(secret, safe=safe) for safe in ('', '/'))
  for spelling in sorted({secret, *quoted} - {''}, key=len, reverse=True):
    text = text.replace(spelling, '***')
  return text


class Endpoint:
  """Where a server takes requests.

  Args:
    url: with a path, or without one for `path`.
    client: see `make_client`.
    max_bytes: a longer reply is a failure.
    path: where requests go by default.
    secret: blotted out of what failures say; '' for none.

  Attributes:
    name: the URL as logs may show it.

  Raises:
    ValueError: it is no URL, or has a user or password in it.
  """

  def __init__(self, url: str, client: Any, max_bytes: int,
               clock: Callable[[], float] = time.monotonic, *, path: str = '/retrieve',
               secret: str = ''):
    self._httpx, self._client, self._max_bytes, self._clock = (
        import_httpx(), client, max_bytes, clock)
    self._secret = secret
    try:
      parts = urllib.parse.urlsplit(url.strip())
      self.name = _name(parts)
      path = parts.path if parts.path.strip('/') else path
      self._url = self._httpx.URL(urllib.parse.urlunsplit(parts._replace(path=path, fragment='')))
    except (ValueError, self._httpx.InvalidURL) as error:
      raise ValueError('the URL of a search server is none; give one like http://127.0.0.1:8000'
                       ) from error  # not shown: it might hold a secret
    if parts.username is not None or parts.password is not None:
      raise ValueError(f'the URL of {self.name} has a user or password in it, which logs and '
                       'config.txt would show; give a token as MEM1_RETRIEVER_TOKEN instead')

  def send(self, request: Request, seconds: float) -> bytes:
    """The body of the reply; a server that sends it drop by drop may take twice the seconds.

    Raises:
      Failure: of any kind but those of what the body says.
    """
    httpx, end = self._httpx, self._clock() + seconds
    method = 'GET' if request.body is None else 'POST'
    try:
      url = self._url.copy_merge_params(request.params) if request.params else self._url
      with self._client.stream(method, url, content=request.body, timeout=seconds) as response:
        self._check_status(response)
        return self._read(response, end)
    except httpx.TimeoutException as error:
      raise Failure('timeouts', f'{type(error).__name__} after {seconds:.3g} s') from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
      raise Failure('connection_errors',
                    f'{type(error).__name__}: {blot(str(error), self._secret)}') from (
                        None if self._secret else error)  # a chain of errors would show it

  def _read(self, response: Any, end: float) -> bytes:
    body = bytearray()
    encoding = response.headers.get('content-encoding', 'identity')
    if encoding != 'identity':  # which might unfold to any size
      raise Failure('garbage', f'a reply in {encoding[:20]!r}, which was not asked for')
    for chunk in response.iter_raw():
      body += chunk
      if len(body) > self._max_bytes:
        raise Failure('too_large', f'a reply of more than {self._max_bytes} bytes', is_up=True,
                      is_final=True)
      if self._clock() > end:
        raise Failure('timeouts', 'a reply that does not end in time')
    return bytes(body)

  def _check_status(self, response: Any):
    status = response.status_code
    if status == 200:
      return
    told = f'status {status}'
    if status in (400, 413, 422):  # it is about what is asked
      detail = next(response.iter_raw(), b'')[:4096].decode('utf-8', 'replace')
      detail = blot(detail, self._secret)[:300]
      raise Failure('refused', f'{told}: {detail!r}', is_up=True, is_final=True)
    wait = response.headers.get('retry-after', '')
    wait_s = float(wait) if wait.isascii() and wait.isdigit() else 0.0
    if status == 429:
      raise Failure('busy', told, is_up=True, wait_s=wait_s)
    raise Failure('server_errors' if status >= 500 else 'bad_status', told, wait_s=wait_s)


def _name(parts: urllib.parse.SplitResult) -> str:
  """Scheme, host and port. Raises ValueError where there are none."""
  if parts.scheme not in ('http', 'https') or len((parts.hostname or '').split()) != 1:
    raise ValueError('no http(s) URL')
  host = f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname
  return f'{parts.scheme}://{host}' + (f':{parts.port}' if parts.port else '')


def import_httpx() -> ModuleType:
  """httpx, without a log of its requests. Raises ValueError where it is not installed."""
  try:
    import httpx
  except ImportError as error:
    raise ValueError('search over HTTP needs httpx; pip install "mem1_jax[retriever]", or '
                     '"mem1_jax[web]" for the web') from error
  logging.getLogger('httpx').setLevel(logging.WARNING)  # it would log the URL of every request
  logging.getLogger('httpcore').setLevel(logging.WARNING)  # … and headers
  return httpx
