"""Fresh weights that copy: where the heads look, and what they are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.model import build_policy, named_config
from mem1_jax.ops.logprobs import token_logprobs

HALF = 60


def _repeated(vocab_size):
  half = np.random.RandomState(0).randint(0, vocab_size, (4, HALF))
  return jnp.asarray(np.concatenate([half, half], axis=1), jnp.int32)


def _second_half_gain(config):
  """Nats by which a token is likelier in the repetition than the first time, sharpened."""
  policy = build_policy(config, 'reference')
  params, tokens = policy.init(jax.random.key(0)), _repeated(config.vocab_size)
  position = jnp.tile(jnp.arange(2 * HALF)[None], (4, 1))
  hidden = policy.apply(params, tokens, position, jnp.full_like(position, 2 * HALF))
  logprob = token_logprobs(hidden, policy.head(params), tokens, 0.25, config.vocab_size)[0]
  return float(logprob[:, HALF + 1:].mean() - logprob[:, 1:HALF].mean())


def test_a_fresh_model_finds_repetitions_likelier_only_with_copy_heads():
  atlas = named_config('atlas')
  assert _second_half_gain(atlas) > 0.5
  assert abs(_second_half_gain(dataclasses.replace(atlas, copy_heads=False))) < 0.1


def test_parameters_keep_their_shapes_and_dtypes():
  atlas = named_config('atlas')
  shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), build_policy(config).init(jax.random.key(0)))
            for config in (atlas, dataclasses.replace(atlas, copy_heads=False))]
  assert shapes[0] == shapes[1]


@pytest.mark.parametrize('changes', [{'num_layers': 1}, {'num_kv_heads': 4}, {'qkv_bias': False}])
def test_a_model_without_room_for_the_heads_is_refused(changes):
  config = dataclasses.replace(named_config('atlas'), **changes)
  with pytest.raises(ValueError, match='copy_heads needs'):
    build_policy(config).init(jax.random.key(0))


def test_what_stood_before_decides_between_two_continuations():
  """X A B … Y A C … then X A → B and Y A → C, for ids in all roles."""
  config, num = named_config('atlas'), 64
  policy = build_policy(config, 'reference')
  params, rng = policy.init(jax.random.key(0)), np.random.RandomState(1)
  ids = np.stack([rng.choice(config.vocab_size, 25, replace=False) for _ in range(num)])
  x, y, a, b, c = ids[:, :5].T

  def logprob(before, last):
    tokens = np.column_stack([x, a, b, ids[:, 5:15], y, a, c, ids[:, 15:], before, a, last])
    tokens, S = jnp.asarray(tokens, jnp.int32), tokens.shape[1]
    position = jnp.tile(jnp.arange(S)[None], (num, 1))
    hidden = policy.apply(params, tokens, position, jnp.full_like(position, S))
    return token_logprobs(hidden, policy.head(params), tokens, 1.0, config.vocab_size)[0][:, -1]

  gain = logprob(x, b) - logprob(x, c) - (logprob(y, b) - logprob(y, c))
  assert float((gain > 0).mean()) > 0.75
