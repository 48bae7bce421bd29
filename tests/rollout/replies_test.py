"""Calls of environments: who is answered, who failed, who never returned."""

import dataclasses
import threading
import time

import pytest

from mem1_jax.rollout import replies as replies_lib
from mem1_jax.rollout.replies import Replies
from mem1_jax.types import Action, ActionKind, Observation

SOON = 10.0  # longer than anything takes here


@dataclasses.dataclass(eq=False)
class Episode:
  """Answers with its name; `broken` ones raise, before their turn counts or after it."""

  name: str
  broken: str = ''
  turns: int = 0

  def step(self, action):
    if self.broken == 'before':
      raise OSError(f'{self.name} is down')
    self.turns += 1
    if self.broken == 'after':
      raise OSError(f'{self.name} fell')
    return Observation(f'{self.name} {action.text}', 1.0, False)


def step_many(episodes, actions):
  return [episode.step(action) for episode, action in zip(episodes, actions, strict=True)]


def send(replies, *episodes):
  """Items are the names in capitals."""
  replies.send([episode.name.upper() for episode in episodes], episodes,
               [Action(ActionKind.SEARCH, f'for {episode.name}') for episode in episodes])


def said(received):
  return [(item, observation and observation.text, fault) for item, observation, fault in received]


@pytest.fixture
def gate():
  """What hangs until the test is over."""
  event = threading.Event()
  yield event
  event.set()


def until_returned(replies):
  """Waits until a call has returned, without receiving it."""
  end = time.monotonic() + SOON
  while not any(call.answers for call in replies._calls):
    assert time.monotonic() < end
    time.sleep(0.001)


def test_observations_come_back_with_their_items():
  replies = Replies(step_many, SOON)
  send(replies, Episode('a'), Episode('b'))
  assert len(replies) == 2
  assert said(replies.receive(SOON)) == [('A', 'a for a', ''), ('B', 'b for b', '')]
  assert len(replies) == 0


def test_of_several_calls_each_answers_for_itself_in_the_order_they_were_sent(gate):
  def step(episodes, actions):
    if episodes[0].name == 'a':
      gate.wait(SOON)
    return step_many(episodes, actions)

  replies = Replies(step, SOON)
  send(replies, Episode('a'))
  send(replies, Episode('b'))
  assert said(replies.receive(SOON)) == [('B', 'b for b', '')]  # does not wait for the other
  assert len(replies) == 1
  gate.set()
  until_returned(replies)
  send(replies, Episode('c'))
  received = []
  while len(received) < 2:
    received += said(replies.receive(SOON))
  assert received == [('A', 'a for a', ''), ('C', 'c for c', '')]


def test_one_that_raises_fails_alone_and_nobody_is_stepped_twice():
  calls = []

  def step(episodes, actions):
    calls.append([episode.name for episode in episodes])
    if any(episode.broken for episode in episodes):
      raise OSError('down')
    return step_many(episodes, actions)

  episodes = Episode('a'), Episode('b', 'before'), Episode('c')
  replies = Replies(step, SOON)
  send(replies, *episodes)
  assert said(replies.receive(SOON)) == [
      ('A', 'a for a', ''), ('B', None, 'OSError: down'), ('C', 'c for c', '')]
  assert calls == [['a', 'b', 'c'], ['a'], ['b'], ['c']]
  assert [episode.turns for episode in episodes] == [1, 0, 1]


@pytest.mark.parametrize('broken, why, moved', [
    ('before', 'OSError: b is down', [1, 0, 1]), ('after', 'OSError: b fell', [1, 1, 1])])
def test_one_whose_turn_was_counted_already_is_not_stepped_again(broken, why, moved):
  """Its observation is lost, so it is a fault too."""
  episodes = Episode('a'), Episode('b', broken), Episode('c')
  replies = Replies(step_many, SOON)
  send(replies, *episodes)
  assert said(replies.receive(SOON)) == [
      ('A', None, why), ('B', None, why), ('C', 'c for c', '')]
  assert [episode.turns for episode in episodes] == moved


@pytest.mark.parametrize('wrong, why', [
    (lambda right: right[:-1], 'ValueError: 0 observations of 1 actions'),
    (lambda right: right * 2, 'ValueError: 2 observations of 1 actions'),
    (lambda right: None, 'TypeError: '),
    (lambda right: right[:-1] + [None], 'TypeError: NoneType instead of an observation'),
    (lambda right: right[:-1] + ['text'], 'TypeError: str instead of an observation')])
