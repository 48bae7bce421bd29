"""The losses against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.rl import losses


def test_policy_loss_by_hand():
  ratio = jnp.array([[1.0, 1.5, 1.5, 0.5, 0.5]])
  advantage = jnp.array([[2.0, 2.0, -2.0, 2.0, -2.0]])
  # -min(r A, clip(r) A) with clip .2
  want = [[-2.0, -2.4, 3.0, -1.0, 1.6]]
  np.testing.assert_allclose(losses.policy_loss(ratio, advantage, 0.2), want, rtol=1e-6)
  clipped = losses.is_clipped(ratio, advantage, 0.2)
  np.testing.assert_array_equal(clipped, [[False, True, False, False, True]])


def test_clipping_is_where_the_gradient_is_zero():
  ratio = jnp.array([[0.5, 0.5, 0.9, 1.1, 1.5, 1.5]])
  advantage = jnp.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
  gradient = jax.grad(lambda r: losses.policy_loss(r, advantage, 0.2).sum())(ratio)
  np.testing.assert_array_equal(gradient == 0.0, losses.is_clipped(ratio, advantage, 0.2))


def test_ratio_is_one_at_equal_logprobs_and_bounded_elsewhere():
  x = jnp.array([[-3.0, -0.1]])
  np.testing.assert_array_equal(losses.ratio(x, x), [[1.0, 1.0]])
  assert np.isfinite(losses.ratio(jnp.float32(0.0), jnp.float32(-1e4)))


def test_value_loss_by_hand():
  value = jnp.array([[3.0, 3.0, 0.1]])
  old = jnp.array([[0.0, 2.9, 0.0]])
  target = jnp.array([[3.0, 1.0, 2.0]])
  # Clipped values .5, 3.0, .1: max of the squared errors (0, 6.25), (4, 4), (3.61, 3.61).
  want = [[3.125, 2.0, 1.805]]
  np.testing.assert_allclose(losses.value_loss(value, old, target, 0.5), want, rtol=1e-5)
  free = losses.value_loss(value, old, target, jnp.inf)
  np.testing.assert_allclose(free, [[0.0, 2.0, 1.805]], rtol=1e-5)


def test_kl_estimators_by_hand():
  d = jnp.log(jnp.array([[2.0, 0.5, 1.0]]))
  zeros = jnp.zeros((1, 3))
  log2 = np.log(2)
  np.testing.assert_allclose(losses.kl(d, zeros, 'k1'), [[log2, -log2, 0]], rtol=1e-6)
  np.testing.assert_allclose(losses.kl(d, zeros, 'k2'), [[log2**2 / 2, log2**2 / 2, 0]], rtol=1e-6)
  np.testing.assert_allclose(losses.kl(d, zeros, 'k3'), [[log2 - 0.5, 1 - log2, 0]], rtol=1e-5)
  with pytest.raises(ValueError, match='k4'):
    losses.kl(d, zeros, 'k4')


def test_k1_and_k3_estimate_the_same_kl():
  policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
  exact = (policy * np.log(policy / reference)).sum()
  for estimator in ('k1', 'k3'):
    per_token = losses.kl(jnp.log(policy), jnp.log(reference), estimator)
    np.testing.assert_allclose((policy * np.asarray(per_token)).sum(), exact, rtol=1e-5)


def test_masked_mean_uses_the_given_count_and_ignores_the_rest():
  x = jnp.array([[1.0, jnp.nan], [2.0, 3.0]])
  mask = jnp.array([[True, False], [True, False]])
  np.testing.assert_allclose(losses.masked_mean(x, mask, 4), 0.75)
  np.testing.assert_allclose(losses.masked_mean(x, jnp.zeros_like(mask), 0), 0.0)


def test_explained_variance():
  target = jnp.array([[1.0, 3.0, 99.0]])
  mask = jnp.array([[True, True, False]])
  explained = lambda value: float(losses.explained_variance(jnp.array([value]), target, mask))
  assert explained([1.0, 3.0, 0.0]) == 1.0
  assert explained([5.0, 5.0, 0.0]) == 0.0  # constant: no better, no worse than the mean
  assert explained([3.0, 1.0, 0.0]) == -3.0  # target ±1, what is left ±2: 1 - 4 / 1
  assert losses.explained_variance(jnp.zeros((1, 3)), jnp.ones((1, 3)), mask) == 0.0


def test_adaptive_kl_coefficient_by_hand():
  adapt = lambda kl: float(losses.adapt_kl_coef(jnp.float32(0.1), jnp.float32(kl), 0.01, 2.0))
  np.testing.assert_allclose(adapt(0.01), 0.1, rtol=1e-6)
  np.testing.assert_allclose(adapt(0.011), 0.1 * (1 + 0.1 / 2), rtol=1e-5)
  np.testing.assert_allclose(adapt(1.0), 0.1 * 1.1, rtol=1e-6)  # held at +20 %
  np.testing.assert_allclose(adapt(0.0), 0.1 * 0.9, rtol=1e-6)  # held at -20 %
  np.testing.assert_allclose(adapt(np.nan), 0.1, rtol=1e-6)


def test_what_another_policy_sampled_counts_by_the_ratio_up_to_the_cap():
  old, sampler = jnp.array([[0.2, 0.4, 0.9, 0.3]]), jnp.array([[0.4, 0.4, 0.1, 0.2]])
  weight = losses.truncated_weight(jnp.log(old), jnp.log(sampler), 2.0)
  np.testing.assert_allclose(weight, [[0.5, 1, 2, 1.5]], rtol=1e-5)
