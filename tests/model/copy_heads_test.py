"""Fresh weights that copy: where the heads look, and what they are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.model import build_policy, named_config
from mem1_jax.ops.logprobs import token_logprobs
from mem1_jax.text.tokenizer import SentencePieceTokenizer

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
  assert abs(_second_half_gain(dataclasses.replace(atlas, copy_heads=None))) < 0.1


def test_parameters_keep_their_shapes_and_dtypes():
  atlas = named_config('atlas')
  shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), build_policy(config).init(jax.random.key(0)))
            for config in (atlas, dataclasses.replace(atlas, copy_heads=None))]
  assert shapes[0] == shapes[1]


def test_the_labels_of_the_atlas_are_those_of_its_tokenizer():
  config, tokenizer = named_config('atlas'), SentencePieceTokenizer(sources.tokenizer_path())
  assert [tokenizer.encode(label) for label in LABELS] == [[i] for i in range(*config.copy_heads)]


@pytest.mark.parametrize('changes', [
    {'num_layers': 1}, {'num_kv_heads': 4}, {'qkv_bias': False}, {'dim': 256}])
def test_a_model_without_room_for_the_heads_is_refused(changes):
  config = dataclasses.replace(named_config('atlas'), **changes)
  with pytest.raises(ValueError, match='copy_heads needs'):
    build_policy(config).init(jax.random.key(0))


def _preference(make_tokens, num=64):
  """Share of draws in which what is repeated decides between two continuations."""
  config = named_config('atlas')
  policy = build_policy(config, 'reference')
  params, rng = policy.init(jax.random.key(0)), np.random.RandomState(1)
  first, end = config.copy_heads
  words = np.stack([end + rng.choice(config.vocab_size - end, 25, replace=False)
                    for _ in range(num)])
  labels = np.stack([rng.choice(np.arange(first, end), 2, replace=False) for _ in range(num)])

  def logprob(which, last):
    tokens = jnp.asarray(make_tokens(words, labels, which, last), jnp.int32)
    S = tokens.shape[1]
    position = jnp.tile(jnp.arange(S)[None], (num, 1))
    hidden = policy.apply(params, tokens, position, jnp.full_like(position, S))
    return token_logprobs(hidden, policy.head(params), tokens, 1.0, config.vocab_size)[0][:, -1]

  gain = logprob(0, 0) - logprob(0, 1) - (logprob(1, 0) - logprob(1, 1))
  return float((gain > 0).mean())


def test_what_stood_before_decides_between_two_continuations():
  """X A B … Y A C … then X A → B and Y A → C."""
  def tokens(words, labels, which, last):
    del labels
    before, (a, follow) = words[:, :2], (words[:, 2], words[:, 3:5])
    return np.column_stack([before[:, 0], a, follow[:, 0], words[:, 5:15], before[:, 1], a,
                            follow[:, 1], words[:, 15:], before[:, which], a, follow[:, last]])

  assert _preference(tokens) > 0.75


def test_the_line_decides_between_two_continuations():
  """[l] … X A B … [m] … X A C … then [l] … X A → B and [m] … X A → C."""
  def tokens(words, labels, which, last):
    x, a, follow = words[:, 0], words[:, 1], words[:, 2:4]
    lines = [[labels[:, i], words[:, 5 + 3 * i:8 + 3 * i], x, a, follow[:, i],
              words[:, 12 + 3 * i:15 + 3 * i]] for i in range(2)]
    return np.column_stack([*lines[0], *lines[1], labels[:, which], words[:, 20:], x, a,
                            follow[:, last]])

  assert _preference(tokens) > 0.9
