"""When a server is left alone, and when it is tried again."""

import threading

import pytest

from mem1_jax.retrieval.breaker import Breaker


class Clock:

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


def opened(clock, open_s=10.0):
  breaker = Breaker(3, open_s, clock)
  assert [(breaker.allows(), breaker.failed()) for _ in range(3)] == [
      (True, False), (True, False), (True, True)]
  return breaker


def test_it_opens_after_failures_in_a_row():
  breaker = opened(Clock())
  assert breaker.is_open and not breaker.allows()
  breaker = Breaker(2, 10.0, Clock())
  for _ in range(5):
    assert not breaker.failed() and not breaker.succeeded()
  assert breaker.allows()


def test_one_request_tries_again():
  clock = Clock()
  breaker = opened(clock)
  clock.now = 9.9
  assert not breaker.allows()
  clock.now = 10.0
  assert not breaker.is_open
  assert [breaker.allows() for _ in range(3)] == [True, False, False]
  assert not breaker.failed()  # it was down before
  clock.now = 19.9
  assert not breaker.allows()
  clock.now = 20.0
  assert breaker.allows() and breaker.succeeded()
  assert not breaker.succeeded() and breaker.allows() and breaker.allows()


def test_late_failures_keep_it_open_no_longer():
  clock = Clock()
  breaker = opened(clock)
  clock.now = 9.0
  assert not breaker.failed()
  clock.now = 10.0
  assert breaker.allows()


def test_of_many_threads_one_tries_again():
  clock, allowed = Clock(), []
  breaker = opened(clock)
  clock.now = 10.0
  threads = [threading.Thread(target=lambda: allowed.append(breaker.allows())) for _ in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sum(allowed) == 1


@pytest.mark.parametrize('arguments', [(0, 1.0), (1, -1.0)])
def test_bad_arguments(arguments):
  with pytest.raises(ValueError, match='max_failures='):
    Breaker(*arguments)
