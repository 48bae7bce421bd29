"""A token task and a model small enough to learn it in a second.

The hidden state is a table look-up of the token itself, so a policy is a table
of next-token logits and a critic a table of values. A row is a question token q
and two generated tokens; each earns 1 where it equals (q + 1) % 4, and the
second is generated after a copy of the question, as a turn after its carry.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax import arrays
from mem1_jax.parallel import sharding
from mem1_jax.rl import learner, networks
from mem1_jax.rl.config import PPOConfig

VOCAB = 6  # 4 that can be sampled, 2 that pad the vocabulary
CONFIG = PPOConfig(
    gamma=1.0, lam=0.95, whiten=True, clip=0.2, tis_cap=0.0, value_clip=0.5,
    epochs=2, num_minibatches=2, micro_rows=2, kl_in='reward', kl_estimator='k1', kl_controller='fixed', kl_target=0.1,
    kl_horizon=10.0, entropy_coef=0.01, temperature=1.0, num_valid=4, logprob_chunk=4,
    has_reference=True, trunk_value_coef=0.0, loss_scale=1.0, max_skipped=3)
NETWORKS = networks.Networks(
    hidden=lambda policy, tokens, position, key_end: policy['table'][tokens],
    head=lambda policy: policy['head'],
    value=lambda value, tokens, position, key_end: value['table'][tokens])


def config(**changes):
  return dataclasses.replace(CONFIG, **changes)


def shardings(mesh):
  """Rows spread over the mesh, all parameters everywhere."""
  whole = sharding.whole(mesh)
  state = arrays.TrainState(*[whole] * len(dataclasses.fields(arrays.TrainState)))
  return learner.Shardings(state, whole, sharding.rows(mesh, CONFIG.micro_rows), whole)


def policy(seed):
  head = jnp.eye(VOCAB)
  return {'table': 0.1 * jax.random.normal(jax.random.key(seed), (VOCAB, VOCAB)), 'head': head}


def value():
  return {'table': jnp.zeros(VOCAB)}


@jax.jit
def rollout(params, key, question_B):
  """Episodes [B, 6]: q g0 | q g1 | . . and their sampler's log-probs."""
  logits_BV = (params['table'] @ params['head'])[question_B][:, :4]
  keys = jax.random.split(key, 2)
  drawn = [jax.random.categorical(k, logits_BV) for k in keys]
  logprobs = [jnp.take_along_axis(jax.nn.log_softmax(logits_BV), g[:, None], 1)[:, 0]
              for g in drawn]
  right = (question_B + 1) % 4
  zero = jnp.zeros(question_B.shape, jnp.float32)
  stack = lambda columns: jnp.stack(columns, axis=1)
  pad = jnp.zeros_like(question_B)
  return arrays.Episodes(
      tokens=stack([question_B, drawn[0], question_B, drawn[1], pad, pad]),
      tags=tags(question_B.shape[0]),
      logprob=stack([zero, logprobs[0], zero, logprobs[1], zero, zero]),
      reward=stack([zero, 1.0 * (drawn[0] == right), zero, 1.0 * (drawn[1] == right), zero, zero]))


def tags(num_rows):
  tile = lambda row, dtype=jnp.int32: jnp.tile(jnp.asarray(row, dtype), (num_rows, 1))
  return arrays.Tags(
      kind=tile([1, 2, 1, 2, 0, 0]), episode=tile([0, 0, 0, 0, -1, -1]),
      turn=tile([-1, 0, 1, 1, -1, -1]), position=tile([0, 1, 1, 2, 0, 0]),
      key_end=tile([4, 2, 4, 4, 0, 0]), is_generated=tile([0, 1, 0, 1, 0, 0], bool))


def questions(step, num_rows):
  return jnp.asarray(np.random.default_rng(step).integers(0, 4, num_rows), jnp.int32)


def mean_reward(episodes, num_rows):
  return float(episodes.reward[:num_rows].sum() / num_rows)
