"""What training says of an iteration's rollout."""

from collections.abc import Sequence

import numpy as np

from mem1_jax.evaluate import aggregate
from mem1_jax.metrics import standard_error
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import Trajectory


def rollout_metrics(trajectories: Sequence[Trajectory], stats: RolloutStats) -> dict[str, float]:
  """What the agents did, per episode, and how fast; what their world counted meanwhile."""
  means, rewards = aggregate(trajectories), [t.reward for t in trajectories]
  names = ('em', 'f1', 'answered', 'turns', 'searches', 'peak_tokens', 'generated_tokens')
  turns = max(1, stats.num_turns)
  return {f'rollout_{name}': means[name] for name in names} | {
      'reward': float(np.mean(rewards)),
      'reward_error': standard_error(rewards, [t.task.id for t in trajectories]),
      'rollout_valid_actions': 1 - stats.num_malformed / turns,
      'rollout_length_stops': stats.num_length_stops / turns,
      'rollout_repetition_stops': stats.num_repetition_stops / turns,
      'rollout_cut_tokens': stats.num_cut,
      'rollout_overflow': stats.num_overflow,
      'rollout_faults': stats.num_faults,
      'rollout_search_outages': stats.num_outages,
      'rollout_occupancy': stats.occupancy,
      'rollout_reused_tokens': stats.num_reused / max(1, stats.num_reused + stats.num_read),
      'rollout_prefill_share': stats.prefill_seconds / stats.seconds,
      'rollout_decode_share': stats.decode_seconds / stats.seconds,
      'rollout_environment_share': stats.environment_seconds / stats.seconds,
      'rollout_tokens_per_s': stats.num_generated / stats.seconds,
      'rollout_seconds': stats.seconds,
  } | dict(stats.counts)
