"""GAE and whitening see generated tokens only."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import arrays
from mem1_jax.rl import advantages


def _tags(is_generated, episode=None):
  is_generated = jnp.asarray(is_generated, bool)
  zeros = jnp.zeros(is_generated.shape, jnp.int32)
  episode = zeros if episode is None else jnp.asarray(episode, jnp.int32)
  return arrays.Tags(zeros, episode, zeros, zeros, zeros, is_generated)


def test_gae_by_hand():
  # q g g | c g | pad: the chain is tokens 1, 2, 4. gamma = .5, lam = .5.
  reward = jnp.array([[9.0, 0.0, 1.0, 9.0, 4.0, 9.0]])
  value = jnp.array([[7.0, 2.0, 1.0, 7.0, 3.0, 7.0]])
  got = advantages.gae(reward, value, _tags([[0, 1, 1, 0, 1, 0]]), 0.5, 0.5)
  last = 4.0 - 3.0
  middle = 1.0 + 0.5 * 3.0 - 1.0 + 0.25 * last
  first = 0.0 + 0.5 * 1.0 - 2.0 + 0.25 * middle
  np.testing.assert_allclose(got, [[0, first, middle, 0, last, 0]])
  assert got.dtype == jnp.float32


def test_gamma_and_lambda_one_give_return_minus_value():
  reward = jnp.array([[0.0, 0.0, 1.0, 0.0, 5.0]])
  value = jnp.array([[0.5, 0.25, 2.0, 1.0, 3.0]])
  got = advantages.gae(reward, value, _tags(np.ones((1, 5))), 1.0, 1.0)
  np.testing.assert_allclose(got, np.array([[6, 6, 6, 5, 5]]) - value)


def test_episodes_of_a_row_do_not_mix():
  reward = jnp.array([[0.0, 1.0, 0.0, 0.0, 10.0]])
  value = jnp.zeros((1, 5))
  tags = _tags([[1, 1, 0, 1, 1]], [[0, 0, 1, 1, 1]])
  got = advantages.gae(reward, value, tags, 1.0, 1.0)
  np.testing.assert_allclose(got, [[1, 1, 0, 10, 10]])


def test_a_lone_episode_with_any_number_starts_at_zero():
  # Not even episode -1 or 0 may be taken for what follows the row.
  for number in (-1, 0, 3):
    tags = _tags([[0, 1]], [[number, number]])
    got = advantages.gae(jnp.array([[0.0, 2.0]]), jnp.ones((1, 2)), tags, 1.0, 1.0)
    np.testing.assert_allclose(got, [[0, 1]])


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.data())
def test_inserting_tokens_that_are_not_generated_changes_nothing(data):
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
  size, width = 6, 16
  generated = np.sort(rng.permutation(width)[:size])
  episode = np.sort(rng.integers(0, 3, size))
  compact = {'reward': rng.normal(size=size), 'value': rng.normal(size=size)}
  # Junk between: any value, any reward, the episode of the next or the previous token, or -1.
  spread = {name: rng.normal(size=width) for name in compact}
  spread_episode = rng.integers(-1, 4, width)
  is_generated = np.zeros(width, bool)
  is_generated[generated] = True
  for name, x in compact.items():
    spread[name][generated] = x
  spread_episode[generated] = episode
  gamma, lam = rng.uniform(size=2)
  want = advantages.gae(compact['reward'][None], compact['value'][None],
                        _tags(np.ones((1, size)), episode[None]), gamma, lam)
  tags = _tags(is_generated[None], spread_episode[None])
  got = advantages.gae(spread['reward'][None], spread['value'][None], tags, gamma, lam)
  np.testing.assert_array_equal(got[0][generated], want[0])
  assert not np.asarray(got)[0][~is_generated].any()
  white = advantages.whiten(got, tags.is_generated)
  want_white = advantages.whiten(want, jnp.ones((1, size), bool))
  np.testing.assert_allclose(white[0][generated], want_white[0], atol=1e-5)


def test_whiten_by_hand():
  x = jnp.array([[1.0, 100.0, 3.0], [5.0, -100.0, 7.0]])
  mask = jnp.array([[1, 0, 1], [1, 0, 1]], bool)
  # mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
  root = np.sqrt(5.0)
  np.testing.assert_allclose(advantages.whiten(x, mask),
                             [[-3 / root, 0, -1 / root], [1 / root, 0, 3 / root]], rtol=1e-6)


def test_whiten_of_nothing_or_of_equal_values_is_zero():
  x = jnp.full((2, 2), 3.0)
  for mask in (jnp.zeros((2, 2), bool), jnp.ones((2, 2), bool)):
    np.testing.assert_array_equal(advantages.whiten(x, mask), np.zeros((2, 2)))
  masked_nan = advantages.whiten(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
  np.testing.assert_array_equal(masked_nan, [[0, 0]])


def test_leave_one_out_by_hand():
  less = advantages.leave_one_out(np.array([2.0, 0.0, 1.0, 1.0, 1.0, 1.0]), 3)
  np.testing.assert_allclose(less, [1.5, -1.5, 0.0, 0.0, 0.0, 0.0])


def test_leave_one_out_leaves_out_rewards_that_mean_nothing():
  less = advantages.leave_one_out(
      np.array([2.0, 0.0, 1.0, 3.0, 0.0, 0.0]), 3, np.array([1, 0, 1, 1, 0, 0], bool))
  # The second has the others' mean; of the second task one alone is left.
  np.testing.assert_allclose(less[[0, 2, 3]], [1.0, -1.0, 0.0])


@pytest.mark.parametrize('num_samples', [1, 4])
def test_leave_one_out_needs_other_samples(num_samples):
  with pytest.raises(ValueError, match='ppo.samples'):
    advantages.leave_one_out(np.zeros(6), num_samples)
