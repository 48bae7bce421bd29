"""The table: what is split over what, what stays whole, and that moments follow parameters."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mem1_jax.model import build_critic, build_policy, lora
from mem1_jax.optim import OptimConfig, build
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from mem1_jax.rl.learner import init_state
from tests.model.small import QWEN2, small_config

MESH = make_mesh(MeshConfig(2, 2, 2))


@pytest.fixture(scope='module')
def models():
  config = small_config(vocab_size=62, **QWEN2)
  return build_policy(config, mesh=MESH), build_critic(config, mesh=MESH)


def test_every_logical_axis_of_the_models_is_in_the_table(models):
  for model in models:
    specs = jax.tree.leaves(
        lora.logical_axes(model.logical_axes()), is_leaf=lambda x: isinstance(x, P))
    assert {name for spec in specs for name in spec if name} <= set(sharding.RULES)
  assert {axis for axes in sharding.RULES.values() for axis in axes} == set(MESH.axis_names)


def test_parameters_are_split_as_the_table_says(models):
  params = models[0].init(jax.random.key(0))
  shards = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, params)
  assert shards['embed']['embedding'] == (62 // 2, 24 // 2)
  assert shards['head'] == (24 // 2, 62 // 2)
  attention, mlp = shards['layers']['attention'], shards['layers']['mlp']
  assert attention['q']['kernel'] == (2, 24 // 2, 4 // 2, 8)
  assert attention['k']['bias'] == (2, 2 // 2, 8)
  assert attention['o']['kernel'] == (2, 4 // 2, 8, 24 // 2)
  assert mlp['down']['kernel'] == (2, 40 // 2, 24 // 2)
  assert shards['final_norm']['scale'] == (24,)
  assert jax.tree.all(jax.tree.map(
      lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), params, models[0].shardings()))


def _optimizers(name):
  return build(OptimConfig(
      name=name, policy_lr=1.0, value_lr=1.0, warmup_steps=0, schedule='constant', total_steps=1,
      final_fraction=0.1, beta1=0.9, beta2=0.9, epsilon=1e-8, weight_decay=0.1, max_grad_norm=1.0,
      mu_dtype='float32', nu_dtype='bfloat16'))


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_moments_lie_as_their_parameters(models, name):
  policy, critic = models
  optimizers = _optimizers(name)
  params = jax.eval_shape(policy.init, jax.random.key(0))
  value = jax.eval_shape(critic.init, jax.random.key(0))
  state = jax.eval_shape(
      lambda p, v: init_state(p, v, optimizers.policy, optimizers.value, 0.1), params, value)
  axes = policy.logical_axes() | critic.logical_axes()
  placed = sharding.tree(MESH, axes, state)
  assert jax.tree.structure(placed) == jax.tree.structure(state)
  assert placed.policy == policy.shardings()
  assert placed.value['value'].spec == P('fsdp', None) and placed.step.spec == P()
  moments = optax.tree.get_all_with_path(placed.policy_opt, 'mu')
  assert moments
  kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(placed.policy_opt)
             if jax.tree_util.keystr(path).endswith("['q']['kernel']")]
  assert kernels and set(kernels) == {placed.policy['layers']['attention']['q']['kernel']}


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_adapters_are_split_as_their_kernels_and_the_rank_stays_whole(models, name):
  optimizer = _optimizers(name).policy
  params = jax.eval_shape(models[0].init, jax.random.key(0))
  adapters = jax.eval_shape(
      lambda: lora.init(jax.random.key(0), params, 3, tuple(lora.TARGETS)))
  axes = lora.logical_axes(models[0].logical_axes())
  placed, opt = sharding.tree(MESH, axes, (adapters, jax.eval_shape(optimizer.init, adapters)))
  specs = jax.tree.map(lambda x: x.spec, placed['layers'])
  fsdp, tensor, no = ('fsdp',), ('tensor',), ()
  assert specs['attention'] == {
      'q': {'lora_a': P(no, fsdp, no), 'lora_b': P(no, no, tensor, no)},
      'k': {'lora_a': P(no, fsdp, no), 'lora_b': P(no, no, tensor, no)},
      'v': {'lora_a': P(no, fsdp, no), 'lora_b': P(no, no, tensor, no)},
      'o': {'lora_a': P(no, tensor, no, no), 'lora_b': P(no, no, fsdp)}}
  assert specs['mlp'] == {
      'gate': {'lora_a': P(no, fsdp, no), 'lora_b': P(no, no, tensor)},
      'up': {'lora_a': P(no, fsdp, no), 'lora_b': P(no, no, tensor)},
      'down': {'lora_a': P(no, tensor, no), 'lora_b': P(no, no, fsdp)}}
  moments = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(opt)
             if jax.tree_util.keystr(path).endswith("['o']['lora_b']")]
  assert moments and set(moments) == {placed['layers']['attention']['o']['lora_b']}
  assert axes['layers']['attention']['q']['kernel'] == P('layers', 'embed', 'heads', 'head')


def test_an_axis_that_does_not_divide_stays_whole_and_is_said_once(caplog):
  sharding._say_whole.cache_clear()
  for shape in ((4, 3, 8), (9, 3, 8)):
    placed = sharding.named(MESH, ('embed', 'kv_heads', 'head'), shape)
    assert placed.spec == P('fsdp' if shape[0] == 4 else (), (), ())
  assert caplog.text.count("axis 'kv_heads' of size 3 cannot be split over mesh axes tensor 2") == 1
  assert len(caplog.records) == 2  # and embed, 9


def test_rows_and_rules():
  assert sharding.rows(MESH, 8).shard_shape((8, 5)) == (2, 5)
  assert sharding.rows(MESH, 6).is_fully_replicated  # 6 rows on 4 groups of devices
  rules = dict(sharding.rules(MESH, batch=8, embed=7))
  assert rules == {'batch': ('data', 'fsdp'), 'embed': (), 'head': (), 'norm': (), 'layers': (),
                   'rank': (), 'length': (), 'hidden': ()}


def test_names_must_fit_the_shape():
  with pytest.raises(ValueError, match="do not name the dimensions of shape .*4, 4"):
    sharding.named(MESH, ('embed',), (4, 4))
  assert sharding.whole(MESH).is_fully_replicated
  # Another rank than the parameter's is not the parameter's.
  axes = {'scale': P('embed')}
  assert sharding.tree(MESH, axes, {'scale': jnp.zeros(())})['scale'].spec == P()
