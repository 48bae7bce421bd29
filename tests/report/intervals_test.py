"""report/intervals.py: the bootstrap against what theory says of known data."""

import math

import numpy as np
import pytest

from mem1_jax.report import intervals


def rows(values):
  return [{'em': float(value)} for value in values]


def test_the_interval_of_a_coin_is_the_binomial_one():
  found = intervals.estimates(rows([1] * 300 + [0] * 100))['em']
  half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
  assert found.mean == 0.75
  assert found.low == pytest.approx(0.75 - half, abs=0.004)
  assert found.high == pytest.approx(0.75 + half, abs=0.004)


def test_intervals_hold_the_truth_as_often_as_they_say():
  rng = np.random.default_rng(1)
  is_held = []
  for _ in range(300):
    found = intervals.estimates(rows(rng.normal(3.0, 2.0, 60)))['em']
    is_held.append(found.low <= 3.0 <= found.high)
  # 95 %, a little less with 60 values; three standard deviations of 300 trials are .038
  assert 0.90 <= np.mean(is_held) <= 0.985


def test_values_that_are_all_alike_have_no_interval_nor_has_a_single_one():
  assert intervals.estimates(rows([1] * 100))['em'] == intervals.Estimate(1.0)
  assert intervals.estimates(rows([2]))['em'] == intervals.Estimate(2.0)


def test_the_same_rows_give_the_same_bits_and_metrics_share_their_draws():
  data = [{'em': float(i % 3), 'twice': 2.0 * (i % 3)} for i in range(50)]
  first, second = intervals.estimates(data), intervals.estimates(data)
  assert first == second
  assert first['twice'].low == 2 * first['em'].low


def test_a_metric_that_a_row_lacks_is_left_out():
  assert set(intervals.estimates([{'em': 1.0, 'seconds': 2.0}, {'em': 0.0}])) == {'em'}


def test_no_rows_are_refused():
  with pytest.raises(ValueError, match='at least one trajectory'):
    intervals.estimates([])
