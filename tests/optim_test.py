"""Schedules by hand, decay on matrices only, clipping per network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import optim

CONFIG = optim.OptimConfig(
    name='adamw', policy_lr=1e-2, value_lr=1e-1, warmup_steps=4, schedule='constant', total_steps=0,
    final_fraction=0.0, beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.0, max_grad_norm=1.0,
    mu_dtype='float32', nu_dtype='float32')


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
    (dict(mu_dtype='float16'), "mu_dtype='float16' is unknown; choose one of"),
    (dict(nu_dtype='bfloat16', beta2=0.999), 'nu_dtype=bfloat16 stalls with a decay of 0.999'),
    (dict(mu_dtype='bfloat16', beta2=0.999, name='muon'), 'mu_dtype=bfloat16 stalls'),
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


def _run(config, params, num_steps=30):
  """Updates of as many steps on gradients that differ in size, and the state after them."""
  transform = optim.make(config, 1e-2)
  state, found = transform.init(params), []
  for step in range(num_steps):
    keys = jax.random.split(jax.random.key(step), len(jax.tree.leaves(params)))
    grads = jax.tree.unflatten(jax.tree.structure(params), [
        10.0**i * (1 + jax.random.normal(k, x.shape))
        for i, (k, x) in enumerate(zip(keys, jax.tree.leaves(params)))])
    updates, state = transform.update(grads, state, params)
    found.append(updates)
  return found, state


def _layer(dtype='float32'):
  return {'embed': {'embedding': jnp.ones((5, 8), dtype)}, 'layers': {
      'q': {'kernel': jnp.ones((2, 8, 2, 4), dtype), 'bias': jnp.ones((2, 2, 4), dtype)}}}


@pytest.mark.parametrize('name', optim.NAMES)
def test_moments_are_stored_as_said_and_computed_in_float32(name):
  config = dataclasses.replace(CONFIG, name=name, weight_decay=0.1)
  want, whole = _run(config, _layer())
  half = dataclasses.replace(config, mu_dtype='bfloat16', nu_dtype='bfloat16')
  got, state = _run(half, _layer())
  assert jax.tree.structure(state) == jax.tree.structure(whole)
  shapes = {x.shape for x in jax.tree.leaves(_layer())}
  for field, num in (('mu', 3), ('nu', 2 if name == 'muon' else 3)):
    moments = [(path, x) for path, x in jax.tree_util.tree_leaves_with_path(state)
               if f'.{field}' in jax.tree_util.keystr(path) and x.shape in shapes]
    assert len(moments) == num and {x.dtype.name for _, x in moments} == {'bfloat16'}
  assert {x.dtype.name for x in jax.tree.leaves(got)} == {'float32'}
  for x, y in zip(map(jax.tree.leaves, got), map(jax.tree.leaves, want)):
    for a, b in zip(x, y):  # 2^-8 of each moment; Newton-Schulz spreads it over a matrix
      np.testing.assert_allclose(a, b, atol=0.1 * float(jnp.abs(b).max()))
  one = dataclasses.replace(config, nu_dtype='bfloat16')
  _, state = _run(one, _layer(), 1)
  dtypes = {x.dtype.name for path, x in jax.tree_util.tree_leaves_with_path(state)
            if '.mu' in jax.tree_util.keystr(path) and x.shape in shapes}
  assert dtypes == {'float32'}


@pytest.mark.parametrize('name', optim.NAMES)
def test_float32_is_optax_to_the_bit(name, monkeypatch):
  got, state = _run(dataclasses.replace(CONFIG, name=name), _layer())
  monkeypatch.setattr(optim, '_stored', lambda inner, dtypes: inner)
  want, plain = _run(dataclasses.replace(CONFIG, name=name), _layer())
  jax.tree.map(np.testing.assert_array_equal, (got, state), (want, plain))
  assert jax.tree.structure(state) == jax.tree.structure(plain)


def test_parameters_in_bfloat16_have_moments_and_updates_in_float32():
  got, state = _run(CONFIG, _layer('bfloat16'), 2)
  assert {x.dtype.name for x in jax.tree.leaves((got, state)) if x.ndim} == {'float32'}


def test_a_second_moment_in_bfloat16_follows_at_the_least_step_allowed():
  config = dataclasses.replace(CONFIG, beta2=1 - 2.0**-7, nu_dtype='bfloat16', warmup_steps=0,
                               max_grad_norm=np.inf)
  transform = optim.make(config, 1e-2)
  params = {'w': jnp.zeros((1, 1))}
  state = transform.init(params)
  step = jax.jit(transform.update)
  for _ in range(800):
    _, state = step({'w': jnp.full((1, 1), 3.0)}, state, params)
  nu = next(x for path, x in jax.tree_util.tree_leaves_with_path(state)
            if '.nu' in jax.tree_util.keystr(path))
  np.testing.assert_allclose(np.float32(nu), 9.0, rtol=0.5)
