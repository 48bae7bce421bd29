"""A circuit breaker: a server that keeps failing is left alone for a while."""

from collections.abc import Callable
import threading
import time


class Breaker:
  """Says whether a server may be asked.

      closed ── max_failures in a row ──▶ open ── open_s later ──▶ half open: one request
        ▲                                  ▲                              │
        └───────── it succeeds ────────────┼──────────────────────────────┤
                                           └────────── it fails ──────────┘

  Safe to use from several threads. Who was allowed must say how it went.
  """

  def __init__(self, max_failures: int, open_s: float,
               clock: Callable[[], float] = time.monotonic):
    """Raises ValueError where `max_failures` < 1 or `open_s` < 0."""
    if max_failures < 1 or open_s < 0:
      raise ValueError(f'max_failures={max_failures}, open_s={open_s}: need ≥ 1 and ≥ 0')
    self._max_failures, self._open_s, self._clock = max_failures, open_s, clock
    self._lock = threading.Lock()
    self._num_failures = 0  # in a row
    self._opened: float | None = None  # when; None while closed
    self._is_probing = False

  @property
  def is_open(self) -> bool:
    """Whether `allows` would say no."""
    with self._lock:
      return self._is_open()

  def _is_open(self) -> bool:
    if self._opened is None:
      return False
    return self._is_probing or self._clock() - self._opened < self._open_s

  def allows(self) -> bool:
    """Whether one request may be made now."""
    with self._lock:
      if self._is_open():
        return False
      self._is_probing = self._opened is not None
      return True

  def succeeded(self) -> bool:
    """The server answered. Returns whether it was thought to be down."""
    with self._lock:
      was_down = self._opened is not None
      self._num_failures, self._opened, self._is_probing = 0, None, False
      return was_down

  def failed(self) -> bool:
    """It did not. Returns whether that opened the breaker."""
    with self._lock:
      self._num_failures += 1
      if self._opened is None and self._num_failures < self._max_failures:
        return False
      is_new = self._opened is None
      if is_new or self._is_probing:
        self._opened = self._clock()
      self._is_probing = False
      return is_new
