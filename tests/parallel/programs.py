"""Every device program of a small model on a mesh, and fixed arrays for them (shared by tests).

Run as a script, it compiles them on 8 devices and prints their names; the compiler's warnings go
to stderr.
"""

import dataclasses
import functools
import sys

import jax
import numpy as np
import optax

from mem1_jax import arrays, sft
from mem1_jax.model import build_critic, build_policy, lora
from mem1_jax.parallel import multihost, sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh, one_device
from mem1_jax.rl import learner, networks
from mem1_jax.rl.config import PPOConfig
from mem1_jax.rollout.decode import DROPPED, Questions, Refill
from mem1_jax.rollout.engine import Engine, EngineConfig
from mem1_jax.rollout.sampling import sampling
from tests.model.small import small_config
from tests.ops import layouts
from tests.rollout import fakes

ROWS, LENGTH, SLOTS = 16, 96, 8
QUESTION, CACHE = 11, 96  # capacities, tokens
RANK = 4  # of adapters, where there are some
VOCAB = 64  # more than the tokenizer's 16: the rest pads
CONFIG = small_config(vocab_size=VOCAB, dim=32, ffn_dim=64, init_std=0.1, tie_embeddings=True,
                      lora_alpha=8.0)
PPO = PPOConfig(
    gamma=1.0, lam=0.95, whiten=True, clip=0.2, tis_cap=0.0, value_clip=0.5,
    epochs=1, num_minibatches=1, micro_rows=8, kl_in='loss', kl_estimator='k3', kl_controller='fixed', kl_target=0.1,
    kl_horizon=10.0, entropy_coef=0.01, temperature=1.0, num_valid=VOCAB - 4, logprob_chunk=32,
    has_reference=True, trunk_value_coef=0.0, loss_scale=1.0, max_skipped=3)
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
def params(rank):
  """(reference, policy, value) on the host: each away from what would hide a term of the loss.

  With a rank, the last two are what stands beside the reference: adapters and a value head.
  """
  policy, critic = built(1, 1, 1)
  reference = jax.device_get(policy.init(jax.random.key(1)))
  key, targets = jax.random.key(2), tuple(lora.TARGETS)
  trunk = lora.init(key, reference, rank, targets) if rank else reference
  scale = 0.1 if rank else 0.01
  trained = jax.tree.map(
      lambda x: x + scale * np.sin(np.arange(x.size, dtype=x.dtype)).reshape(x.shape), trunk)
  value = critic.from_policy(trained, key)
  value['value'] = 0.1 * np.cos(np.arange(CONFIG.dim, dtype=np.float32))[:, None]
  return reference, *jax.device_get((trained, value))


@functools.cache
def built(*sizes):
  """(policy, critic) on the mesh data x fsdp x tensor; 1 x 1 x 1 is on this process's own device."""
  mesh = one_device() if sizes == (1, 1, 1) else make_mesh(MeshConfig(*sizes))
  return build_policy(CONFIG, 'chunked', mesh), build_critic(CONFIG, 'chunked', mesh)


@dataclasses.dataclass
class PPOPrograms:
  """The two programs of PPO and where their arrays lie."""

  state: arrays.TrainState
  reference: arrays.Params
  shardings: learner.Shardings
  score: jax.stages.Wrapped
  update: jax.stages.Wrapped


def ppo(*sizes, rank=0):
  """PPO on that mesh."""
  policy, critic = built(*sizes)
  reference, *trained = params(rank)
  state = learner.init_state(*trained, OPTIMIZER, OPTIMIZER, 0.3)
  axes = lora.logical_axes(policy.logical_axes() | critic.logical_axes())
  shardings = learner.make_shardings(policy.mesh, axes, state, reference, PPO)
  functions = networks.Networks(
      policy.apply, policy.head, critic.apply,
      num_groups=sharding.num_row_groups(policy.mesh, PPO.micro_rows))
  return PPOPrograms(
      *multihost.put((state, reference), (shardings.state, shardings.reference)), shardings,
      learner.make_score(functions, PPO, shardings),
      learner.make_update(functions, OPTIMIZER, OPTIMIZER, PPO, shardings))


def ppo_step(programs):
  """(state, metrics) after one step on `episodes()`, all rows but one filled."""
  where = programs.shardings
  rows, num_rows, key = multihost.put(
      (episodes(), np.int32(ROWS - 1), jax.random.key(0)), (where.rows, where.whole, where.whole))
  with jax.transfer_guard('disallow'):
    batch = programs.score(
        programs.state.policy, programs.state.value, programs.reference, programs.state.kl_coef,
        rows, num_rows)
    state, metrics = programs.update(programs.state, batch, num_rows, key, programs.reference)
  return state, jax.device_get(metrics)


