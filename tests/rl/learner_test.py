"""The PPO update: what it ignores, how it sums, when it refuses, and that it learns."""

import dataclasses
import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mem1_jax import checkpoint, optim
from mem1_jax.ops import logprobs
from mem1_jax.parallel.mesh import MeshConfig, make_mesh, one_device
from mem1_jax.rl import advantages, learner, losses

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import token_task as toy  # noqa: E402  (tests are not a package)

KEY = jax.random.key(7)
ROWS = 8


OPTIMIZER = optax.adam(0.05)
SIMPLE = toy.config(epochs=1, num_minibatches=1)


ONE_DEVICE = toy.shardings(one_device())


@functools.lru_cache  # compiling takes most of the time of these tests
def _programs(config):
  return (learner.make_score(toy.NETWORKS, config, ONE_DEVICE),
          learner.make_update(toy.NETWORKS, OPTIMIZER, OPTIMIZER, config, ONE_DEVICE))


def _setup(config):
  reference = toy.policy(0)
  state = jax.device_put(learner.init_state(
      reference, toy.value(), OPTIMIZER, OPTIMIZER, 0.01), ONE_DEVICE.state)
  return state, reference, *_programs(config)


def _episodes(policy, step=0, num_rows=ROWS):
  return toy.rollout(policy, jax.random.fold_in(KEY, step), toy.questions(step, num_rows))


def _batch(config, num_rows=ROWS):
  state, reference, score, update = _setup(config)
  batch = score(
      state.policy, state.value, reference, state.kl_coef, _episodes(state.policy), num_rows)
  return state, batch, update


def _assert_same_bits(got, want):
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def _train(state, reference, score, update, first, last):
  rewards = []
  for step in range(first, last):
    episodes = _episodes(state.policy, step)
    rewards.append(toy.mean_reward(episodes, ROWS))
    batch = score(state.policy, state.value, reference, state.kl_coef, episodes, ROWS)
    state, metrics = update(state, batch, ROWS, KEY, None)
  return state, rewards, metrics


def test_learns_the_token_task():
  state, rewards, metrics = _train(*_setup(toy.config()), 0, 60)
  assert rewards[0] < 0.9  # 2 tokens, 4 choices: 0.5 by chance
  assert np.mean(rewards[-5:]) > 1.7
  assert int(state.step) == 60 and int(metrics['skipped_in_a_row']) == 0
  assert all(np.isfinite(x) for x in metrics.values())


def test_ratio_is_one_at_equal_parameters():
  state, batch, update = _batch(SIMPLE)
  _, metrics = update(state, batch, ROWS, KEY, None)
  assert metrics['logprob_gap_max'] <= 1e-6 and abs(metrics['ratio_max'] - 1.0) <= 1e-6
  assert metrics['logprob_gap_k3'] <= 1e-6 and metrics['clip_fraction'] == 0.0
  # Whitened advantages at ratio 1: the loss is minus their mean, 0.
  np.testing.assert_allclose(metrics['policy_loss'], 0.0, atol=1e-6)


def test_the_gap_is_measured_before_any_change():
  state, batch, update = _batch(toy.config())
  lied = dataclasses.replace(batch.episodes, logprob=batch.episodes.logprob - 0.5)
  _, metrics = update(state, dataclasses.replace(batch, episodes=lied), ROWS, KEY, None)
  np.testing.assert_allclose(metrics['logprob_gap_mean'], 0.5, rtol=1e-5)
  np.testing.assert_allclose(metrics['logprob_gap_max'], 0.5, rtol=1e-5)
  # Sampled from the lie, d = old - new = -.5: exp(.5) - 1 - .5
  np.testing.assert_allclose(metrics['logprob_gap_k3'], np.exp(0.5) - 1.5, rtol=1e-5)


