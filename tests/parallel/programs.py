"""Every device program of a small model on a mesh, and fixed arrays for them (shared by tests).

Run as a script, it compiles them on 8 devices and prints their names; the compiler's warnings go
to stderr.
"""

import dataclasses
import functools

import jax
import numpy as np
import optax

from mem1_jax import arrays, sft
from mem1_jax.model import build_critic, build_policy
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh
from mem1_jax.rl import learner
from mem1_jax.rl.config import PPOConfig
from mem1_jax.rollout.decode import Engine, EngineConfig
from mem1_jax.rollout.sampling import sampling, slot_keys
from tests.model.small import small_config
from tests.ops import layouts
from tests.rollout import fakes

ROWS, LENGTH, SLOTS = 16, 96, 8
VOCAB = 64  # more than the tokenizer's 16: the rest pads
CONFIG = small_config(vocab_size=VOCAB, dim=32, ffn_dim=64, init_std=0.1, tie_embeddings=True)
PPO = PPOConfig(
    gamma=1.0, lam=0.95, whiten=True, clip=0.2, value_clip=0.5, epochs=1, num_minibatches=1,
    micro_rows=8, kl_in='loss', kl_estimator='k3', kl_controller='fixed', kl_target=0.1,
    kl_horizon=10.0, entropy_coef=0.01, temperature=1.0, num_valid=VOCAB - 4, logprob_chunk=32,
    max_skipped=3)
# The state holds the gradient of the last step.
OPTIMIZER = optax.chain(optax.trace(0.0), optax.scale(-0.1))


@functools.cache
def episodes():
  """[ROWS, LENGTH] packed episodes, half of their tokens generated."""
  rng = np.random.default_rng(0)
  key_end, position = layouts.episodes(ROWS, LENGTH, seed=3)
  is_generated = (rng.random(key_end.shape) < 0.5) & (key_end > 0)
  is_generated[:, 0] = False
  floats = lambda scale, shift: np.where(  # noqa: E731
      is_generated, shift + scale * rng.normal(size=key_end.shape), 0).astype(np.float32)
  tags = arrays.Tags(
      kind=is_generated.astype(np.int32), episode=np.where(key_end > 0, 0, -1).astype(np.int32),
      turn=np.zeros_like(key_end, np.int32), position=position.astype(np.int32),
      key_end=key_end.astype(np.int32), is_generated=is_generated)
  return arrays.Episodes(
      rng.integers(0, PPO.num_valid, key_end.shape, np.int32), tags,
      floats(0.1, -np.log(PPO.num_valid)), floats(1.0, 0.2))


@functools.cache
def params():
  """(reference, policy, value) on the host: each away from what would hide a term of the loss."""
  policy, critic = built(1, 1, 1)
  reference = policy.init(jax.random.key(1))
  value = jax.device_get(critic.from_policy(reference, jax.random.key(2)))
  value['value'] = 0.1 * np.cos(np.arange(CONFIG.dim, dtype=np.float32))[:, None]
  reference = jax.device_get(reference)
  waves = jax.tree.map(
      lambda x: 0.01 * np.sin(np.arange(x.size, dtype=x.dtype)).reshape(x.shape), reference)
  return reference, jax.tree.map(np.add, reference, waves), value


@functools.cache
def built(*sizes):
  """(policy, critic) on the mesh data x fsdp x tensor."""
  mesh = make_mesh(MeshConfig(*sizes))
  return build_policy(CONFIG, 'chunked', mesh), build_critic(CONFIG, 'chunked', mesh)


@dataclasses.dataclass
class PPOPrograms:
  """The two programs of PPO and where their arrays lie."""

  state: arrays.TrainState
  reference: arrays.Params
  shardings: learner.Shardings
  score: jax.stages.Wrapped
  update: jax.stages.Wrapped


