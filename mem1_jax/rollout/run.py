"""A rollout under way: what a process does of it, and what all have done in the end."""

import collections
import dataclasses
from collections.abc import Callable

from mem1_jax.parallel import multihost
from mem1_jax.rollout.replies import Replies
from mem1_jax.rollout.slots import Group, Job
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import Trajectory


@dataclasses.dataclass(eq=False)
class Run:
  """This process's part of a rollout."""

  waiting: collections.deque[tuple[int, Job]]  # in order
  groups: list[Group]
  replies: Replies
  iteration: int
  on_done: Callable[[Trajectory], None]
  num_active: int = 0  # slots of all processes that decode
  is_idle: bool = False  # the last tick had nothing for any program
  is_filling: bool = False  # the last tick left so many ready turns that another refill follows
  patience_s: float = 0.0
  done: dict[int, Trajectory] = dataclasses.field(default_factory=dict)
  stats: RolloutStats = dataclasses.field(default_factory=RolloutStats)
  error: Exception | None = None


def together(run: Run) -> tuple[dict[int, Trajectory], RolloutStats]:
  """The trajectories and counts of all processes.

  Raises:
    Exception: this process's error.
    RuntimeError: another's.
  """
  parts = multihost.gather((run.done, run.stats, run.error and repr(run.error)))
  if run.error:
    raise run.error
  for process, (_, _, error) in enumerate(parts):
    if error:
      raise RuntimeError(f'process {process} stopped the rollout: {error}')
  done = dict(item for part, _, _ in parts for item in part.items())
  for order in sorted(done.keys() - run.done.keys()):
    run.on_done(done[order])
  stats = sum((stats for _, stats, _ in parts), RolloutStats())
  for name in ('prefill_seconds', 'decode_seconds', 'environment_seconds'):
    setattr(stats, name, getattr(stats, name) / len(parts))  # all took the same steps
  return done, stats
