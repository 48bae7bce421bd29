"""The border between a world of text and the agents that act in it.

An environment starts one episode per task and steps many of them at once, so that
slow parts (retrieval) see batches. It knows neither ids nor jax.
"""

from collections.abc import Sequence
from typing import Protocol

from mem1_jax import types


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

  @staticmethod
  def step_many(
      episodes: Sequence['Episode'], actions: Sequence[types.Action]
  ) -> list[types.Observation]:
    """As `Environment.step_many`, of episodes of its own world."""


class Environment(Protocol):
  """Starts episodes and steps them in batches."""

  def start(self, task: types.Task) -> Episode:
    """A fresh episode of `task`."""

  def step_many(
      self, episodes: Sequence[Episode], actions: Sequence[types.Action]
  ) -> list[types.Observation]:
    """Does `actions[i]` in `episodes[i]`; the same as stepping them one by one."""


def step_many(
    episodes: Sequence[Episode], actions: Sequence[types.Action]
) -> list[types.Observation]:
  """The same for episodes of any one world.

  Raises:
    ValueError: see `check_steps`.
  """
  return type(episodes[0]).step_many(episodes, actions) if episodes else []


def check_steps(episodes: Sequence[Episode], actions: Sequence[types.Action]):
  """That each of the episodes can do one action.

  Raises:
    ValueError: the lengths differ, or an episode is done or given twice.
  """
  if len(episodes) != len(actions) or len({id(episode) for episode in episodes}) != len(actions):
    raise ValueError(f'{len(episodes)} episodes and {len(actions)} actions; give one action to'
                     ' each of different episodes')
  for episode in episodes:
    if episode.is_done:
      raise ValueError(f'episode of task {episode.task.id!r} is done; start a new one')
