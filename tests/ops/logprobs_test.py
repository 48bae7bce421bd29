"""Log-probs and entropies against the definition; the shift; no [B, S, V] array."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops.logprobs import sampling_logits, shift_right, token_logprobs
from mem1_jax.parallel import collectives, sharding
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


def _mask(name):
  mask = np.zeros((B, S), bool)
  if name == 'some':
    mask[0, [0, 1, 4, 10]], mask[1, [3, 5]] = True, True  # the first token has no value anyway
  elif name == 'an empty row':
    mask[1, 2:9] = True
  elif name == 'all':
    mask[:] = True
  return jnp.asarray(mask)


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-6), ('float64', 1e-12)])
@pytest.mark.parametrize('wanted', ['some', 'an empty row', 'all', 'none'])
def test_only_wanted_tokens_have_values_and_gradients(wanted, dtype, tolerance):
  with jax.enable_x64(dtype == 'float64'), jax.default_matmul_precision('highest'):
    hidden, head, tokens = _inputs()
    hidden, head, mask = hidden.astype(dtype), head.astype(dtype), _mask(wanted)
    weight = jax.random.normal(jax.random.key(4), (2, B, S), dtype)
    ours = lambda h, w: token_logprobs(h, w, tokens, 0.7, NUM_VALID, 4, mask)  # noqa: E731
    plain = lambda h, w: tuple(  # noqa: E731
        jnp.where(mask, x, 0) for x in _by_definition(h, w, tokens, 0.7))
    for got, want in zip(ours(hidden, head), plain(hidden, head)):
      assert got.dtype == dtype
      np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    total = lambda f: lambda *x: sum((a * b).sum() for a, b in zip(f(*x), weight))  # noqa: E731
    for got, want in zip(*(jax.grad(total(f), (0, 1))(hidden, head) for f in (ours, plain))):
      scale = float(jnp.abs(want).max()) or 1.0
      np.testing.assert_allclose(got / scale, want / scale, atol=tolerance)
    if wanted == 'none':
      assert not any(x.any() for x in ours(hidden, head))


def test_only_chunks_with_a_wanted_token_are_visited():
  """Unwanted hidden states are nan: the head's gradient tells whether one was multiplied."""
  def poisoned(num_wanted, chunk=3):
    hidden, head, tokens = _inputs()
    mask = jnp.zeros((B, S), bool).at[:, 10:10 - 2 * num_wanted:-2].set(True)
    is_read = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))  # the state before each wanted token
    hidden = jnp.where(is_read[..., None], hidden, jnp.nan)
    return jax.jit(jax.grad(lambda w: sum(x.sum() for x in token_logprobs(
        hidden, w, tokens, 1.0, NUM_VALID, chunk, mask))))(head)

  assert np.isfinite(poisoned(3)).all()  # one chunk of 3, of 4
  assert np.isnan(poisoned(4)).any()  # the second chunk has two unwanted ones, too


def test_the_gradient_of_a_bfloat16_head_is_summed_in_float32():
  # 512 chunks of one token each add 2^-9: in bfloat16 the sum would stop at 1/2.
  length = 513
  hidden, tokens = jnp.ones((1, length, 1), 'bfloat16'), jnp.ones((1, length), jnp.int32)
  grad = jax.grad(lambda w: token_logprobs(hidden, w, tokens, 256.0, 2, 1)[0].sum())(
      jnp.zeros((1, 2), 'bfloat16'))
  np.testing.assert_array_equal(grad, [[-1, 1]])


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


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('float64', 1e-13)])
def test_the_same_on_eight_devices(dtype, tolerance):
  mesh, length, vocab = make_mesh(MeshConfig(2, 2, 2)), 24, 32
  rows, head = sharding.rows(mesh, 8), sharding.named(mesh, ('hidden', 'vocab'), (16, vocab))
  where = (rows, head, rows, rows, rows)

  def both(hidden, head, tokens, mask, weight):
    groups = sharding.num_row_groups(mesh, 8)
    function = lambda h, w: token_logprobs(h, w, tokens, 0.7, 30, 4, mask, groups)  # noqa: E731
    values, pullback = jax.vjp(function, hidden, head)
    return values, pullback((weight, 0.3 * weight))

  with jax.enable_x64(dtype == 'float64'):
    keys = jax.random.split(jax.random.key(0), 5)
    inputs = (
        jax.random.normal(keys[0], (8, length, 16), dtype),
        0.2 * jax.random.normal(keys[1], (16, vocab), dtype),
        jax.random.randint(keys[2], (8, length), 0, 30), jax.random.uniform(
            keys[3], (8, length)) < jnp.arange(8)[:, None] / 8,  # rows from none to most
        jax.random.normal(keys[4], (8, length), dtype))
    many = jax.jit(both, in_shardings=where)
    text = many.lower(*inputs).compile().as_text()
    # Rows stay where they are: all that goes around is sums over rows or the vocabulary.
    assert 'all-reduce' in text and 'all-gather' not in text and 'all-to-all' not in text
    once, again = (sum(collectives.sent_bytes(text, {'loss_rows': n}).values()) for n in (1, 2))
    head_bytes = 16 * vocab // 2 * np.dtype(dtype).itemsize  # of the head's gradient, on a device
    assert once >= head_bytes > again - once  # the sums of a chunk have no [D, V]
    got, want = many(*jax.device_put(inputs, where)), jax.jit(both)(*inputs)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
                 got, want)


def test_shift_right():
  x = jnp.asarray([[1, 2, 3]])
  np.testing.assert_array_equal(shift_right(x), [[0, 1, 2]])
  np.testing.assert_array_equal(shift_right(x[..., None])[..., 0], [[0, 1, 2]])