def test_tokens_of_another_sampler_are_weighed_by_the_learners_own_old_logprobs():
  config = toy.config(whiten=False, tis_cap=2.0, epochs=1, num_minibatches=1, entropy_coef=0.0,
                      kl_in='loss', kl_estimator='k3')
  state, reference, score, update = _setup(config)
  episodes = _episodes(state.policy)
  mask = np.asarray(episodes.tags.is_generated)
  # Half of the tokens were likelier to the sampler, the others less likely, beyond the cap.
  lie = np.where(np.arange(ROWS)[:, None] % 2, np.log(2.0), -np.log(3.0)) * mask
  sampled = dataclasses.replace(episodes, logprob=episodes.logprob + lie)
  batch = score(state.policy, state.value, reference, state.kl_coef, sampled, ROWS)
  np.testing.assert_allclose(np.asarray(batch.old_logprob)[mask],
                             np.asarray(episodes.logprob)[mask], atol=1e-6)
  _, metrics = update(jax.tree.map(jnp.copy, state), batch, ROWS, KEY, None)
  np.testing.assert_allclose(metrics['ratio_max'], 1.0, atol=1e-6)
  np.testing.assert_allclose(metrics['tis_weight'], (0.5 + 2.0) / 2, rtol=1e-5)
  np.testing.assert_allclose(metrics['tis_capped'], 0.5)
  weight = np.where(np.arange(ROWS)[:, None] % 2, 0.5, 2.0)
  want = -(weight * np.asarray(batch.advantage))[mask].mean()
  np.testing.assert_allclose(metrics['policy_loss'], want, rtol=1e-5)
  np.testing.assert_allclose(metrics['logprob_gap_max'], np.log(3.0), rtol=1e-5)


def test_score_by_hand():
  config = toy.config(whiten=False, gamma=0.5, lam=1.0)
  state, reference, score, _ = _setup(config)
  value = {'table': jnp.arange(6.0)}
  episodes = _episodes(state.policy)
  other = reference | {'table': reference['table'] + 0.3 * jnp.arange(6.0)[None]}
  batch = score(state.policy, value, other, jnp.float32(0.2), episodes, ROWS)
  tokens, q = np.asarray(episodes.tokens), np.asarray(episodes.tokens[:, 0])
  # The value before a generated token is read from the question token that precedes it.
  np.testing.assert_array_equal(batch.value[:, [1, 3]], np.stack([q, q], 1))
  logits = np.asarray(other['table'] @ other['head'])[:, :4]
  ref = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  for token in (1, 3):
    np.testing.assert_allclose(batch.ref_logprob[:, token], ref[q, tokens[:, token]], rtol=1e-5)
  kl = np.asarray(episodes.logprob - batch.ref_logprob)
  reward = np.asarray(episodes.reward) - 0.2 * kl
  want = np.stack([reward[:, 1] + 0.5 * reward[:, 3], reward[:, 3]], 1)
  np.testing.assert_allclose(batch.target[:, [1, 3]], want, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(batch.advantage[:, [1, 3]], want - np.stack([q, q], 1), rtol=1e-4,
                             atol=1e-5)
  in_loss_score = learner.make_score(toy.NETWORKS, dataclasses.replace(
      config, kl_in='loss', kl_estimator='k3'), ONE_DEVICE)
  in_loss = in_loss_score(state.policy, value, other, jnp.float32(0.2), episodes, ROWS)
  np.testing.assert_allclose(in_loss.target[:, 3], episodes.reward[:, 3], atol=1e-6)


def test_one_update_is_one_step_on_the_plain_loss():
  config = dataclasses.replace(SIMPLE, kl_in='loss', kl_estimator='k3')
  state, reference, score, _ = _setup(config)
  # Away from ratio 1 and from the reference, so that every term has a gradient.
  moved = {'table': reference['table'] + 0.2 * jnp.sin(jnp.arange(36.0)).reshape(6, 6),
           'head': reference['head']}
  optimizer = optax.sgd(0.1)
  state = learner.init_state(moved, toy.value(), optimizer, optimizer, 0.3)
  batch = score(
      state.policy, state.value, toy.policy(5), state.kl_coef, _episodes(toy.policy(0)), ROWS)

  def plain_loss(policy, value):
    tokens, mask = batch.episodes.tokens, batch.episodes.tags.is_generated
    logprob, entropy = logprobs.token_logprobs(
        policy['table'][tokens], policy['head'], tokens, 1.0, 4, 4)
    ratio = jnp.exp(logprob - batch.episodes.logprob)
    surrogate = jnp.minimum(ratio * batch.advantage, jnp.clip(ratio, 0.8, 1.2) * batch.advantage)
    estimate = logprobs.shift_right(value['table'][tokens])
    clipped = batch.value + jnp.clip(estimate - batch.value, -0.5, 0.5)
    error = jnp.maximum((estimate - batch.target) ** 2, (clipped - batch.target) ** 2) / 2
    d = batch.ref_logprob - logprob
    kl = 0.3 * (jnp.exp(d) - 1 - d)
    return jnp.where(mask, -surrogate + error - 0.01 * entropy + kl, 0.0).sum() / mask.sum()

  policy_grad, value_grad = jax.jit(jax.grad(plain_loss, (0, 1)))(state.policy, state.value)
  want = jax.tree.map(lambda x, g: x - 0.1 * g, (state.policy, state.value),
                      (policy_grad, value_grad))
  update = learner.make_update(toy.NETWORKS, optimizer, optimizer, config, ONE_DEVICE)
  got, metrics = update(state, batch, ROWS, KEY, None)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
               (got.policy, got.value), want)
  np.testing.assert_allclose(metrics['policy_grad_norm'], optax.tree.norm(policy_grad), rtol=1e-5)
  np.testing.assert_allclose(metrics['value_grad_norm'], optax.tree.norm(value_grad), rtol=1e-5)