def sft_step(*sizes, rank=0):
  """(state, metrics) after one supervised step on `episodes()`."""
  policy, _ = built(*sizes)
  reference, trained, _ = params(rank)
  state, frozen = (trained, OPTIMIZER.init(trained)), reference if rank else None
  shardings = sft.make_shardings(policy, state, ROWS, frozen)
  step = sft.make_step(policy, OPTIMIZER, PPO.num_valid, shardings)
  where = *shardings, sharding.whole(policy.mesh)
  state, metrics = step(*multihost.put((state, episodes(), frozen, np.int32(1)), where))
  return state, jax.device_get(metrics)


def engine(*sizes, rank=0):
  """(the rollout programs on that mesh, the policy's parameters there)."""
  policy, _ = built(*sizes)
  reference, trained, _ = params(rank)
  whole = arrays.overlay(reference, trained)
  shardings = sharding.tree(policy.mesh, lora.logical_axes(policy.logical_axes()), whole)
  config = EngineConfig(
      SLOTS, question_capacity=QUESTION, context_capacity=16, turn_capacity=8,
      cache_capacity=CACHE, prefill_chunk=4, num_valid=len(fakes.VOCABULARY),
      refill_rows=SLOTS)  # all slots of a group at a time
  return (Engine(policy, config, fakes.VOCABULARY, fakes.EOS, fakes.PAD, shardings),
          multihost.put(whole, shardings))


def contexts(turn, is_live_B):
  """What each slot reads: its question before turn 0, then other tokens after it."""
  slots, start = np.arange(SLOTS, dtype=np.int32), 8 if turn else 0
  tokens = np.random.default_rng(turn).integers(2, len(fakes.VOCABULARY), (SLOTS, 16), np.int32)
  position = np.tile(np.arange(start, start + 16, dtype=np.int32), (SLOTS, 1))
  return arrays.MemoryState(tokens, position, np.where(is_live_B, 3 + slots, 0), 8 - slots % 3)


def numbers(programs, is_live_B=True):
  """Of the slots in their groups of devices."""
  slots = np.arange(SLOTS, dtype=np.int32) % programs.slots_per_group
  return np.where(is_live_B, slots, np.int32(DROPPED))


def questions(programs):
  """One of each slot, in the row of the same number of its group's store."""
  new = contexts(0, True)
  return Questions(
      numbers(programs), new.tokens[:, :QUESTION], new.position[:, :QUESTION], new.keep)


def refill(programs, turn, is_live_B):
  """Turns after the slots' questions; every other slot's second one and third go on after more."""
  slots = np.arange(SLOTS, dtype=np.int32)
  memory, is_own_B = contexts(turn, is_live_B), (slots % 2 == 1) & (turn > 1)
  memory = dataclasses.replace(memory, keep=memory.keep + 3 * is_own_B)
  return Refill(numbers(programs, is_live_B), numbers(programs), is_own_B, memory,
                np.stack([slots, 0 * slots, turn + 0 * slots], -1))


def turns(*sizes, rank=0):
  """Two turns of every slot but the sixth, one of the fourth alone, and the cache after them."""
  programs, policy = engine(*sizes, rank=rank)
  store, slots = programs.init()
  store = programs.read(policy, store, questions(programs))
  number, options, written = np.arange(SLOTS), sampling(max_tokens=8), []
  for turn, is_live_B in enumerate((number != 5, number != 5, number == 3), 1):
    new, num_active = refill(programs, turn, is_live_B), 1
    with jax.transfer_guard('disallow'):
      store, slots = programs.refill(policy, store, slots, new, seed=0, iteration=0)
      while num_active:
        slots, report = programs.decode(policy, slots, options)
        num_active = jax.device_get(report.num_active)
    written.append(multihost.fetch_rows(slots.turn))
  return written, slots.cache


def texts(*sizes):
  """XLA's text of the programs of a rollout, by name."""
  programs, policy = engine(*sizes)
  lowered = {
      'read': programs._read.lower(policy, programs.state[0], questions(programs)),
      'refill': programs.lower_refill(policy), 'decode': programs.lower_decode(policy)}
  return {name: program.compile().as_text() for name, program in lowered.items()}


def _awkward_move(mesh):
  """A change of places that XLA can only make through whole copies: its warning would be seen."""
  columns, rows = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
                   for axes in ((None, ('tensor', 'fsdp')), ('tensor',)))
  move = jax.jit(lambda x: jax.lax.with_sharding_constraint(2 * x, columns) + 1,
                 in_shardings=columns, out_shardings=rows)
  move.lower(jax.ShapeDtypeStruct((16, 32), np.float32)).compile()


def main(rank):
  """Compiles every program on 2x2x2, and those of a rollout whose slots are whole."""
  _awkward_move(built(2, 2, 2)[0].mesh)
  print('awkward move compiled', flush=True)
  ppo_step(ppo(2, 2, 2, rank=rank))
  sft_step(2, 2, 2, rank=rank)
  turns(2, 2, 2, rank=rank)
  turns(1, 1, 2, rank=rank)
  print('all programs compiled', flush=True)


if __name__ == '__main__':
  main(int(sys.argv[1]))
