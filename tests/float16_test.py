"""Training in float16: a scaled loss keeps small gradients; an overflow skips the step."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mem1_jax import assemble, sft
from mem1_jax.model import build_critic, build_policy
from mem1_jax.rl import learner, networks
from tests.parallel import programs
from tests.tiny import tiny_config

SCALE = 2.0**24


@functools.cache
def _models(dtype):
  config = dataclasses.replace(programs.CONFIG, dtype=dtype, remat='attention')
  return build_policy(config, 'chunked'), build_critic(config, 'chunked')


def _gradients(trace):
  return [np.asarray(x, np.float64) for x in jax.tree.leaves(trace)]


def relative_error(got, want):
  return max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(got, want, strict=True))


@functools.cache
def ppo(dtype, loss_scale):
  """(gradients, state, metrics) of an update that is small: advantages and targets of 1e-4."""
  policy, critic = _models(dtype)
  config = dataclasses.replace(
      programs.PPO, entropy_coef=0.0, whiten=False, loss_scale=loss_scale)
  reference, *trained = programs.params(0)
  state = learner.init_state(*trained, programs.OPTIMIZER, programs.OPTIMIZER, 0.0)
  axes = policy.logical_axes() | critic.logical_axes()
  shardings = learner.make_shardings(policy.mesh, axes, state, reference, config)
  functions = networks.Networks(policy.apply, policy.head, critic.apply)
  rows, num_rows = programs.episodes(), np.int32(programs.ROWS)
  batch = learner.make_score(functions, config, shardings)(
      state.policy, state.value, reference, state.kl_coef, rows, num_rows)
  noise = np.sin(np.arange(batch.value.size)).reshape(batch.value.shape).astype(np.float32)
  batch = dataclasses.replace(
      batch, advantage=1e-4 * noise, target=batch.value + 1e-4 * noise)
  update = learner.make_update(
      functions, programs.OPTIMIZER, programs.OPTIMIZER, config, shardings)
  state, metrics = update(state, batch, num_rows, jax.random.key(0), reference)
  return _gradients((state.policy_opt[0].trace, state.value_opt[0].trace)), state, metrics


@pytest.mark.slow
def test_small_gradients_of_ppo_survive_by_the_scale_alone():
  want, _, exact = ppo('float32', 1.0)
  got, _, metrics = ppo('float16', SCALE)
  lost, _, _ = ppo('float16', 1.0)
  assert metrics['skipped_updates'] == 0
  np.testing.assert_allclose(metrics['policy_grad_norm'], exact['policy_grad_norm'], rtol=0.02)
  assert relative_error(got, want) < 0.05 < 0.5 < relative_error(lost, want)


def test_in_float32_the_scale_changes_next_to_nothing():
  assert relative_error(ppo('float32', SCALE)[0], ppo('float32', 1.0)[0]) < 1e-6


def test_an_overflow_skips_the_minibatch_and_is_counted():
  _, state, metrics = ppo('float16', 2.0**50)
  assert metrics['skipped_updates'] == 1 and state.skipped == 1
  jax.tree.map(np.testing.assert_array_equal, state.policy, programs.params(0)[1])


@functools.cache
def supervised(dtype, loss_scale, micro_rows=0):
  policy, _ = _models(dtype)
  trained = programs.params(0)[1]
  state = (trained, programs.OPTIMIZER.init(trained))
  shardings = sft.make_shardings(policy, state, programs.ROWS, None)
  step = sft.make_step(policy, programs.OPTIMIZER, programs.PPO.num_valid, shardings, micro_rows,
                       loss_scale)
  (params, opt), metrics = step(
      jax.device_put(state, shardings[0]), programs.episodes(), None, np.int32(1))
  return _gradients(opt[0].trace), params, metrics


def test_a_supervised_step_in_float16():
  want, _, exact = supervised('float32', 1.0)
  got, _, metrics = supervised('float16', 2.0**10)
  np.testing.assert_allclose(metrics['loss'], exact['loss'], rtol=1e-3)
  np.testing.assert_allclose(metrics['probability'], exact['probability'], rtol=1e-2)
  assert relative_error(got, want) < 0.02
  _, params, metrics = supervised('float16', 2.0**50)
  assert metrics['skipped']
  jax.tree.map(np.testing.assert_array_equal, params, programs.params(0)[1])


def test_supervised_micro_rows_do_not_change_the_step():
  (want, _, whole), (got, _, parts) = (supervised('float32', 1.0, rows) for rows in (0, 4))
  assert relative_error(got, want) < 1e-5
  for name in whole:
    np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)
  with pytest.raises(ValueError, match='16 rows a step cannot be dealt to micro-batches of 5'):
    supervised('float32', 1.0, 5)


@pytest.mark.parametrize('scale, message', [
    (1.0, 'float16 loses gradients below 6e-8; set optim.loss_scale'),
    (3.0, 'optim.loss_scale 3.0 must be a power of two')])
def test_refuses(scale, message):
  config = tiny_config()
  config.model.dtype, config.optim.loss_scale = 'float16', scale
  with pytest.raises(ValueError, match=message):
    assemble.loss_scale(config)
  config.optim.loss_scale = 2.0**14
  assert assemble.loss_scale(config) == 16384
