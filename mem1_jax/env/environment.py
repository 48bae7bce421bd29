"""The border between a world of text and the agents that act in it.

An environment starts one episode per task and steps many of them at once, so that
slow parts (retrieval) see batches. It knows neither ids nor jax.
"""

import collections
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from mem1_jax import types


class Need(NamedTuple):
  """A question to the world outside. Needs of one key are had by one call."""

  key: Hashable
  have: Callable[[Sequence[str]], Sequence[object]]  # texts → what each of them finds
  text: str


class Episode(Protocol):
  """One task being worked on.

  Attributes:
    max_turns: the turn budget.
    turns: actions taken so far, malformed ones included.
    searches: look-ups made.
    malformed: actions that could not be read, or done.
    is_done: nothing more can be done.
    answer: what it ended with, an answer or what was bought; None while there is none.
  """

  task: types.Task
  max_turns: int
  turns: int
  searches: int
  malformed: int
  is_done: bool
  answer: str | None

  def step(self, action: types.Action) -> types.Observation:
    """Does one action. Raises ValueError where the episode is done."""

  def need(self, action: types.Action) -> 'Need | None':
    """What has to be had from outside before the action is done, if anything."""

  def do(self, action: types.Action, found: object) -> types.Observation:
    """`step`, once its need has found this; None where nothing was looked for."""


class Environment(Protocol):
  """Starts episodes; `step_many` steps them.

  It may have `metrics`, too: what it and its back ends have counted (`retrieval.protocol.Counted`).
  """

  def start(self, task: types.Task) -> Episode:
    """A fresh episode of `task`."""


def step_many(
    episodes: Sequence[Episode], actions: Sequence[types.Action]
) -> list[types.Observation]:
  """Does `actions[i]` in `episodes[i]`, as if one by one, with one call for all needs of a key.

  Raises:
    ValueError: the lengths differ, or an episode is done or given twice; nothing
      has been stepped then.
  """
  _check(episodes, actions)
  groups, found = collections.defaultdict(list), {}
  for index, (episode, action) in enumerate(zip(episodes, actions)):
    is_last = episode.turns + 1 >= episode.max_turns  # what is found can no longer be read
    if not is_last and (need := episode.need(action)):
      groups[need.key].append((index, need))
  for group in groups.values():
    indices, needs = zip(*group)
    had = needs[0].have([need.text for need in needs])
    found.update(zip(indices, had, strict=True))
  return [episode.do(action, found.get(index))
          for index, (episode, action) in enumerate(zip(episodes, actions))]


def _check(episodes: Sequence[Episode], actions: Sequence[types.Action]):
  if len(episodes) != len(actions) or len({id(episode) for episode in episodes}) != len(actions):
    raise ValueError(f'{len(episodes)} episodes and {len(actions)} actions; give one action to'
                     ' each of different episodes')
  for episode in episodes:
    if episode.is_done:
      raise ValueError(f'episode of task {episode.task.id!r} is done; start a new one')
