"""Advantages over what the policy generated, and nothing else.

A packed row mixes questions, copied context, retrieved text and padding with
the tokens that the policy sampled. Only the latter are steps of the decision
process: here the others are skipped as if they were absent, so that inserting
them changes no advantage (DESIGN 5.7).
"""

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import Array, Tags

# Keeps the division finite when all advantages are equal; they are then 0.
_VARIANCE_FLOOR = 1e-8


def leave_one_out(reward_N: np.ndarray, num_samples: int,
                  is_valid_N: np.ndarray | None = None) -> np.ndarray:
  """Each reward less the mean of the other samples of its task, [N] (arXiv 2402.14740).

  What is subtracted does not depend on the sample, so no gradient is biased; how hard a
  task is, most of what rewards differ by, is gone. On the host.

  Args:
    reward_N: one per episode; those of a task stand together.
    num_samples: episodes per task, ≥ 2, a divisor of N.
    is_valid_N: whose rewards mean something; None for all. A sample without others that do gets 0.

  Raises:
    ValueError: fewer than two samples, or no multiple of them.
  """
  if num_samples < 2 or len(reward_N) % num_samples:
    raise ValueError(f'{len(reward_N)} rewards are not tasks of num_samples={num_samples} ≥ 2 '
                     'episodes each; raise ppo.samples, or use ppo.baseline=critic')
  groups = np.asarray(reward_N, np.float32).reshape(-1, num_samples)
  is_valid = np.ones_like(groups) if is_valid_N is None else np.reshape(is_valid_N, groups.shape)
  valid, num_others = groups * is_valid, is_valid.sum(1, keepdims=True) - is_valid
  others = (valid.sum(1, keepdims=True) - valid) / np.maximum(num_others, 1)
  return np.where(num_others > 0, groups - others, 0).astype(np.float32).reshape(-1)


def gae(reward_BS: Array, value_BS: Array, tags: Tags, gamma: float, lam: float) -> Array:
  """Advantages [B, S] float32 of the generated tokens, 0 elsewhere.

  Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438,
  eqs. 11, 12 and 16). With i running over the generated tokens of one episode only:

      delta_i = reward_i + gamma * value_{i+1} - value_i
      A_i     = delta_i + gamma * lam * A_{i+1}

  and value = A = 0 after an episode's last token. Time passes across turns;
  it starts anew where `tags.episode` changes within a row.

       row      q  q  g0 g0 | c  c  g1 | q' q' g0' .
       steps          0  1         2           0

  The value target is `A_i + value_i`.

  Args:
    reward_BS: reward of each token; on a token that is not generated it is ignored.
    value_BS: estimate before each token.
    tags: uses `is_generated` and `episode`.
    gamma: discount per generated token, in [0, 1].
    lam: GAE's lambda, in [0, 1].
  """
  def step(carry, token):
    later_episode_B, later_value_B, later_advantage_B = carry
    reward_B, value_B, episode_B, is_generated_B = token
    continues_B = episode_B == later_episode_B
    next_value_B = jnp.where(continues_B, later_value_B, 0.0)
    next_advantage_B = jnp.where(continues_B, later_advantage_B, 0.0)
    delta_B = reward_B + gamma * next_value_B - value_B
    advantage_B = delta_B + gamma * lam * next_advantage_B
    here = (episode_B, value_B, advantage_B)
    carry = tuple(jnp.where(is_generated_B, new, old) for new, old in zip(here, carry))
    return carry, jnp.where(is_generated_B, advantage_B, 0.0)

  zeros_B = jnp.zeros(reward_BS.shape[:1], jnp.float32)
  # -2: no episode's number (padding is -1), so the last token starts a chain.
  start = (jnp.full(zeros_B.shape, -2, tags.episode.dtype), zeros_B, zeros_B)
  tokens = (reward_BS.astype(jnp.float32), value_BS.astype(jnp.float32), tags.episode,
            tags.is_generated)
  tokens_SB = jax.tree.map(jnp.transpose, tokens)
  _, advantage_SB = jax.lax.scan(step, start, tokens_SB, reverse=True)
  return advantage_SB.T


def whiten(x_BS: Array, mask_BS: Array) -> Array:
  """`x` with mean 0 and variance 1 over the masked tokens of all rows; 0 elsewhere.

      (x - mean) / sqrt(var + 1e-8),  var = mean((x - mean)²)

  over the whole batch, not per row or minibatch (Andrychowicz et al. 2021,
  arXiv 2006.05990, section 3.5, discuss the choice). Float32. With no masked
  token, or all of them equal, the result is 0.
  """
  x_BS = x_BS.astype(jnp.float32)
  count = jnp.maximum(mask_BS.sum(), 1).astype(jnp.float32)
  mean = jnp.where(mask_BS, x_BS, 0.0).sum() / count
  centred_BS = jnp.where(mask_BS, x_BS - mean, 0.0)
  variance = jnp.square(centred_BS).sum() / count
  return centred_BS * jax.lax.rsqrt(variance + _VARIANCE_FLOOR)
