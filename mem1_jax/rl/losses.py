"""PPO's losses, term by term, as pure functions of [B, S] arrays.

Every mean is a masked sum divided by a `num_tokens` that the caller passes:
the count over the *whole* minibatch. Micro-rows and devices can then be summed
without any of them weighing more than its tokens. All float32.
"""

import jax.numpy as jnp

from mem1_jax.arrays import Array

KL_ESTIMATORS = ('k1', 'k2', 'k3')

# exp(20) = 5e8 stays finite in float32; a log-ratio that large only ever comes
# from a token the other policy all but excludes, and is clipped anyway.
_LOG_RATIO_LIMIT = 20.0


def masked_mean(x_BS: Array, mask_BS: Array, num_tokens: Array | float) -> Array:
  """sum of the masked `x` / `num_tokens`, a scalar; 0 where `num_tokens` is 0.

  A masked-out entry may be NaN or inf without harm to the value.
  """
  total = jnp.where(mask_BS, x_BS.astype(jnp.float32), 0.0).sum()
  return total / jnp.maximum(jnp.asarray(num_tokens, jnp.float32), 1.0)


def _log_ratio(logprob_BS: Array, other_BS: Array) -> Array:
  difference_BS = logprob_BS.astype(jnp.float32) - other_BS.astype(jnp.float32)
  return jnp.clip(difference_BS, -_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)


def ratio(logprob_BS: Array, old_logprob_BS: Array) -> Array:
  """pi(token) / pi_old(token), [B, S]; the log-ratio is held within ±20."""
  return jnp.exp(_log_ratio(logprob_BS, old_logprob_BS))


def policy_loss(ratio_BS: Array, advantage_BS: Array, clip: float) -> Array:
  """The clipped surrogate per token, [B, S], to be minimised.

      -min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A)

  (Schulman et al. 2017, arXiv 1707.06347, eq. 7.)
  """
  clipped_BS = jnp.clip(ratio_BS, 1.0 - clip, 1.0 + clip)
  return -jnp.minimum(ratio_BS * advantage_BS, clipped_BS * advantage_BS)


def truncated_weight(old_logprob_BS: Array, sampler_logprob_BS: Array, cap: float) -> Array:
  """What a token counts that another policy sampled, [B, S]: min(pi_old / pi_sampler, cap).

  Unbiased but for the cap, which bounds the variance (truncated importance sampling, Ionides
  2008), for samplers whose numbers are not the learner's.
  """
  return jnp.minimum(ratio(old_logprob_BS, sampler_logprob_BS), cap)


def is_clipped(ratio_BS: Array, advantage_BS: Array, clip: float) -> Array:
  """Where clipping took the policy gradient away, [B, S] bool.

  That is above 1 + clip for a positive advantage, below 1 - clip for a
  negative one; its masked mean is the clip fraction.
  """
  above_BS = (ratio_BS > 1.0 + clip) & (advantage_BS > 0.0)
  below_BS = (ratio_BS < 1.0 - clip) & (advantage_BS < 0.0)
  return above_BS | below_BS


def value_loss(value_BS: Array, old_value_BS: Array, target_BS: Array, clip: float) -> Array:
  """The clipped squared error per token, [B, S].

      0.5 * max((v - target)², (v_old + clamp(v - v_old, -clip, clip) - target)²)

  the pessimistic form of PPO2 (https://github.com/openai/baselines, ppo2/model.py).
  `clip` is in units of the return; infinity switches clipping off.
  """
  clipped_BS = old_value_BS + jnp.clip(value_BS - old_value_BS, -clip, clip)
  error_BS = jnp.square(value_BS - target_BS)
  return 0.5 * jnp.maximum(error_BS, jnp.square(clipped_BS - target_BS))


def kl(logprob_BS: Array, ref_logprob_BS: Array, estimator: str) -> Array:
  """Per-token estimate of KL(policy, reference), [B, S], on the policy's own samples.

  With d = logprob - ref_logprob, held within ±20
  (Schulman 2020, http://joschu.net/blog/kl-approx.html):

      k1 = d                  unbiased, may be negative
      k2 = d² / 2             biased, low variance, ≥ 0
      k3 = exp(-d) - 1 + d    unbiased, low variance, ≥ 0

  As a loss k1 is useless: the expected gradient of d under the policy is 0.

  Raises:
    ValueError: unknown estimator.
  """
  d_BS = _log_ratio(logprob_BS, ref_logprob_BS)
  if estimator == 'k1':
    return d_BS
  if estimator == 'k2':
    return 0.5 * jnp.square(d_BS)
  if estimator == 'k3':
    return jnp.expm1(-d_BS) + d_BS
  raise ValueError(f'KL estimator {estimator!r} is not one of {KL_ESTIMATORS}; use one of them')


def explained_variance(value_BS: Array, target_BS: Array, mask_BS: Array) -> Array:
  """1 - var(target - value) / var(target) over the masked tokens, a scalar ≤ 1.

  1: the critic predicts every return; 0: no better than a constant; negative:
  worse. 0 where the targets do not vary.
  """
  count = mask_BS.sum()

  def variance(x_BS):
    mean = masked_mean(x_BS, mask_BS, count)
    return masked_mean(jnp.square(x_BS - mean), mask_BS, count)

  total = variance(target_BS)
  rest = variance(target_BS - value_BS)
  return jnp.where(total > 0.0, 1.0 - rest / jnp.where(total > 0.0, total, 1.0), 0.0)


def adapt_kl_coef(coef: Array, observed_kl: Array, target: float, horizon: float) -> Array:
  """The KL coefficient for the next update (Ziegler et al. 2019, arXiv 1909.08593, §2.2).

      coef * (1 + clamp(kl / target - 1, -0.2, 0.2) / horizon)

  Args:
    coef: the present coefficient, ≥ 0.
    observed_kl: nats per generated token.
    target: the wanted KL in the same unit, > 0.
    horizon: updates over which a persistent error of 20 % or more would change
      the coefficient by about 20 %.
  """
  error = jnp.clip(observed_kl / target - 1.0, -0.2, 0.2)
  # A KL that is not finite says nothing about where to steer.
  return jnp.where(jnp.isfinite(observed_kl), coef * (1.0 + error / horizon), coef)
