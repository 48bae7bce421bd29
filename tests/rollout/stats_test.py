"""Counts of a rollout."""

from mem1_jax import types
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import ActionKind, Kind, Stop


def turn(kind, stop, num):
  written = types.Segment((2,) * num, tuple(range(num)), (Kind.STATE,) * num)
  return types.TurnRecord(types.Context(written), written, (0.0,) * num, types.Action(kind, ''),
                          stop, 0.0)


def test_turns_are_counted_by_what_ended_them():
  stats = RolloutStats()
  stats.add(turn(ActionKind.SEARCH, Stop.TAG, 3))
  stats.add(turn(ActionKind.MALFORMED, Stop.LENGTH, 8))
  stats.add(turn(ActionKind.MALFORMED, Stop.REPETITION, 5))
  assert (stats.num_turns, stats.num_generated, stats.num_malformed) == (3, 16, 2)
  assert (stats.num_length_stops, stats.num_repetition_stops) == (1, 1)


def test_the_counts_of_processes_add_up():
  one, other = RolloutStats(num_turns=2, num_idle=3), RolloutStats(num_turns=5, num_generated=9)
  both = one + other
  assert (both.num_turns, both.num_idle, both.num_generated) == (7, 3, 9)
  assert both.occupancy == 0.75 and RolloutStats().occupancy == 0.0
  one, other = RolloutStats(counts={'a': 1, 'b': 0}), RolloutStats(counts={'a': 4})
  assert sum([one, other], RolloutStats()).counts == {'a': 5, 'b': 0}
  assert RolloutStats().counts == {}
