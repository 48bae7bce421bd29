"""What is measured of trajectories, and of the rollout they come from.

Of a trajectory (arXiv 2506.15841):

    em, f1            sums over a task's questions; a wrong number of answers scores 0; of a
                      purchase: whether it is the very product that the goal was made from
    em_per_question   em / questions
    reward            what the environment gave: em, or a purchase's score
    answered          1 if it ended in an answer
    peak_tokens       most tokens of any one context, without the question; …_with_question: with it
    dependency        sum over generated segments of (prefix + l / 2) * l, tokens²
    compression       all that was written and told, once each, by peak_tokens: how many times
                      smaller the largest context is than the whole history; 1 for full context
    turns, searches, generated_tokens; search_outages: searches that could not be done
    seconds           wall time from its first prefill to its last action, among the other
                      episodes of its batch

Of a cell or an iteration: means of these over all trajectories, failed ones included; search_…,
shown_… and others are what its world counted meanwhile.
"""

from collections.abc import Sequence

import numpy as np

from mem1_jax import cells
from mem1_jax.env.rewards import score_answer
from mem1_jax.metrics import standard_error
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import Trajectory


def contexts(trajectory: Trajectory) -> list[tuple[int, int]]:
  """(tokens read, tokens written) of each turn's context, the question included.

  Where nothing is append-only, a turn's own context is all that it read beside the question.
  """
  question, read, sizes = len(trajectory.prompt), len(trajectory.prompt), []
  for j, turn in enumerate(trajectory.turns):
    new = len(turn.context.segment) if j else 0  # turn 0 reads nothing but the question
    read = (read if trajectory.is_append_only else question) + new
    sizes.append((read, len(turn.written)))
    read += len(turn.written)
  return sizes


def measure(trajectory: Trajectory) -> dict[str, float]:
  """The metrics of one trajectory."""
  score = score_answer(trajectory.answer or '', trajectory.task)
  sizes = contexts(trajectory)
  question = len(trajectory.prompt)
  new = sum(len(turn.context.segment) - turn.context.num_carried for turn in trajectory.turns[1:])
  # No turn: its server never answered.
  peak = max((read + written for read, written in sizes), default=question)
  generated = sum(written for _, written in sizes)
  return {
      'em': score.em,
      'em_per_question': score.em / len(trajectory.task.questions),
      'f1': score.f1,
      'reward': trajectory.reward,
      'answered': float(trajectory.answer is not None),
      'peak_tokens': peak - question,
      'peak_tokens_with_question': peak,
      'dependency': sum((read + written / 2) * written for read, written in sizes),
      'compression': (new + generated) / (peak - question) if peak > question else 1.0,
      'turns': len(trajectory.turns),
      'searches': trajectory.searches,
      'search_outages': trajectory.outages,
      'generated_tokens': generated,
      'seconds': trajectory.seconds,
  }


def aggregate(trajectories: Sequence[Trajectory]) -> dict[str, float]:
  """Means over all trajectories, and how many they are.

  Raises:
    ValueError: for none.
  """
  return cells.means([measure(t) for t in trajectories])


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
