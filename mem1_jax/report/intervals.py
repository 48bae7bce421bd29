"""Means with bootstrap intervals: how far a mean would move with other tasks of the same kind.

Percentile bootstrap (Efron and Tibshirani, 1993, section 13.3): trajectories are drawn anew with
replacement, as many as there are, and the middle 95 % of the means are the interval. The same
draws serve every metric. It covers the choice of tasks alone, not seeds or training runs.

Shapes: E trajectories, M metrics, R draws.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
MIN_VALUES = 2  # of one value there is nothing to resample


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean, and the ends of its interval; None where there is none."""

  mean: float
  low: float | None = None
  high: float | None = None


def estimates(rows: Sequence[Mapping[str, float]], seed: int = 0) -> dict[str, Estimate]:
  """An estimate for each name that every row has.

  Args:
    rows: the metrics of one trajectory each, at least one.
    seed: of the draws; the same rows and seed give the same bits.

  Raises:
    ValueError: there is no row.
  """
  if not rows:
    raise ValueError('no rows to estimate from; give at least one trajectory')
  names = [name for name in rows[0] if all(name in row for row in rows)]
  values_EM = np.array([[row[name] for name in names] for row in rows], np.float64)
  means_M = values_EM.mean(0)
  if len(rows) < MIN_VALUES:
    return {name: Estimate(float(mean)) for name, mean in zip(names, means_M)}
  num = len(rows)
  # How often each row is drawn, instead of which: one product gives all the means.
  counts_RE = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), RESAMPLES)
  low_M, high_M = np.quantile(counts_RE @ values_EM / num, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], 0)
  # Of equal values resampling knows nothing: 100 successes of 100 are no proof of certainty.
  is_alike_M = (values_EM == values_EM[0]).all(0)
  ends = ((None, None) if is_alike else (float(low), float(high))
          for low, high, is_alike in zip(low_M, high_M, is_alike_M))
  return {name: Estimate(float(mean), *pair) for name, mean, pair in zip(names, means_M, ends)}
