"""Peak, dependency, compression and scores of trajectories made by hand; what a rollout says."""

import dataclasses

import pytest

from mem1_jax import measures
from mem1_jax.rollout.stats import RolloutStats
from tests.evaluate_test import episode, rereading


def test_constant_memory_by_hand():
  # Contexts: 3 | 3 + 2 + 1 = 6 | 3 + 3 + 1 = 7, then 2, 3 and 4 are written.
  assert measures.contexts(episode(False)) == [(3, 2), (6, 3), (7, 4)]
  measured = measures.measure(episode(False))
  assert measured['peak_tokens_with_question'] == 11
  assert measured['peak_tokens'] == 8
  assert measured['dependency'] == (3 + 1) * 2 + (6 + 1.5) * 3 + (7 + 2) * 4
  assert measured['generated_tokens'] == 9
  assert measured['compression'] == (2 + 1 + 3 + 1 + 4) / 8
  assert (measured['turns'], measured['searches'], measured['seconds']) == (3, 2, 1.5)


def test_full_context_by_hand():
  assert measures.contexts(episode(True)) == [(3, 2), (6, 3), (10, 4)]
  measured = measures.measure(episode(True))
  assert (measured['peak_tokens_with_question'], measured['peak_tokens']) == (14, 11)
  assert measured['dependency'] == (3 + 1) * 2 + (6 + 1.5) * 3 + (10 + 2) * 4
  assert measured['compression'] == 1.0


def test_turns_that_are_read_again_count_again():
  # Contexts: 3 | 3 + 2 + 1 | 3 + (3 + 3) + 1 | 3 + (3 + 4) + 2, then 2, 3, 4 and 1 are written.
  assert measures.contexts(rereading()) == [(3, 2), (6, 3), (10, 4), (12, 1)]
  measured = measures.measure(rereading())
  assert (measured['peak_tokens_with_question'], measured['peak_tokens']) == (14, 11)
  assert measured['dependency'] == (3 + 1) * 2 + (6 + 1.5) * 3 + (10 + 2) * 4 + (12 + .5) * 1
  assert measured['compression'] == (2 + 1 + 3 + 1 + 4 + 2 + 1) / 11


def test_scores():
  measured = measures.measure(episode(False))
  assert (measured['em'], measured['em_per_question'], measured['f1']) == (1.0, 0.5, 1.0)
  assert (measured['answered'], measured['reward']) == (1.0, 1.0)
  for answer in ('Oslo', 'Oslo; 47; x', ''):  # a wrong number of answers
    assert measures.measure(episode(False, answer))['em'] == 0.0


def test_an_episode_without_an_answer_scores_nothing():
  measured = measures.measure(episode(False, answer=None))
  assert (measured['answered'], measured['em'], measured['f1']) == (0.0, 0.0, 0.0)


def test_aggregate_is_the_mean_over_all():
  means = measures.aggregate([episode(False), episode(False, None), episode(True, lengths=(2,))])
  assert means['episodes'] == 3
  assert means['turns'] == pytest.approx(7 / 3)
  assert means['peak_tokens'] == pytest.approx((8 + 8 + 2) / 3)
  assert means['answered'] == pytest.approx(2 / 3)
  with pytest.raises(ValueError, match='no trajectory to aggregate'):
    measures.aggregate([])


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
