"""A rollout under way: what its process has done becomes what all have."""

import collections

import pytest

from mem1_jax.rollout import run as run_lib
from mem1_jax.rollout.stats import RolloutStats


def under_way(done, error=None):
  stats = RolloutStats(num_turns=3, decode_seconds=2.0)
  return run_lib.Run(collections.deque(), [], None, 0, lambda _: None, done=done, stats=stats,
                     error=error)


def test_one_process_has_all_that_is_done():
  done, stats = run_lib.together(under_way({4: 'a', 1: 'b'}))
  assert done == {4: 'a', 1: 'b'} and (stats.num_turns, stats.decode_seconds) == (3, 2.0)


def test_an_error_of_this_process_is_raised_as_it_is():
  with pytest.raises(KeyError, match='lost'):
    run_lib.together(under_way({}, KeyError('lost')))


def test_episodes_of_others_are_heard_of_and_seconds_are_not_added_up(monkeypatch):
  heard, run = [], under_way({0: 'mine'})
  run.on_done = heard.append
  theirs = {2: 'later', 1: 'theirs'}, RolloutStats(num_turns=4, decode_seconds=4.0), None
  monkeypatch.setattr(run_lib.multihost, 'gather', lambda part: [part, theirs])
  done, stats = run_lib.together(run)
  assert done == {0: 'mine', 1: 'theirs', 2: 'later'} and heard == ['theirs', 'later']
  assert (stats.num_turns, stats.decode_seconds) == (7, 3.0)


def test_an_error_of_another_process_is_named(monkeypatch):
  theirs = {}, RolloutStats(), "ValueError('too long')"
  monkeypatch.setattr(run_lib.multihost, 'gather', lambda part: [part, theirs])
  with pytest.raises(RuntimeError, match=r"process 1 stopped the rollout: ValueError\('too long'\)"):
    run_lib.together(under_way({}))
