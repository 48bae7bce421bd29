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
    malformed: actions that could not be read.
    is_done: nothing more can be done.
  """

  task: types.Task
  max_turns: int
  turns: int
  searches: int
  malformed: int
  is_done: bool

  def step(self, action: types.Action) -> types.Observation:
    """Does one action. Raises ValueError where the episode is done."""


class Environment(Protocol):
  """Starts episodes and steps them in batches."""

  def start(self, task: types.Task) -> Episode:
    """A fresh episode of `task`."""

  def step_many(
      self, episodes: Sequence[Episode], actions: Sequence[types.Action]
  ) -> list[types.Observation]:
    """Does `actions[i]` in `episodes[i]`; the same as stepping them one by one."""
