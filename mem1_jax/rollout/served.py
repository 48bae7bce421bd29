"""One model behind an OpenAI-compatible server, which may be slow, busy, wrong or gone."""

from collections.abc import Callable
import dataclasses
import email.utils
import json
import math
import random
import threading
import time
from typing import Any
import urllib.parse

from mem1_jax.retrieval import endpoint as endpoint_lib
from mem1_jax.retrieval import tally
from mem1_jax.retrieval.endpoint import Failure, Request
from mem1_jax.rollout import completions
from mem1_jax.rollout.completions import Prompt, Reply, Settings, Usage

# Everything that is counted. What is `denied` or `unknown` is wrong with the run, not a request.
COUNTERS = ('requests', 'retries', 'connection_errors', 'timeouts', 'server_errors', 'busy',
            'garbage', 'too_large', 'refused', 'too_long', 'denied', 'unknown')
HOPELESS = ('denied', 'unknown')

_RETRIED = (408, 409, 425, 429)  # and from 500 on
_TOO_LONG = ('context_length_exceeded', 'context length', 'context size')
_UNKNOWN = ('model_not_found', 'does not exist')
_MAX_REPLY_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long a turn may take.

  Attributes:
    timeout_s: of one request.
    patience_s: of a turn, with retries and pauses; a server that asks to wait longer has failed.
    max_tries: requests for a turn, ≥ 1.
    backoff_s: the pause before try n + 1 is random, at most backoff_s * 2^(n - 1) …
    max_backoff_s: … and at most this, but at least what the server asks for.
  """

  timeout_s: float = 120.0
  patience_s: float = 600.0
  max_tries: int = 8
  backoff_s: float = 1.0
  max_backoff_s: float = 30.0

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if not value > 0:
        raise ValueError(f'{name}={value} is too small; raise it')


def base_url(url: str, knobs: str = 'endpoint') -> str:
  """`http://host:8000` → `http://host:8000/v1`; a path that is there is kept.

  Args:
    knobs: the group of knobs that messages name.

  Raises:
    ValueError: it is no address, or has more in it than one, such as a password. Logs and records
      show addresses, so nothing else may be in one.
  """
  try:
    parts = urllib.parse.urlsplit(url.strip())
    is_one = parts.scheme in ('http', 'https') and bool(parts.hostname) and parts.port != 0
  except ValueError:
    is_one = False
  if not is_one or parts.username is not None or parts.query or parts.fragment:
    raise ValueError(f'{knobs}.url is no address, or has a password or a query in it, which records'
                     ' would show; give one like http://host:8000/v1, and a key by the name of its'
                     f' variable, {knobs}.key_variable')
  path = parts.path.rstrip('/') or '/v1'
  return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, '', ''))


class ServedModel:
  """Asks one model for turns. Safe to use from several threads.

  Args:
    url: of the server, such as `http://host:8000/v1`.
    settings: which model, and how it is sampled.
    limits: times.
    knobs: the group of knobs that messages name.
    key: sent as `Authorization: Bearer …` and blotted out of all that comes back; '' for none.
    transport, clock, sleep, jitter: for tests. `sleep` says whether it was cut short.

  Raises:
    ValueError: a URL that is none, or httpx is not installed.
  """

  def __init__(self, url: str, settings: Settings, limits: Limits = Limits(), *, key: str = '',
               knobs: str = 'endpoint',
               transport: Any = None, clock: Callable[[], float] = time.monotonic,
               sleep: Callable[[float], bool] | None = None,
               jitter: Callable[[], float] = random.random):
    self.url, self.settings, self._knobs = base_url(url, knobs), settings, knobs
    self._limits, self._key, self._clock, self._jitter = limits, key, clock, jitter
    self._is_closed = threading.Event()
    self._sleep = sleep or self._is_closed.wait
    headers = {'Authorization': f'Bearer {key}'} if key else {}
    is_far = self.url.startswith('https:')  # proxies of the environment are for the world outside
    try:
      self._client = endpoint_lib.make_client(headers, transport, is_far)
    except ValueError as error:
      raise ValueError('a model behind an endpoint needs httpx; pip install "mem1_jax[endpoint]"'
                       ) from error
    self._client.event_hooks = {'response': [self._check_status]}
    self._endpoint = endpoint_lib.Endpoint(
        self.url + completions.PATHS[settings.api], self._client, _MAX_REPLY_BYTES, clock,
        secret=key)
    self._tally = tally.Tally(f'the {knobs}', COUNTERS, ('requests',), clock)
    self._lock = threading.Lock()
    self._usage, self._names, self._told = Usage(), set(), dict.fromkeys(COUNTERS, 0)

  def close(self):
    """Gives up what is under way, and closes the connections."""
    self._is_closed.set()
    self._client.close()

  def complete(self, prompt: Prompt, max_tokens: int) -> Reply:
    """A turn.

    Raises:
      Failure: there is none, after all retries; of a kind among `COUNTERS`.
    """
    limits, deadline = self._limits, self._clock() + self._limits.patience_s
    request = Request(completions.write(self.settings, prompt, max_tokens))
    for number in range(1, limits.max_tries + 1):
      try:
        reply = self._attempt(request, deadline)
        break
      except Failure as failure:
        self._tally.count(failure.kind)
        self._tally.tell()
        is_last = failure.is_final or number == limits.max_tries
        if is_last or not self._pause(number, failure.wait_s, deadline):
          raise
        self._tally.count('retries')
    with self._lock:
      self._usage += reply.usage
      self._names |= {reply.model} - {''}
    return reply

  def account(self) -> dict[str, Any]:
    """What was reported and counted since the last account, as JSON."""
    counts = self._tally.counts
    with self._lock:
      usage, names, told = self._usage, sorted(self._names), self._told
      self._usage, self._names, self._told = Usage(), set(), counts
    new = {name: n - told[name] for name, n in counts.items() if n != told[name]}
    return {'served_models': names, 'usage': dataclasses.asdict(usage), 'counts': new}

  def _attempt(self, request: Request, deadline: float) -> Reply:
    self._tally.count('requests')
    left_s = max(deadline - self._clock(), 0.001)
    body = self._endpoint.send(request, min(self._limits.timeout_s, left_s))
    try:
      reply = completions.read(self.settings.api, body)
    except ValueError as error:
      raise Failure('garbage', f'a reply that is not of the protocol: {self._blot(str(error))}'
                    ) from None  # a chain of errors would show the key
    return dataclasses.replace(reply, text=self._blot(reply.text), model=self._blot(reply.model))

  def _pause(self, number: int, wait_s: float, deadline: float) -> bool:
    """Waits after try `number`; False where none can follow."""
    limits = self._limits
    backoff_s = min(limits.backoff_s * 2 ** (number - 1), limits.max_backoff_s)
    seconds = max(self._jitter() * backoff_s, wait_s)
    return self._clock() + seconds < deadline and not self._sleep(seconds)

  def _blot(self, text: str) -> str:
    return endpoint_lib.blot(text, self._key)

  def _check_status(self, response: Any):
    """Raises Failure where it is not 200, of the kind that status and words tell."""
    status = response.status_code
    if status == 200:
      return
    words = self._blot(_message(next(response.iter_raw(), b'')[:4096]))[:300]
    told = f'status {status} of {self.url}{completions.PATHS[self.settings.api]}: {words!r}'
    if status in (401, 403) or 'insufficient_quota' in words:
      raise Failure('denied', f'{told}; {self._knobs}.key_variable names the variable of the '
                    'environment that holds the key', is_up=True, is_final=True)
    if status == 404 or (status < 500 and any(sign in words for sign in _UNKNOWN)):
      raise Failure('unknown', f'{told}; {self._knobs}.url ends in /v1 on most servers, '
                    f'{self._knobs}.model {self.settings.model!r} must be one of those at '
                    f'{self.url}/models, and {self._knobs}.api one that the server has', is_up=True, is_final=True)
    wait_s = _wait_s(response.headers.get('retry-after', ''))
    if status in _RETRIED or status >= 500:
      raise Failure('server_errors' if status >= 500 else 'busy', told, status < 500, wait_s=wait_s)
    kind = 'too_long' if any(sign in words for sign in _TOO_LONG) else 'refused'
    raise Failure(kind, told, is_up=True, is_final=True)


def _message(body: bytes) -> str:
  """What a server says of an error: `{"error": {"message": …, "code": …}}`, or any text."""
  text = body.decode('utf-8', 'replace')
  try:
    found = json.loads(text)
  except (ValueError, RecursionError):
    return text
  error = found.get('error', found) if isinstance(found, dict) else found
  if not isinstance(error, dict):
    return str(error)
  said = [error.get(name) for name in ('code', 'message', 'detail')]
  return ' '.join(part for part in said if isinstance(part, str)) or text


def _wait_s(retry_after: str) -> float:
  """Seconds of a `Retry-After`, which is a number or a date; 0 for neither."""
  try:
    seconds = float(retry_after)
  except ValueError:
    try:
      seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
      return 0.0
  return max(0.0, seconds) if math.isfinite(seconds) else 0.0