def test_what_is_no_observation_of_each_action_is_a_fault(wrong, why):
  replies = Replies(lambda *call: wrong(step_many(*call)), SOON)
  send(replies, Episode('a'))
  (item, observation, fault), = replies.receive(SOON)
  assert (item, observation) == ('A', None) and fault.startswith(why)


def test_one_of_many_that_is_no_observation_fails_alone():
  replies = Replies(lambda *call: [None, *step_many(*call)[1:]], SOON)
  send(replies, Episode('a'), Episode('b'))
  why = 'TypeError: NoneType instead of an observation'
  assert said(replies.receive(SOON)) == [('A', None, why), ('B', 'b for b', '')]


def test_a_call_that_hangs_is_given_up_and_later_ones_are_answered(gate):
  def step(episodes, actions):
    if episodes[0].name == 'a':
      gate.wait(SOON)
    return step_many(episodes, actions)

  replies = Replies(step, 0.2)
  begun = time.monotonic()
  send(replies, Episode('a'), Episode('b'))
  why = 'no reply within 0.2 s'
  assert said(replies.receive(SOON)) == [('A', None, why), ('B', None, why)]
  assert 0.2 <= time.monotonic() - begun < SOON / 2
  assert len(replies) == 0
  send(replies, Episode('c'))
  assert said(replies.receive(SOON)) == [('C', 'c for c', '')]
  # What it says in the end is too late.
  gate.set()
  replies._stuck[0].join(SOON)
  assert not replies._stuck[0].is_alive() and replies.receive(0) == []


def test_so_many_calls_may_hang_and_no_more(gate, monkeypatch):
  monkeypatch.setattr(replies_lib, '_MAX_STUCK', 2)

  def step(episodes, actions):
    gate.wait(SOON)
    return step_many(episodes, actions)

  replies = Replies(step, 0.05)
  for name in 'ab':
    send(replies, Episode(name))
    assert replies.receive(SOON)[0][1] is None
  with pytest.raises(RuntimeError, match='2 calls .* have not returned within 0.05 s'):
    send(replies, Episode('c'))
  assert len(replies) == 0
  # Those that return after all make room.
  gate.set()
  for thread in replies._stuck:
    thread.join(SOON)
  send(replies, Episode('d'))
  assert said(replies.receive(SOON)) == [('D', 'd for d', '')]


def test_receiving_does_not_wait_unless_told_to(gate):
  def step(episodes, actions):
    gate.wait(SOON)
    return step_many(episodes, actions)

  replies = Replies(step, SOON)
  send(replies, Episode('a'))
  begun = time.monotonic()
  assert replies.receive(0) == []
  assert time.monotonic() - begun < 0.5
  assert replies.receive(0.1) == []
  assert 0.1 <= time.monotonic() - begun < SOON / 2
  assert len(replies) == 1
  threading.Timer(0.1, gate.set).start()
  assert said(replies.receive(SOON)) == [('A', 'a for a', '')]  # as soon as it is there
  assert time.monotonic() - begun < SOON / 2


def test_with_no_call_under_way_there_is_nothing_to_wait_for():
  begun = time.monotonic()
  assert Replies(step_many, SOON).receive(SOON) == []
  assert time.monotonic() - begun < SOON / 2


def test_the_latency_follows_what_calls_take(gate):
  def step(episodes, actions):
    if episodes[0].name == 'slow':
      gate.wait(0.2)
    return step_many(episodes, actions)

  replies = Replies(step, SOON)
  send(replies, Episode('slow'))
  replies.receive(SOON)
  slow = replies.latency_s
  assert 0.2 * 0.2 <= slow < 1.0
  for _ in range(10):
    send(replies, Episode('fast'))
    replies.receive(SOON)
  assert 0 < replies.latency_s < slow / 2


def test_the_latency_is_the_environments_not_that_of_who_receives_late():
  replies = Replies(step_many, SOON)
  send(replies, Episode('a'))
  until_returned(replies)
  time.sleep(0.3)
  replies.receive(0)
  assert 0 < replies.latency_s < 0.2 * 0.2
