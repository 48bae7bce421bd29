"""Schedules by hand, decay on matrices only, clipping per network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import optim

CONFIG = optim.OptimConfig(
    name='adamw', policy_lr=1e-2, value_lr=1e-1, warmup_steps=4, schedule='constant', total_steps=0,
    final_fraction=0.0, beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.0, max_grad_norm=1.0)


def test_warm_up_then_constant():
  rate = optim.learning_rate(CONFIG, 8.0)
  np.testing.assert_allclose([rate(n) for n in range(6)], [2, 4, 6, 8, 8, 8])


def test_cosine_arrives_and_stays():
  config = dataclasses.replace(CONFIG, schedule='cosine', warmup_steps=2, total_steps=6,
                               final_fraction=0.5)
  rate = optim.learning_rate(config, 1.0)
  half = 0.5 + 0.5 * 0.5
  np.testing.assert_allclose([rate(n) for n in (0, 1, 2, 4, 6, 99)], [0.5, 1, 1, half, 0.5, 0.5])


def test_no_warm_up_starts_at_the_peak():
  rate = optim.learning_rate(dataclasses.replace(CONFIG, warmup_steps=0), 3.0)
  assert rate(0) == 3.0


def test_first_adam_step_is_the_learning_rate_of_each_network():
  params, grads = {'w': jnp.ones((2, 2))}, {'w': jnp.full((2, 2), 0.1)}
  for transform, peak in zip(optim.build(CONFIG), (1e-2, 1e-1)):
    updates, _ = transform.update(grads, transform.init(params), params)
    np.testing.assert_allclose(updates['w'], -peak / 4, rtol=1e-4)  # 1 of 4 warm-up steps


def test_decay_touches_matrices_only():
  # Scanned layers: a norm scale has rank 2, a bias of attention rank 3.
  params = {'layers': {'norm': {'scale': jnp.ones((2, 3))},
                       'q': {'kernel': jnp.ones((2, 3, 4)), 'bias': jnp.ones((2, 3, 4))}},
            'embed': {'embedding': jnp.ones((5, 3))}, 'lone': jnp.ones(3)}
  config = dataclasses.replace(CONFIG, weight_decay=0.5, warmup_steps=0)
  transform = optim.build(config).policy
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = transform.update(zero, transform.init(params), params)
  moved = jax.tree.map(lambda x: bool((x != 0).any()), updates)
  assert moved == {'layers': {'norm': {'scale': False}, 'q': {'kernel': True, 'bias': False}},
                   'embed': {'embedding': True}, 'lone': False}
  np.testing.assert_allclose(updates['embed']['embedding'], -1e-2 * 0.5, rtol=1e-6)


def test_gradients_are_scaled_to_the_norm():
  # Adam forgets the scale of one gradient, but not a small one's after a large one.
  transform = optim.build(dataclasses.replace(CONFIG, warmup_steps=0)).policy
  params = {'w': jnp.zeros((2, 1))}
  state = transform.init(params)
  _, state = transform.update({'w': jnp.array([[30.0], [40.0]])}, state, params)
  moments = [x for x in jax.tree.leaves(state) if x.shape == (2, 1)]
  np.testing.assert_allclose(moments[0], 0.1 * np.array([[0.6], [0.8]]), rtol=1e-5)


@pytest.mark.parametrize('changes, message', [
    (dict(schedule='linear'), "schedule='linear'"),
    (dict(policy_lr=-1.0), 'policy_lr=-1.0 must be ≥ 0'),
    (dict(max_grad_norm=0.0), 'use inf for no clipping'),
    (dict(schedule='cosine', total_steps=4), 'total_steps=4 must exceed warmup_steps=4'),
    (dict(final_fraction=2.0), 'final_fraction=2.0'),
])
def test_refuses(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **changes)


def test_muon_moves_the_matrices_of_layers_by_orthogonal_ones_and_the_rest_by_adam():
  rng = np.random.default_rng(0)
  shapes = {'layers': {'q': {'kernel': (2, 8, 2, 4), 'bias': (2, 2, 4)},
                       'o': {'kernel': (2, 2, 4, 8)}, 'up': {'kernel': (2, 8, 16)},
                       'norm': {'scale': (2, 8)}},
            'embed': {'embedding': (5, 8)}, 'value': (8, 1)}
  is_shape = lambda x: isinstance(x, tuple)
  params = jax.tree.map(jnp.ones, shapes, is_leaf=is_shape)
  grads = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s), jnp.float32), shapes,
                       is_leaf=is_shape)
  transform = optim.build(dataclasses.replace(CONFIG, name='muon', warmup_steps=0,
                                              max_grad_norm=np.inf)).policy
  updates, _ = transform.update(grads, transform.init(params), params)
  for module, shape in (('q', (8, 8)), ('o', (8, 8)), ('up', (8, 16))):
    for layer in updates['layers'][module]['kernel']:
      values = jnp.linalg.svd(layer.reshape(shape), compute_uv=False)
      # Newton-Schulz leaves singular values around 1; scaled so that the rms is 0.2 rates.
      np.testing.assert_allclose(values, 1e-2 * 0.2 * max(shape)**0.5, rtol=0.45)
  for read in (lambda tree: tree['embed']['embedding'], lambda tree: tree['layers']['q']['bias'],
               lambda tree: tree['value'], lambda tree: tree['layers']['norm']['scale']):
    # Nesterov's look-ahead makes the first step of Adam longer by b1 / (1 + b1).
    np.testing.assert_allclose(read(updates), -1e-2 * 1.473684 * jnp.sign(read(grads)), rtol=1e-3)


def test_an_unknown_optimiser_is_named():
  with pytest.raises(ValueError, match="name='sgd'"):
    dataclasses.replace(CONFIG, name='sgd')
