"""Log-probs and entropies against the definition; the shift; no [B, S, V] array."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops.logprobs import sampling_logits, shift_right, token_logprobs
from mem1_jax.parallel import sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh

B, S, D, V, NUM_VALID = 2, 11, 6, 13, 10


def _inputs():
  hidden = jax.random.normal(jax.random.key(0), (B, S, D))
  head = jax.random.normal(jax.random.key(1), (D, V))
  return hidden, head, jax.random.randint(jax.random.key(2), (B, S), 0, NUM_VALID)


def _by_definition(hidden, head, tokens, temperature):
  logits = (hidden @ head)[..., :NUM_VALID] / temperature
  logprob = jax.nn.log_softmax(logits)
  entropy = -(jnp.exp(logprob) * logprob).sum(-1)
  taken = jnp.take_along_axis(logprob[:, :-1], tokens[:, 1:, None], -1)[..., 0]
  return jnp.pad(taken, ((0, 0), (1, 0))), jnp.pad(entropy[:, :-1], ((0, 0), (1, 0)))


def test_hand_computed():
  # Two ids of logits 0 and ln 3 after temperature 2: probabilities 1/4 and 3/4.
  hidden, head = jnp.ones((1, 2, 1)), jnp.asarray([[0.0, 2 * np.log(3), 99.0]])
  logprob, entropy = token_logprobs(hidden, head, jnp.asarray([[0, 1]]), 2.0, 2)
  np.testing.assert_allclose(logprob, [[0, np.log(3 / 4)]], rtol=1e-6)
  np.testing.assert_allclose(entropy, [[0, np.log(4) - 0.75 * np.log(3)]], rtol=1e-6)


@pytest.mark.parametrize('chunk', [1, 4, 11, 256])
def test_any_chunk_gives_the_definition_and_its_gradient(chunk):
  hidden, head, tokens = _inputs()

  def total(function):
    def scalar(hidden, head):
      logprob, entropy = function(hidden, head)
      return (logprob * jnp.arange(S)[None] + 0.3 * entropy).sum()
    return scalar

  ours = lambda h, w: token_logprobs(h, w, tokens, 0.7, NUM_VALID, chunk)  # noqa: E731
  expected = lambda h, w: _by_definition(h, w, tokens, 0.7)  # noqa: E731
  for a, b in zip(ours(hidden, head), expected(hidden, head)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  grads = [jax.grad(total(f), (0, 1))(hidden, head) for f in (ours, expected)]
  for a, b in zip(*grads):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_matches_what_the_sampler_reads():
  hidden, head, tokens = _inputs()
  logits = sampling_logits(hidden[:, 4], head, 1.3, NUM_VALID)
  expected = jax.nn.log_softmax(logits)[jnp.arange(B), tokens[:, 5]]
  logprob, _ = token_logprobs(hidden, head, tokens, 1.3, NUM_VALID)
  np.testing.assert_allclose(logprob[:, 5], expected, atol=1e-6)


def test_masked_ids_have_no_probability_and_no_gradient():
  hidden, head, tokens = _inputs()
  probability = jax.nn.softmax(sampling_logits(hidden, head, 1.0, NUM_VALID))
  np.testing.assert_array_equal(probability[..., NUM_VALID:], 0)
  grad = jax.grad(lambda w: sum(x.sum() for x in token_logprobs(
      hidden, w, tokens, 1.0, NUM_VALID)))(head)
  np.testing.assert_array_equal(grad[:, NUM_VALID:], 0)


def test_bfloat16_hidden_states_give_float32_logits():
  hidden, head, _ = _inputs()
  assert sampling_logits(hidden.astype('bfloat16'), head, 1.0, V).dtype == jnp.float32


def test_neither_direction_makes_all_logits():
  length, vocab = 640, 777
  hidden = jax.ShapeDtypeStruct((B, length, D), jnp.float32)
  head = jax.ShapeDtypeStruct((D, vocab), jnp.float32)
  tokens = jax.ShapeDtypeStruct((B, length), jnp.int32)

  def shapes(chunk):
    jaxpr = jax.make_jaxpr(jax.grad(
        lambda h, w, t: token_logprobs(h, w, t, 1.0, vocab, chunk)[0].sum(), (0, 1)))
    text = str(jaxpr(hidden, head, tokens))
    return f'{length},{vocab}' in text or f'{length // chunk},{B},{chunk},{vocab}' in text

  assert shapes(length)  # the check can fail
  assert not shapes(64)


@pytest.mark.parametrize('is_split', [True, False])
def test_a_split_vocabulary_is_never_gathered(is_split):
  mesh = make_mesh(MeshConfig(2, 1, 2))
  rows, length, vocab = sharding.rows(mesh, 4), 96, 776
  head = sharding.named(mesh, ('hidden', 'vocab'), (D, vocab)) if is_split else sharding.whole(mesh)
  gradient = jax.jit(
      jax.grad(lambda h, w, t: sum(x.sum() for x in token_logprobs(h, w, t, 1.0, 700, 32)), (0, 1)),
      in_shardings=(rows, head, rows))
  program = gradient.lower(
      jax.ShapeDtypeStruct((4, length, D), jnp.float32),
      jax.ShapeDtypeStruct((D, vocab), jnp.float32),
      jax.ShapeDtypeStruct((4, length), jnp.int32)).compile().as_text()
  shapes = re.findall(r'\w\d+\[([\d,]+)\]', program)
  sizes = {size for shape in shapes for size in shape.split(',')}
  assert {'388', '776'} & sizes == ({'388'} if is_split else {'776'})


def test_shift_right():
  x = jnp.asarray([[1, 2, 3]])
  np.testing.assert_array_equal(shift_right(x), [[0, 1, 2]])
  np.testing.assert_array_equal(shift_right(x[..., None])[..., 0], [[0, 1, 2]])