def test_micro_rows_do_not_change_the_update():
  state, batch, update = _batch(SIMPLE, num_rows=7)
  got, _ = update(state, batch, 7, KEY, None)
  state, batch, update = _batch(dataclasses.replace(SIMPLE, micro_rows=8), num_rows=7)
  want, _ = update(state, batch, 7, KEY, None)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), got, want)


def test_what_empty_rows_hold_changes_nothing():
  config = toy.config(num_minibatches=2, micro_rows=2)
  state, reference, score, update = _setup(config)
  episodes = _episodes(state.policy)
  junk = dataclasses.replace(
      episodes, reward=episodes.reward.at[5:].set(jnp.nan), logprob=episodes.logprob.at[5:].set(9),
      tokens=episodes.tokens.at[5:].set(3))
  results = []
  for rows in (episodes, junk):
    batch = score(state.policy, state.value, reference, state.kl_coef, rows, 5)
    fresh = jax.tree.map(jnp.copy, state)
    results.append(update(fresh, batch, 5, KEY, None))
  _assert_same_bits(*results)
  assert results[0][1]['num_tokens'] == 10 and results[0][1]['skipped_updates'] == 0


def _widen(x, columns, width):
  """Puts the columns of x apart, junk between."""
  junk = jnp.asarray(np.random.default_rng(0).normal(size=(x.shape[0], width)) > 0)
  return junk.astype(x.dtype).at[:, jnp.asarray(columns)].set(x)


def test_inserted_context_changes_nothing():
  # q g0 | q g1 spread out: more question before q, more carry before the second q, padding after.
  columns, width = [2, 3, 6, 7, 9, 10], 12
  config = toy.config()
  state, reference, score, update = _setup(config)
  narrow = _episodes(state.policy)
  wide = jax.tree.map(lambda x: _widen(x, columns, width), narrow)
  is_generated = jnp.zeros((ROWS, width), bool).at[:, jnp.array(columns)].set(
      narrow.tags.is_generated)
  wide = dataclasses.replace(
      wide, tags=dataclasses.replace(wide.tags, is_generated=is_generated))
  results = []
  for episodes in (narrow, wide):
    batch = score(state.policy, state.value, reference, state.kl_coef, episodes, ROWS)
    results.append(update(jax.tree.map(jnp.copy, state), batch, ROWS, KEY, None))
    where = np.asarray(batch.episodes.tags.is_generated)
    assert not np.asarray(batch.advantage)[~where].any()
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *results)


def test_rows_are_dealt_evenly_and_filled_ones_first():
  config = toy.config(num_minibatches=3, micro_rows=2)
  for num_rows in (0, 1, 7, 12):
    rows = np.asarray(learner.deal_rows(KEY, 12, num_rows, config))
    assert rows.shape == (3, 2, 2)
    assert sorted(rows.reshape(-1)) == list(range(12))
    is_filled = rows.reshape(3, -1) < num_rows
    counts = is_filled.sum(1)
    assert counts.max() - counts.min() <= 1 and counts.sum() == num_rows
    assert (np.diff(is_filled.astype(int), axis=1) <= 0).all()
  other = learner.deal_rows(jax.random.fold_in(KEY, 1), 12, 12, config)
  assert not np.array_equal(rows, other)


def test_a_minibatch_that_is_not_finite_is_skipped_and_counted():
  config = SIMPLE
  state, batch, update = _batch(config)
  before = jax.tree.map(np.array, state)
  bad = dataclasses.replace(batch, advantage=batch.advantage.at[2, 1].set(jnp.nan))
  state, metrics = update(state, bad, ROWS, KEY, None)
  assert metrics['skipped_updates'] == 1 and state.skipped == 1
  for name in ('policy', 'value', 'policy_opt', 'value_opt'):
    _assert_same_bits(getattr(state, name), getattr(before, name))
  state, metrics = update(state, bad, ROWS, KEY, None)
  learner.check_skipped(int(state.skipped), config)
  state, _ = update(state, bad, ROWS, KEY, None)
  with pytest.raises(FloatingPointError, match='3 updates in a row'):
    learner.check_skipped(int(state.skipped), config)
  state, metrics = update(state, batch, ROWS, KEY, None)  # a good one clears the count
  assert state.skipped == 0 and np.isfinite(metrics['policy_loss'])
  assert int(state.step) == 4


