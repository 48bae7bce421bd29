"""Stochastic rounding: right in the mean, exact where it can be, and small updates add up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mem1_jax.ops import rounding

KEY = jax.random.key(0)


def test_goes_to_a_neighbour_and_is_right_in_the_mean():
  # Between 1 and 1 + 2^-7, the next bfloat16: 3/4 of the way.
  for value, low, high in ((1 + 0.75 * 2**-7, 1, 1 + 2**-7), (-1 - 0.75 * 2**-7, -1, -1 - 2**-7)):
    rounded = np.asarray(rounding.stochastic(jnp.full(40_000, value), KEY), np.float32)
    assert set(np.unique(rounded)) == {np.float32(low), np.float32(high)}
    share = (rounded == np.float32(high)).mean()
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 40_000)**0.5


def test_keeps_what_bfloat16_holds_and_what_is_not_finite():
  kept = jnp.asarray([0.0, -0.0, 1.0, -3.5, 2.0**-130, jnp.inf, -jnp.inf, jnp.nan], 'bfloat16')
  got = rounding.stochastic(kept.astype(jnp.float32), KEY)
  assert np.asarray(got[:7]).tobytes() == np.asarray(kept[:7]).tobytes() and np.isnan(got[7])


def test_small_updates_add_up_where_nearest_rounding_stalls():
  params = nearest = {'w': jnp.ones(2000, 'bfloat16')}
  updates = {'w': jnp.full(2000, 1e-5)}
  step = jax.jit(lambda params, i: rounding.apply_updates(
      params, updates, jax.random.fold_in(KEY, i)))
  for i in range(200):
    params, nearest = step(params, i), optax.apply_updates(nearest, updates)
  np.testing.assert_array_equal(nearest['w'], 1)
  # 200 * 1e-5, with a standard error of sqrt(200 * 1e-5 * 2^-7 / 2000)
  np.testing.assert_allclose(np.float32(params['w']).mean() - 1, 2e-3, atol=5 * 9e-5)
  assert params['w'].dtype == jnp.bfloat16


def test_the_key_decides_and_leaves_draw_apart():
  params = {name: jnp.ones(100, 'bfloat16') for name in 'ab'}
  updates = jax.tree.map(lambda x: jnp.full(x.shape, 2.0**-8), params)
  one, same, other = (rounding.apply_updates(params, updates, key)
                      for key in (KEY, KEY, jax.random.key(1)))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert (one['a'] != other['a']).any() and (one['a'] != one['b']).any()
  alone = rounding.apply_updates({'b': params['b']}, {'b': updates['b']}, KEY)
  np.testing.assert_array_equal(alone['b'], one['b'])  # whatever else there is


def test_wider_parameters_are_updated_as_optax_does():
  params = {'w': jax.random.normal(KEY, (64,)), 'half': jnp.ones(3, 'float16')}
  updates = jax.tree.map(lambda x: 1e-3 * jnp.arange(x.size, dtype='float32'), params)
  got, want = rounding.apply_updates(params, updates, KEY), optax.apply_updates(params, updates)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