def ppo(*sizes):
  """PPO on that mesh."""
  policy, critic = built(*sizes)
  reference, *trained = params()
  state = learner.init_state(*trained, OPTIMIZER, OPTIMIZER, 0.3)
  axes = policy.logical_axes() | critic.logical_axes()
  shardings = learner.make_shardings(policy.mesh, axes, state, reference, PPO)
  networks = learner.Networks(policy.apply, policy.head, critic.apply)
  return PPOPrograms(
      *jax.device_put((state, reference), (shardings.state, shardings.reference)), shardings,
      learner.make_score(networks, PPO, shardings),
      learner.make_update(networks, OPTIMIZER, OPTIMIZER, PPO, shardings))


def ppo_step(programs):
  """(state, metrics) after one step on `episodes()`, all rows but one filled."""
  where = programs.shardings
  rows, num_rows, key = jax.device_put(
      (episodes(), np.int32(ROWS - 1), jax.random.key(0)), (where.rows, where.whole, where.whole))
  with jax.transfer_guard('disallow'):
    batch = programs.score(
        programs.state.value, programs.reference, programs.state.kl_coef, rows, num_rows)
    state, metrics = programs.update(programs.state, batch, num_rows, key)
  return state, jax.device_get(metrics)


def sft_step(*sizes):
  """(state, metrics) after one supervised step on `episodes()`."""
  policy, _ = built(*sizes)
  reference, *_ = params()
  state = reference, OPTIMIZER.init(reference)
  shardings = sharding.tree(policy.mesh, policy.logical_axes(), state)
  rows = sharding.rows(policy.mesh, ROWS)
  step = sft.make_step(policy, OPTIMIZER, PPO.num_valid, shardings, rows)
  state, metrics = step(*jax.device_put((state, episodes()), (shardings, rows)))
  return state, jax.device_get(metrics)


def turns(*sizes):
  """Two turns of every slot, one of them empty, and the cache after them."""
  policy, _ = built(*sizes)
  engine = Engine(policy, EngineConfig(
      SLOTS, question_capacity=8, context_capacity=16, turn_capacity=8, cache_capacity=96,
      prefill_chunk=4, num_valid=len(fakes.VOCABULARY)), fakes.VOCABULARY, fakes.EOS, fakes.PAD)
  rng, slots = np.random.default_rng(0), np.arange(SLOTS, dtype=np.int32)
  tokens = rng.integers(2, len(fakes.VOCABULARY), (3, SLOTS, 16), np.int32)
  position = np.tile(np.arange(24, dtype=np.int32), (SLOTS, 1))
  reference = jax.device_put(params()[0], policy.shardings())
  cache = engine.read(
      reference, engine.init_cache(), tokens[0, :, :8], position[:, :8], 8 - slots % 3)
  written = []
  for turn in range(2):
    keys = jax.jit(slot_keys, out_shardings=engine.slots)(
        np.int32(0), np.int32(0), slots, 0 * slots, turn + 0 * slots)
    memory = arrays.MemoryState(
        tokens[1 + turn], position[:, 8:], np.where(slots == 5, 0, 3 + slots), 8 - slots % 3)
    with jax.transfer_guard('disallow'):
      out, cache = engine.take_turn(reference, cache, memory, keys, sampling(max_tokens=8))
    written.append(jax.device_get(out))
  return written, cache


def _naive_lookup(mesh):
  """The gather that XLA cannot partition, to know that its warning would be seen."""
  table = sharding.named(mesh, ('vocab', 'embed'), (VOCAB, CONFIG.dim))
  rows = sharding.rows(mesh, ROWS)
  lookup = jax.jit(lambda table, ids: table[ids], in_shardings=(table, rows), out_shardings=rows)
  lookup(np.zeros((VOCAB, CONFIG.dim), np.float32), episodes().tokens)


def main():
  _naive_lookup(built(2, 2, 2)[0].mesh)
  print('naive lookup compiled', flush=True)
  for program in (lambda *sizes: ppo_step(ppo(*sizes)), sft_step, turns):
    program(2, 2, 2)
  print('all programs compiled', flush=True)


if __name__ == '__main__':
  main()
