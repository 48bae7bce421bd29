"""What training says of a rollout: means over episodes, shares of turns, of seconds and of slots."""

import dataclasses

import pytest

from mem1_jax import measures
from mem1_jax.rollout.stats import RolloutStats
from tests.evaluate_test import episode


def test_an_iterations_rollout_by_hand():
  good = episode(False)
  bad = dataclasses.replace(episode(False, answer=None), task=dataclasses.replace(good.task, id='u'))
  stats = RolloutStats(
      num_turns=6, num_generated=18, num_malformed=2, num_length_stops=1, num_idle=6, num_read=30,
      num_reused=10, prefill_seconds=1.0, decode_seconds=2.0, environment_seconds=0.5, seconds=4.0,
      counts={'search_requests': 7})
  found = measures.rollout_metrics([good, bad], stats)
  assert found['rollout_em'] == pytest.approx(0.5) and found['rollout_answered'] == 0.5
  assert found['rollout_turns'] == 3 and found['rollout_valid_actions'] == pytest.approx(2 / 3)
  assert found['rollout_length_stops'] == pytest.approx(1 / 6)
  assert found['rollout_occupancy'] == 0.75 and found['rollout_reused_tokens'] == 0.25
  assert (found['rollout_prefill_share'], found['rollout_decode_share'],
          found['rollout_environment_share']) == (0.25, 0.5, 0.125)
  assert found['rollout_tokens_per_s'] == 4.5 and found['search_requests'] == 7
  assert found['reward'] == (good.reward + bad.reward) / 2
