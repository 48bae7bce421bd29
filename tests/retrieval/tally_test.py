"""Counts, what is kept, and a pace."""

import threading

import pytest

from mem1_jax.retrieval import tally


def test_counts_have_all_names_and_are_told_now_and_then(caplog):
  now = [0.0]
  counts = tally.Tally('search', ('queries', 'bad'), ('queries',), lambda: now[0])
  counts.count('queries', 3)
  counts.tell()
  assert counts.counts == {'queries': 3, 'bad': 0} and not caplog.records
  assert counts.metrics() == {'search_queries': 3, 'search_bad': 0}
  for _ in range(3):
    counts.count('bad')
    counts.tell()
    now[0] += 30
  assert [record.getMessage() for record in caplog.records] == [
      'search so far: 3 queries, 1 bad', 'search so far: 3 queries, 3 bad']


def test_the_least_recently_used_goes_first():
  kept = tally.Kept(2)
  kept.keep('a', 1)
  kept.keep('b', 2)
  assert kept.get('a') == 1
  kept.keep('c', 3)
  assert [kept.get(key) for key in 'abc'] == [1, None, 3]
  none = tally.Kept(0)
  none.keep('a', 1)
  assert none.get('a') is None


def test_a_pace_spaces_requests_and_does_not_wait_beyond_a_deadline():
  now, slept = [0.0], []

  def sleep(seconds):
    slept.append(seconds)
    now[0] += seconds

  pace = tally.Pace(2.0, lambda: now[0], sleep)
  assert [pace.wait(1.2) for _ in range(3)] == [True] * 3
  assert slept == [0.5, 0.5]
  assert not pace.wait(1.2) and len(slept) == 2  # its turn would begin at 1.5 …
  assert pace.wait(9.0) and now[0] == pytest.approx(1.5)  # … which is still free
  now[0] = 100.0
  assert pace.wait(101.0) and not pace.wait(100.0) and len(slept) == 3


def test_no_pace_never_waits():
  pace = tally.Pace(0.0, lambda: 0.0, None)
  assert all(pace.wait(1.0) for _ in range(99)) and not pace.wait(0.0)


def test_threads_share_them():
  counts, kept = tally.Tally('x', ('n',), ()), tally.Kept(5)

  def work(number):
    for i in range(200):
      counts.count('n')
      kept.keep((number, i), i)
      kept.get((number, i - 1))

  threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert counts.counts == {'n': 800}
