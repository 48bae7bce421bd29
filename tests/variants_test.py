"""Critics, references and adapters in every combination: one PPO step, what moves, what is held."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax import assemble, train
from mem1_jax.rl import networks
from tests.parallel import programs
from tests.tiny import tiny_config

RANK = 2


def variant(critic, reference='initial', rank=0, **changes):
  config = tiny_config()
  config.critic, config.reference = critic, reference
  config.lora.rank, config.lora.value_rank = rank, RANK
  config.ppo.num_rows, config.ppo.micro_rows, config.ppo.minibatches = programs.ROWS, 8, 1
  config.ppo.epochs = 3  # fresh heads move first, then the adapters' B, then their A
  config.optim.warmup = 0
  if reference == 'none':
    config.ppo.kl_coef = 0.0
  config.update_from_flattened_dict(changes)
  return config


@functools.cache
def _rows():
  """Fixed episodes, whose ids the tiny vocabulary has."""
  return programs.episodes()


def _functions(trainer):
  policy = assemble.make_policy(trainer.config, trainer.tokenizer)
  return networks.Networks(policy.apply, policy.head, None)


def step(trainer, state=None):
  """(state, metrics, batch) after an update on fixed rows, sampled by the policy itself."""
  state = state or trainer.state
  rows = jax.tree.map(jnp.asarray, _rows())
  logprob, _ = jax.jit(lambda params: networks.logprob(
      _functions(trainer), trainer.ppo, params, rows))(train.policy_params(trainer))
  rows, num_rows = jax.device_put(
      (dataclasses.replace(rows, logprob=logprob), np.int32(programs.ROWS)),
      (trainer.shardings.rows, trainer.shardings.whole))
  batch = trainer.score(state.policy, state.value, trainer.reference, state.kl_coef, rows, num_rows)
  state = jax.tree.map(jnp.copy, state)
  return (*trainer.update(state, batch, num_rows, trainer.key, trainer.reference), batch)


def _combinations():
  """All of them; each critic, reference and rank is in the default tests once or twice."""
  default = {('separate', 'initial', 0), ('lora', 'none', RANK), ('head', 'none', 0),
             ('head', 'initial', RANK)}
  every = itertools.product(assemble.CRITICS, assemble.REFERENCES, (0, RANK))
  return [pytest.param(*one, marks=() if one in default else pytest.mark.slow,
                       id='-'.join((*one[:2], 'lora' if one[2] else 'whole'))) for one in every]


def num_bytes(tree):
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('critic, reference, rank', _combinations())
def test_one_step_moves_what_is_trained_and_holds_what_is_needed(critic, reference, rank):
  trainer = train.build(variant(critic, reference, rank))
  before, kept = jax.device_get((trainer.state, trainer.reference))
  after, metrics, _ = step(trainer)
  assert all(np.isfinite(x) for x in metrics.values()) and metrics['skipped_updates'] == 0
  # Of the whole batch at equal parameters: the first minibatch of the first epoch.
  assert metrics['logprob_gap_max'] <= 1e-6
  assert metrics['kl'] < 1e-9 and ('kl_loss' in metrics) == (reference == 'initial')
  for name in ('policy', 'value'):
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), getattr(before, name),
                         getattr(after, name))
    assert all(jax.tree.leaves(moved)), (name, moved)
  jax.tree.map(np.testing.assert_array_equal, trainer.reference, kept)

  whole = num_bytes(assemble.initial_params(trainer.config, assemble.make_policy(
      trainer.config, trainer.tokenizer)))
  adapters = num_bytes(assemble.trainable(
      variant('lora', rank=RANK), _base(trainer.config), 'value')[0])
  head, policy = 32 * 4, adapters if rank else whole
  value = head + {'separate': whole, 'lora': adapters, 'head': 0}[critic]
  assert num_bytes(trainer.state.policy) == policy and num_bytes(trainer.state.value) == value
  is_held = reference == 'initial' or rank or critic == 'lora'
  assert num_bytes(trainer.reference) == (whole if is_held else 0)
  counts = 16  # numbers of the optimisers, at most
  for tree, opt in ((policy, trainer.state.policy_opt), (value, trainer.state.value_opt)):
    assert 2 * tree <= num_bytes(opt) <= 2 * tree + counts


def _base(config):
  return assemble.initial_params(config, assemble.make_policy(config, assemble.make_tokenizer(
      config)))


@pytest.mark.slow
def test_a_head_leaves_the_actor_to_the_policy_loss_unless_told_otherwise():
  def trained(critic, coef):
    trainer = train.build(variant(critic, **{'ppo.trunk_value_coef': coef, 'ppo.epochs': 1}))
    value = trainer.state.value | {'value': 0.3 * jnp.cos(jnp.arange(32.0))[:, None]}
    state = dataclasses.replace(trainer.state, value=value)
    after, _, batch = step(trainer, state)
    return after, batch

  separate, own = trained('separate', 0.0)
  alone, read = trained('head', 0.0)
  shared, _ = trained('head', 1.0)
  # The critic's trunk is the policy's still: the values of both are the same.
  np.testing.assert_allclose(own.value, read.value, atol=1e-6)
  difference = lambda x, y: max(jax.tree.leaves(jax.tree.map(  # noqa: E731
      lambda a, b: float(jnp.abs(a - b).max()), x.policy, y.policy)))
  assert difference(separate, alone) < 1e-5 < 1e-4 < difference(alone, shared)


def test_a_reference_alone_is_kept_in_the_dtype_of_computation():
  changes = {'model.dtype': 'bfloat16', 'model.attention': 'chunked'}
  trainer = train.build(variant('separate', **changes))
  base = _base(trainer.config)
  assert num_bytes(trainer.reference) == num_bytes(base) / 2
  adapted = train.build(variant('lora', **changes))  # a base stays as it is
  assert num_bytes(adapted.reference) == num_bytes(base)
  rows = jax.tree.map(jnp.asarray, _rows())
  logprob = jax.jit(lambda params: networks.logprob(_functions(trainer), trainer.ppo, params, rows))
  jax.tree.map(np.testing.assert_array_equal, logprob(trainer.reference), logprob(base))
  acting = train.policy_params(trainer)
  assert {x.dtype.name for x in jax.tree.leaves(acting)} == {'bfloat16'}
  assert {x.dtype.name for x in jax.tree.leaves(trainer.state.policy)} == {'float32'}
  jax.tree.map(np.testing.assert_array_equal, logprob(acting), logprob(base))


def test_rollouts_read_the_parameters_themselves_in_float32():
  trainer = train.build(variant('head', 'none'))
  pairs = zip(jax.tree.leaves(train.policy_params(trainer)), jax.tree.leaves(trainer.state.policy))
  assert trainer.reference is None and all(x is y for x, y in pairs)


@pytest.mark.slow
def test_the_smallest_state_trains_and_resumes_bit_for_bit(tmp_path):
  """A head on the actor, no reference, weights and moments in bfloat16: 6 bytes a parameter."""
  def config(iterations):
    config = tiny_config()
    config.critic, config.reference, config.ppo.kl_coef = 'head', 'none', 0.0
    config.model.param_dtype = config.model.dtype = 'bfloat16'
    config.optim.mu_dtype = config.optim.nu_dtype = 'bfloat16'
    config.ppo.iterations, config.eval.every, config.checkpoint.every = iterations, 0, 1
    return config

  whole = train.run(config(2), tmp_path / 'whole')
  train.run(config(1), tmp_path / 'resumed')
  resumed = train.run(config(2), tmp_path / 'resumed', is_resumed=True)
  jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)
  num_params = sum(x.size for x in jax.tree.leaves(whole.state.policy))
  held = num_bytes((whole.state.policy, whole.state.policy_opt, whole.reference))
  assert 6 * num_params <= held <= 6 * num_params + 16
  for line in map(json.loads, (tmp_path / 'whole' / 'metrics.jsonl').open()):
    assert line['recompiles'] == 0 == line['kl'] and 'kl_loss' not in line
    assert line['logprob_gap_mean'] < 0.05  # of bfloat16; the kernels differ


def test_rollouts_in_int8_train_with_their_tokens_weighed(tmp_path):
  config = tiny_config()
  config.critic, config.rollout.weights, config.ppo.tis_cap = 'head', 'int8', 2.0
  config.ppo.iterations, config.eval.every = 2, 2
  trainer = train.run(config, tmp_path)
  acting = train.policy_params(trainer)
  assert acting['layers']['mlp']['up']['kernel'].dtype == jnp.int8
  assert acting['final_norm']['scale'] is trainer.state.policy['final_norm']['scale']
  for line in map(json.loads, (tmp_path / 'metrics.jsonl').open()):
    assert line['recompiles'] == 0
    # Another policy, and not far: the old log-probs are the learner's own.
    assert 1e-5 < line['logprob_gap_mean'] < 0.1 and line['kl'] < 1e-2
    assert abs(line['tis_weight'] - 1) < 0.1 and line['tis_capped'] == 0


@pytest.mark.parametrize('changes, message', [
    ({'critic': 'oracle'}, "critic 'oracle' is unknown; choose one of"),
    ({'reference': 'mean'}, "reference 'mean' is unknown; choose one of"),
    ({'ppo.kl_coef': 0.1, 'reference': 'none'}, 'ppo.kl_coef 0.1 needs a reference .*; set'),
    ({'rollout.weights': 'int3'}, "rollout.weights 'int3' is unknown; choose one of"),
    ({'rollout.weights': 'int8'}, 'rollout.weights int8 samples from another .*: set ppo.tis_cap'),
    ({'ppo.tis_cap': 0.5}, 'tis_cap=0.5 must be ≥ 1, or 0'),
    ({'ppo.trunk_value_coef': 0.5}, "ppo.trunk_value_coef 0.5 is of critic=head, .* 'separate'"),
])
def test_refuses(changes, message):
  with pytest.raises(ValueError, match=message):
    train.build(variant(**({'critic': 'separate'} | changes)))


@pytest.mark.slow
def test_a_head_on_eight_devices_is_a_head_on_one():
  def stepped(*mesh):
    sizes = dict(zip(('mesh.data', 'mesh.fsdp', 'mesh.tensor'), mesh))
    changes = {'ppo.trunk_value_coef': 0.5, 'ppo.epochs': 2} | sizes
    trainer = train.build(variant('head', **changes))
    state, metrics, _ = step(trainer)
    assert state.value['value'].addressable_shards[0].data.shape == (32 // mesh[1], 1)
    return jax.device_get((state.policy, state.value)), metrics

  (many, got), (one, want) = stepped(2, 2, 2), stepped(1, 1, 1)
  for name in ('policy_loss', 'value_loss', 'policy_grad_norm', 'value_grad_norm', 'entropy'):
    np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-6)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), many, one)
