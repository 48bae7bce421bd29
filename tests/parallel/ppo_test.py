"""One PPO step on fixed trajectories is the same on every mesh; a checkpoint changes meshes."""

import functools

import jax
import numpy as np
import pytest

from mem1_jax.checkpoint import Checkpointer
from tests.parallel import programs

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]
RANKS = pytest.mark.parametrize('rank', [
    0, pytest.param(programs.RANK, marks=pytest.mark.slow)], ids=['whole', 'lora'])
# One is a default test: all three axes at once, without adapters.
SIZES_RANKS = pytest.mark.parametrize('sizes, rank', [
    pytest.param(sizes, rank, id=f'{sizes}-{"lora" if rank else "whole"}',
                 marks=() if (sizes, rank) == ((2, 2, 2), 0) else pytest.mark.slow)
    for sizes in MESHES for rank in (0, programs.RANK)])


@functools.cache
def stepped(*sizes, rank):
  return programs.ppo_step(programs.ppo(*sizes, rank=rank))


def relative_error(got, want):
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  return np.linalg.norm(got - want) / np.linalg.norm(want)


@SIZES_RANKS
def test_the_same_loss_and_gradients_on_every_mesh(sizes, rank):
  (one, want), (many, got) = stepped(1, 1, 1, rank=rank), stepped(*sizes, rank=rank)
  for name in ('policy_loss', 'value_loss', 'kl_loss', 'entropy', 'policy_grad_norm',
               'value_grad_norm', 'kl', 'value_mean', 'target_mean'):
    assert abs(got[name] - want[name]) <= 1e-5 * max(1e-2, abs(want[name])), name
  assert got['num_tokens'] == want['num_tokens'] > 0
  for name in ('policy_opt', 'value_opt'):  # gradients
    pairs = zip(jax.tree.leaves(getattr(many, name)), jax.tree.leaves(getattr(one, name)),
                strict=True)
    assert max(relative_error(*pair) for pair in pairs) <= 1e-5, name


def test_state_and_its_moments_are_split():
  state, _ = stepped(2, 2, 2, rank=0)
  for params in (state.policy, state.value, state.policy_opt[0].trace, state.value_opt[0].trace):
    shard, shape = params['embed']['embedding'].addressable_shards[0].data.shape, (64, 32)
    assert shard == (shape[0] // 2, shape[1] // 2)  # vocab over tensor, embed over fsdp
    kernel = params['layers']['attention']['q']['kernel']
    assert kernel.addressable_shards[0].data.shape == (2, 32 // 2, 4 // 2, 8)


def test_adapters_and_their_moments_are_split_beside_a_base_that_is_not_donated():
  ppo = programs.ppo(2, 2, 2, rank=programs.RANK)
  state, _ = programs.ppo_step(ppo)
  for params in (state.policy, state.value, state.policy_opt[0].trace, state.value_opt[0].trace):
    shards = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, params['layers'])
    q, o, down = shards['attention']['q'], shards['attention']['o'], shards['mlp']['down']
    assert (q['lora_a'], q['lora_b']) == ((2, 32 // 2, 4), (2, 4, 4 // 2, 8))
    assert (o['lora_a'], o['lora_b']) == ((2, 4 // 2, 8, 4), (2, 4, 32 // 2))
    assert (down['lora_a'], down['lora_b']) == ((2, 64 // 2, 4), (2, 4, 32 // 2))
  base = ppo.reference['layers']['attention']['q']['kernel']
  assert base.addressable_shards[0].data.shape == (2, 32 // 2, 4 // 2, 8)
  kept = jax.device_get(ppo.reference)  # raises where a buffer was given away
  jax.tree.map(np.testing.assert_array_equal, kept, programs.params(programs.RANK)[0])
  assert jax.tree.leaves(ppo.state.policy)[0].is_deleted()


@RANKS
def test_a_checkpoint_restores_on_another_mesh(rank, tmp_path):
  sizes = (1, 1, 1) if rank else (1, 8, 1)
  state, _ = stepped(2, 2, 2, rank=rank)
  Checkpointer(tmp_path, keep=1).save(1, state, {})
  like, _ = stepped(*sizes, rank=rank)
  restored, _ = Checkpointer(tmp_path, keep=1).restore_latest(like)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding == y.sharding, restored, like))
