"""The worlds have what the protocols ask for."""

import inspect

import pytest

from mem1_jax import types
from mem1_jax.env import environment
from mem1_jax.env import qa
from mem1_jax.env import web
from mem1_jax.env import webshop
from tests.env import small_shop


class Nothing:

  def search(self, queries, top_k):
    return [[] for _ in queries]


  def open(self, urls):
    return [types.Unavailable('bad_status: no such page', True) for _ in urls]


QA = qa.QAEnvironment(Nothing(), qa.QAConfig(top_k=1, max_passage_chars=9, slack=1, max_turns=None))
TASK = types.Task('t', (types.Question('q', 'What?', ('a',)),), ('[kf]',), 'test')
WEB = web.WebEnvironment(Nothing(), Nothing(), web.WebConfig(
    top_k=1, max_snippet_chars=9, max_name_chars=9, page_chars=99, slack=1, max_turns=None))
WORLDS = {'qa': lambda: (QA, TASK), 'web': lambda: (WEB, TASK),
          'webshop': lambda: (small_shop.environment(), small_shop.task())}


@pytest.mark.parametrize('world', WORLDS)
def test_worlds_are_environments(world):
  place, task = WORLDS[world]()
  episode = place.start(task)
  for name in environment.Episode.__annotations__:
    assert hasattr(episode, name), name
  for protocol, cls in ((environment.Episode, type(episode)),
                        (environment.Environment, type(place))):
    methods = [n for n, f in vars(protocol).items()
               if n[0] != '_' and inspect.isfunction(f)]
    assert methods
    for name in methods:
      ours, theirs = (inspect.signature(getattr(c, name)) for c in (cls, protocol))
      assert list(ours.parameters) == list(theirs.parameters)


def test_episodes_of_several_worlds_are_stepped_together_as_alone():
  def begin():
    return [place.start(task) for place, task in (world() for world in WORLDS.values())]

  action = types.Action(types.ActionKind.SEARCH, 'shirt')
  together, alone = begin(), begin()
  assert environment.step_many(together, [action] * 3) == [e.step(action) for e in alone]
  assert [(e.turns, e.searches) for e in together] == [(1, 1)] * 3
  assert environment.step_many([], []) == []


def test_what_is_needed_alike_is_had_by_one_call_and_on_the_last_turn_not_at_all():
  asked = []

  class Counts(Nothing):

    def search(self, queries, top_k):
      asked.append(list(queries))
      return super().search(queries, top_k)

  place = qa.QAEnvironment(Counts(), qa.QAConfig(1, 9, slack=None, max_turns=2))
  episodes = [place.start(TASK) for _ in range(2)]
  actions = [types.Action(types.ActionKind.SEARCH, text) for text in 'ab']
  for _ in range(2):
    environment.step_many(episodes, actions)
  assert asked == [['a', 'b']] and all(e.is_done for e in episodes)


@pytest.mark.parametrize('world', WORLDS)
def test_nothing_is_stepped_where_one_step_is_impossible(world):
  place, task = WORLDS[world]()
  action = types.Action(types.ActionKind.SEARCH, 'shirt')
  one, done = place.start(task), place.start(task)
  done.is_done = True
  for episodes, actions in (([one, done], [action] * 2), ([one, one], [action] * 2),
                            ([one], [action] * 2)):
    with pytest.raises(ValueError):
      environment.step_many(episodes, actions)
  assert one.turns == 0