def test_other_minibatches_of_a_bad_batch_are_applied():
  config = toy.config(epochs=1, num_minibatches=4)
  state, batch, update = _batch(config)
  bad = dataclasses.replace(batch, target=batch.target.at[2, 1].set(jnp.inf))
  new, metrics = update(state, bad, ROWS, KEY, None)
  assert metrics['skipped_updates'] == 1
  assert all(np.isfinite(x) for name, x in metrics.items()
             if name not in ('target_mean', 'explained_variance'))
  assert int(new.policy_opt[0].count) == 3  # Adam's own count


def test_minibatches_without_rows_change_nothing():
  state, batch, update = _batch(toy.config(epochs=1, num_minibatches=4), num_rows=1)
  new, metrics = update(state, batch, 1, KEY, None)
  assert int(new.policy_opt[0].count) == 1 and metrics['skipped_updates'] == 0


def test_adaptive_kl_coefficient_is_state():
  config = toy.config(kl_controller='adaptive', kl_target=0.001, kl_horizon=2.0)
  state, _, score, update = _setup(config)
  far = jax.tree.map(lambda x: 3.0 * x, toy.policy(1))
  batch = score(state.policy, state.value, far, state.kl_coef, _episodes(state.policy), ROWS)
  state, metrics = update(state, batch, ROWS, KEY, None)
  np.testing.assert_allclose(metrics['kl_coef'], 0.01, rtol=1e-6)
  np.testing.assert_allclose(state.kl_coef, 0.01 * 1.1, rtol=1e-6)
  kl = losses.kl(batch.episodes.logprob, batch.ref_logprob, 'k3')
  np.testing.assert_allclose(metrics['kl'], np.asarray(kl)[:, [1, 3]].mean(), rtol=1e-5)


def test_whitening_spans_the_batch():
  _, batch, _ = _batch(toy.config(whiten=True), num_rows=5)
  _, raw, _ = _batch(toy.config(whiten=False), num_rows=5)
  mask = np.asarray(batch.episodes.tags.is_generated)
  assert mask.sum() == 10
  np.testing.assert_allclose(np.asarray(batch.advantage)[mask].mean(), 0.0, atol=1e-6)
  np.testing.assert_allclose(np.asarray(batch.advantage)[mask].std(), 1.0, atol=1e-4)
  _assert_same_bits(batch.advantage, advantages.whiten(raw.advantage, mask))
  _assert_same_bits(batch.target, raw.target)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])  # of weights and of moments
def test_training_resumes_bit_for_bit(dtype, tmp_path):
  optimizers = optim.build(optim.OptimConfig(
      name='adamw', policy_lr=0.05, value_lr=0.1, warmup_steps=3, schedule='cosine', total_steps=20,
      final_fraction=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.01,
      max_grad_norm=0.5, mu_dtype=dtype, nu_dtype=dtype))
  config = toy.config(kl_controller='adaptive')
  reference = toy.policy(0)
  score = learner.make_score(toy.NETWORKS, config, ONE_DEVICE)
  update = learner.make_update(toy.NETWORKS, *optimizers, config, ONE_DEVICE)
  policy = jax.tree.map(lambda x: x.astype(dtype), reference)
  start = lambda: learner.init_state(policy, toy.value(), *optimizers, 0.01)
  straight, _, _ = _train(start(), reference, score, update, 0, 4)
  half, _, _ = _train(start(), reference, score, update, 0, 2)
  checkpoint.Checkpointer(tmp_path, keep=1).save(2, half, {})
  restored, _ = checkpoint.Checkpointer(tmp_path, keep=1).restore_latest(jax.eval_shape(start))
  resumed, _, _ = _train(restored, reference, score, update, 2, 4)
  assert {x.dtype.name for x in jax.tree.leaves(resumed.policy)} == {dtype}
  assert jax.tree.structure(resumed) == jax.tree.structure(straight)
  _assert_same_bits(resumed, straight)


