"""What actor and critic read: a head on the actor shares its pass, and as much gradient as said."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.rl import networks

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import token_task as toy  # noqa: E402  (tests are not a package)

VALUE = {'value': jnp.arange(1.0, 7.0)[:, None]}


def _episodes():
  return toy.rollout(toy.policy(0), jax.random.key(0), toy.questions(0, 4))


def _read(value, hidden_BSD):
  return hidden_BSD @ value['value'][:, 0]


def _counted():
  """The toy networks with a head on the actor, and a list that grows by each pass."""
  passes = []

  def hidden(*inputs):
    passes.append(inputs)
    return toy.NETWORKS.hidden(*inputs)

  return dataclasses.replace(toy.NETWORKS, hidden=hidden, value=None, read=_read), passes


def test_a_head_reads_the_pass_of_the_log_probs():
  functions, passes = _counted()
  policy, episodes = toy.policy(0), _episodes()
  for coef in (0.0, 0.3, 1.0):
    config = toy.config(trunk_value_coef=coef)
    passes.clear()
    logprob, entropy, value = networks.both(functions, config, policy, VALUE, episodes)
    assert len(passes) == 1
    want = networks.logprob(toy.NETWORKS, config, policy, episodes)
    np.testing.assert_array_equal(logprob, want[0])
    np.testing.assert_array_equal(entropy, want[1])
    np.testing.assert_array_equal(value, networks.value(functions, policy, VALUE, episodes))
  before = np.asarray(policy['table'] @ VALUE['value'][:, 0])[np.asarray(episodes.tokens)]
  np.testing.assert_allclose(value[:, 1:], before[:, :-1], rtol=1e-6)


@pytest.mark.parametrize('coef', [0.0, 0.25, 1.0])
def test_a_share_of_the_gradient_reaches_the_actor(coef):
  functions, _ = _counted()
  episodes, policy = _episodes(), toy.policy(0)

  def total(policy, value, coef):
    config = toy.config(trunk_value_coef=coef)
    return networks.both(functions, config, policy, value, episodes)[2].sum()

  table, head = jax.grad(total, (0, 1))(policy, VALUE, coef)
  whole, same = jax.grad(total, (0, 1))(policy, VALUE, 1.0)
  np.testing.assert_allclose(table['table'], coef * whole['table'], rtol=1e-6)
  np.testing.assert_array_equal(head['value'], same['value'])  # the head learns all the same
  assert jnp.abs(whole['table']).max() > 1


def test_values_of_a_network_of_its_own_need_no_actor():
  value = networks.value(toy.NETWORKS, None, {'table': jnp.arange(6.0)}, _episodes())
  np.testing.assert_array_equal(value[:, 1:], _episodes().tokens[:, :-1])


def test_frozen_parameters_complete_actor_and_critic():
  frozen, part = {'head': jnp.eye(6), 'table': jnp.arange(6.0)}, toy.policy(1)
  on = toy.NETWORKS.on(frozen)
  np.testing.assert_array_equal(on.head({'table': part['table']}), frozen['head'])
  np.testing.assert_array_equal(on.value({}, jnp.asarray([[3]]), None, None), [[3.0]])
