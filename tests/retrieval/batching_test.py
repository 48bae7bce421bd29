"""Calls that come together are done together, and fail alone."""

import queue
import threading
import time

import pytest

from mem1_jax.retrieval.batching import Batcher


class Work:
  """Doubles numbers; raises at -1; waits while the gate is closed (a fake)."""

  def __init__(self):
    self.calls, self.gate, self.begun = [], threading.Event(), threading.Event()

  def __call__(self, items, key):
    self.calls.append((list(items), key))
    self.begun.set()
    assert self.gate.wait(10)
    if -1 in items:
      raise ValueError('minus one')
    if -2 in items:
      return []
    return [2 * item for item in items]


@pytest.fixture
def work():
  work = Work()
  yield work
  work.gate.set()


def begin(work, **sizes):
  """A batcher that is busy with [0]."""
  batcher = Batcher(work, **(dict(max_items=4, max_waiting=100) | sizes))
  first = batcher.submit([0], 'k')
  assert work.begun.wait(10)
  return batcher, first


def test_what_comes_meanwhile_is_one_call(work):
  batcher, first = begin(work)
  futures = [batcher.submit(items, 'k') for items in ([1], [2, 3], [4])]
  assert batcher.num_waiting == 4 and 0 < batcher.busy_s < 10
  work.gate.set()
  assert [f.result(10) for f in (first, *futures)] == [[0], [2], [4, 6], [8]]
  assert work.calls == [([0], 'k'), ([1, 2, 3, 4], 'k')]
  assert (batcher.num_calls, batcher.num_items, batcher.num_waiting) == (2, 5, 0)
  batcher.close()
  assert batcher.busy_s == 0.0


def test_batches_have_a_size_and_one_key(work):
  batcher, _ = begin(work)
  futures = [batcher.submit(items, key) for items, key in (
      ([1, 2, 3], 'k'), ([4, 5], 'k'), ([6], 'other'), ([7], 'k'), ([], 'k'),
      (list(range(9)), 'k'))]
  work.gate.set()
  assert [f.result(10) for f in futures] == [
      [2, 4, 6], [8, 10], [12], [14], [], [2 * i for i in range(9)]]
  assert work.calls[1:] == [
      ([1, 2, 3, 7], 'k'), ([4, 5], 'k'), ([6], 'other'), ([0, 1, 2, 3], 'k'),
      ([4, 5, 6, 7], 'k'), ([8], 'k')]


def test_whatever_fails_in_a_batch_fails_alone(work):
  batcher, _ = begin(work)
  futures = [batcher.submit([item], 'k') for item in (1, -1, -2, 2)]
  work.gate.set()
  assert futures[0].result(10) == [2] and futures[3].result(10) == [4]
  with pytest.raises(ValueError, match='minus one'):
    futures[1].result(10)
  with pytest.raises(ValueError, match='0 results of 1 items'):
    futures[2].result(10)
  assert batcher.submit([5], 'k').result(10) == [10]


def test_so_many_may_wait_and_no_more(work):
  batcher, _ = begin(work, max_waiting=3)
  batcher.submit([1, 2], 'k')
  with pytest.raises(queue.Full, match='2 queries wait already, at most 3'):
    batcher.submit([3, 4], 'k')
  batcher.submit([3], 'k')


def test_one_that_is_given_up_is_not_done(work):
  batcher, _ = begin(work)
  futures = [batcher.submit([item], 'k') for item in (1, 2)]
  assert futures[0].cancel()
  work.gate.set()
  assert futures[1].result(10) == [4] and work.calls[-1] == ([2], 'k')


def test_closing_does_what_waits(work):
  batcher, first = begin(work)
  future = batcher.submit([1], 'k')
  threading.Timer(0.05, work.gate.set).start()
  batcher.close()
  assert (first.result(0), future.result(0)) == ([0], [2])
  with pytest.raises(RuntimeError, match='closed'):
    batcher.submit([1], 'k')


def test_closing_does_not_wait_for_ever(work):
  batcher, _ = begin(work)
  begun = time.monotonic()
  batcher.close(wait_s=0.05)
  assert time.monotonic() - begun < 5


def test_many_threads_get_their_own(work):
  work.gate.set()
  batcher, wrong = Batcher(work, 8, 1000), []

  def ask(number):
    for i in range(20):
      item = 100 * number + i
      if batcher.submit([item], i % 2).result(10) != [2 * item]:
        wrong.append(item)

  threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong and batcher.num_items == 160