def test_updates_of_bfloat16_weights_are_rounded_by_key_and_add_up():
  optimizer = optax.sgd(1e-4)
  policy = jax.tree.map(lambda x: x.astype('bfloat16'), toy.policy(0))
  start = lambda: learner.init_state(policy, toy.value(), optimizer, optimizer, 0.01)
  update = learner.make_update(toy.NETWORKS, optimizer, optimizer, SIMPLE, ONE_DEVICE)
  batch = _batch(SIMPLE)[1]
  tables = []
  for key in (KEY, KEY, jax.random.key(8)):
    state = start()
    for _ in range(30):
      state, _ = update(state, batch, ROWS, key, None)
    tables.append(np.asarray(state.policy['table']))
  assert tables[0].tobytes() == tables[1].tobytes() != tables[2].tobytes()
  # Nearest rounding would have moved nothing: each step is far below 2^-9 of most weights.
  moved = tables[0] != np.asarray(policy['table'])
  gradient = np.asarray(update(start(), batch, ROWS, KEY, None)[1]['policy_grad_norm'])
  assert moved.sum() >= 3 and gradient * 1e-4 < 2.0**-9 * np.abs(toy.policy(0)['table']).mean()


def test_compiles_once_whatever_the_number_of_rows():
  config = toy.config()
  _programs.cache_clear()
  state, reference, score, update = _setup(config)
  for num_rows in (8, 3, 1):
    batch = score(
        state.policy, state.value, reference, state.kl_coef, _episodes(state.policy), num_rows)
    state, metrics = update(state, batch, num_rows, KEY, None)
    assert metrics['num_rows'] == num_rows
  assert score._cache_size() == 1 and update._cache_size() == 1


def test_the_state_owns_its_buffers():
  shared = toy.policy(0)
  state = learner.init_state(shared, shared, OPTIMIZER, OPTIMIZER, 0.0)
  leaves = jax.tree.leaves((state, shared))
  assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
  state, batch, update = _batch(toy.config())
  old = state.policy
  update(state, batch, ROWS, KEY, None)
  assert jax.tree.leaves(old)[0].is_deleted()  # donated


def test_the_same_on_several_devices():
  if jax.device_count() < 2:
    pytest.skip('needs 2 devices')
  shardings, config = toy.shardings(make_mesh(MeshConfig(2, 1, 1))), toy.config()
  state, batch, update = _batch(config)
  want, _ = update(state, batch, ROWS, KEY, None)
  state, reference, _, _ = _setup(config)
  episodes = jax.device_put(_episodes(state.policy), shardings.rows)
  state, reference = jax.device_put((state, reference), shardings.whole)
  score = learner.make_score(toy.NETWORKS, config, shardings)
  spread_update = learner.make_update(toy.NETWORKS, OPTIMIZER, OPTIMIZER, config, shardings)
  batch = score(state.policy, state.value, reference, state.kl_coef, episodes, ROWS)
  got, _ = spread_update(state, batch, ROWS, KEY, None)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), got, want)


def test_rows_that_cannot_be_dealt_are_refused():
  state, reference, score, _ = _setup(toy.config(num_minibatches=3))
  with pytest.raises(ValueError, match='8 rows cannot be dealt.*multiple of 6'):
    score(state.policy, state.value, reference, state.kl_coef, _episodes(state.policy), 8)


def test_frozen_parameters_are_computed_with_and_neither_trained_nor_donated():
  """The table alone is trained, of a policy that needs the head: as if the head's step were 0."""
  optimizer = optax.sgd(0.1)
  update = learner.make_update(toy.NETWORKS, optimizer, optimizer, SIMPLE, ONE_DEVICE)
  reference, batch = toy.policy(0), _batch(SIMPLE)[1]
  base, part = {'head': jnp.array(reference['head'])}, {'table': reference['table']}
  make = lambda policy: learner.init_state(policy, toy.value(), optimizer, optimizer, 0.01)
  whole, _ = update(make(reference), batch, ROWS, KEY, None)
  got, _ = update(make(part), batch, ROWS, KEY, base)
  assert set(got.policy) == {'table'}
  np.testing.assert_allclose(got.policy['table'], whole.policy['table'], atol=1e-6)
  assert float(jnp.abs(got.policy['table'] - reference['table']).max()) > 1e-3
  np.testing.assert_array_equal(base['head'], reference['head'])  # still there, as it was


def test_a_value_network_may_stand_on_the_reference():
  config = toy.config()
  score = learner.make_score(dataclasses.replace(
      toy.NETWORKS, value=lambda value, tokens, *_: value['table'][tokens] @ value['up']),
                             config, ONE_DEVICE)
  reference, state = toy.policy(3), _setup(config)[0]
  value, episodes = {'up': jnp.ones(toy.VOCAB)}, _episodes(state.policy)
  batch = score(state.policy, value, reference, state.kl_coef, episodes, ROWS)
  before = np.asarray(reference['table']).sum(-1)[np.asarray(episodes.tokens)]
  np.testing.assert_allclose(batch.value[:, 1:], before[:, :-1], atol=1e-6)
