"""The decoder as a whole: decode equals forward, eviction, causality, invariances, axes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.model import build_critic, build_policy
from mem1_jax.model.config import REMAT_POLICIES
from tests.model import small


def _forward(config, implementation='reference', seed=0):
  policy = build_policy(config, implementation)
  return policy, policy.init(jax.random.key(seed)), jax.jit(policy.apply)


def _decode(policy, params, tokens, position, chunks, capacity):
  """Hidden states of `tokens` read in chunks of the given sizes."""
  cache, extend = policy.init_cache(tokens.shape[0], capacity), jax.jit(policy.extend)
  hidden, at = [], 0
  for size in chunks:
    part = slice(at, at + size)
    num_tokens = jnp.full((tokens.shape[0],), size)
    out, cache = extend(params, tokens[:, part], position[:, part], num_tokens, cache)
    hidden.append(out)
    at += size
  return jnp.concatenate(hidden, axis=1), cache


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
@pytest.mark.parametrize('dtype, tolerance', [('float64', 1e-9), ('float32', 1e-5)])
def test_decode_equals_forward_at_every_position(variant, dtype, tolerance):
  with jax.enable_x64(dtype == 'float64'), jax.default_matmul_precision('highest'):
    config = small.small_config(dtype=dtype, param_dtype=dtype, **variant)
    policy, params, apply = _forward(config)
    length = 80  # more than one block of the cache
    tokens = jax.random.randint(jax.random.key(1), (2, length), 0, config.vocab_size)
    position = jnp.tile(jnp.arange(length)[None], (2, 1))
    expected = apply(params, tokens, position, jnp.full((2, length), length))
    hidden, cache = _decode(policy, params, tokens, position, [37, 40, 1, 1, 1], length)
    assert hidden.dtype == jnp.dtype(dtype) and cache.length.tolist() == [length] * 2
    assert float(jnp.abs(hidden - expected).max()) <= tolerance


def test_rows_of_different_lengths_and_padding_tokens():
  config = small.small_config()
  policy, params, apply = _forward(config)
  tokens = jax.random.randint(jax.random.key(1), (3, 12), 0, config.vocab_size)
  position = jnp.tile(jnp.arange(12)[None], (3, 1))
  expected = apply(params, tokens, position, jnp.full((3, 12), 12))
  extend, cache = jax.jit(policy.extend), policy.init_cache(3, 12)
  at = np.zeros(3, int)
  for counts in ([4, 1, 0], [2, 3, 4], [0, 4, 3], [4, 4, 4], [2, 0, 1]):
    index = np.minimum(at[:, None] + np.arange(4), 11)  # past a count: tokens that do not count
    rows = np.arange(3)[:, None]
    hidden, cache = extend(params, tokens[rows, index], position[rows, index],
                           jnp.asarray(counts), cache)
    for row, count in enumerate(counts):
      np.testing.assert_allclose(
          hidden[row, :count], expected[row, at[row]:at[row] + count], atol=1e-5)
    at += counts
  assert cache.length.tolist() == [12, 12, 12] == at.tolist()


@pytest.mark.parametrize('implementation', [
    pytest.param('reference', marks=pytest.mark.slow), 'chunked'])
def test_an_evicted_token_changes_no_later_bit_and_has_no_gradient(implementation):
  config = small.small_config(tie_embeddings=False)
  policy, params, apply = _forward(config, implementation)
  # A question 0-3, turns 4-8 and 9-15; token ids differ so that embeddings have one reader each.
  key_end = jnp.asarray([[16] * 4 + [9] * 5 + [16] * 7])
  tokens, position = jnp.arange(16)[None], jnp.asarray([[*range(9), *range(4, 11)]])
  before = apply(params, tokens, position, key_end)
  after = apply(params, tokens.at[0, 5].set(50), position, key_end)
  np.testing.assert_array_equal(before[:, 9:], after[:, 9:])
  assert np.abs(before[:, 5:9] - after[:, 5:9]).min(axis=-1).max() > 1e-4
  grad = jax.grad(lambda p: (policy.apply(p, tokens, position, key_end)[:, 9:]**2).sum())(params)
  embedding = np.abs(grad['embed']['embedding']).max(-1)
  np.testing.assert_array_equal(embedding[4:9], 0)
  assert embedding[:4].min() > 0 and embedding[9:16].min() > 0


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
def test_causality(implementation):
  config = small.small_config()
  _, params, apply = _forward(config, implementation)
  tokens, position, key_end = small.rows(config)
  before = apply(params, tokens, position, key_end)
  after = apply(params, tokens.at[:, 30:].set(1), position, key_end)
  np.testing.assert_array_equal(before[:, :30], after[:, :30])


def test_rows_and_padding_do_not_matter():
  config = small.small_config()
  _, params, apply = _forward(config, 'chunked')
  tokens, position, key_end = small.rows(config, num_rows=3)
  whole = apply(params, tokens, position, key_end)
  alone = apply(params, tokens[1:2], position[1:2], key_end[1:2])
  np.testing.assert_allclose(whole[1:2], alone, atol=1e-5)
  longer = apply(params, *(jnp.pad(x, ((0, 0), (0, 30))) for x in (tokens, position, key_end)))
  is_real = np.asarray(key_end) > 0
  np.testing.assert_allclose(longer[:, :48][is_real], whole[is_real], atol=1e-5)


@pytest.mark.parametrize('override', [
    {'remat': 'full'}, {'remat': 'dots'}, {'remat': 'attention'}, {'scan_unroll': 2}], ids=str)
def test_remat_and_unrolling_change_no_number(override):
  plain, changed = small.small_config(), small.small_config(**override)
  params = build_policy(plain).init(jax.random.key(0))
  inputs = small.rows(plain)

  def loss(config, params):  # weighted: the squares of what is normalised sum to a constant
    hidden = build_policy(config, 'chunked').apply(params, *inputs)
    return (hidden * jax.random.normal(jax.random.key(1), hidden.shape)).sum()

  grads = [jax.jit(jax.grad(functools.partial(loss, c)))(params) for c in (plain, changed)]
  for a, b in zip(*map(jax.tree.leaves, grads)):
    np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(a).max()) + 1e-6)


def test_an_attention_output_is_kept_but_under_full():
  config = small.small_config()
  policy = build_policy(config, 'chunked')
  params, inputs = policy.init(jax.random.key(0)), small.rows(config)

  def loops(remat):
    policy = build_policy(small.small_config(remat=remat), 'chunked')
    jaxpr = jax.make_jaxpr(jax.grad(lambda p: policy.apply(p, *inputs).sum()))(params)
    return str(jaxpr).count('while[')

  assert loops('dots') == loops('attention') == loops('none') < loops('full')


def test_each_policy_keeps_less_than_the_one_before():
  def kept(remat):
    config = small.small_config(remat=remat, num_layers=6)
    policy = build_policy(config, 'chunked')
    params = jax.eval_shape(policy.init, jax.random.key(0))
    inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in small.rows(config)]
    _, pullback = jax.eval_shape(
        lambda p, *x: jax.vjp(lambda p: policy.apply(p, *x), p), params, *inputs)
    return sum(x.size for x in jax.tree.leaves(pullback))

  sizes = [kept(remat) for remat in REMAT_POLICIES]
  assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


def test_float16_keeps_the_residual_stream_in_float32():
  # Each layer adds 40,000 to a channel: float16 holds one, and the sum of both is too much.
  config = small.small_config(dtype='float16', param_dtype='float32', num_layers=2, o_bias=True)
  plain = dataclasses.replace(config, dtype='float32')
  params = build_policy(plain).init(jax.random.key(0))
  output = params['layers']['attention']['o']
  output['bias'] = output['bias'].at[:, 0].set(40_000.0)
  got, want = (build_policy(c, 'reference').apply(params, *small.rows(config))
               for c in (config, plain))
  assert got.dtype == jnp.float16
  np.testing.assert_allclose(got, want, atol=0.02)

def test_dtypes():
  config = small.small_config(dtype='bfloat16', param_dtype='float32')
  _, params, apply = _forward(config)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {'float32'}
  assert apply(params, *small.rows(config)).dtype == jnp.bfloat16


def test_unknown_token_ids_are_noticed():
  config = small.small_config()
  _, params, apply = _forward(config)
  tokens, position, key_end = small.rows(config)
  assert np.isnan(apply(params, tokens.at[0, 0].set(config.vocab_size), position, key_end)).any()


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
def test_logical_axes_name_every_axis_of_every_parameter(variant):
  config = small.small_config(**variant)
  for model in (build_policy(config), build_critic(config)):
    params, axes = model.init(jax.random.key(0)), model.logical_axes()
    jax.tree.map(lambda leaf, spec: np.testing.assert_equal(leaf.ndim, len(spec)), params, axes)
    assert isinstance(jax.tree.leaves(params)[0], jax.Array)
    assert tuple(axes['layers']['attention']['k']['kernel']) == (
        'layers', 'embed', 'kv_heads', 'head')


def test_layers_are_drawn_apart():
  params = build_policy(small.small_config()).init(jax.random.key(0))
  kernel = params['layers']['mlp']['gate']['kernel']
  assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0.1


def test_head_is_the_embedding_only_when_tied():
  for tied in (True, False):
    policy = build_policy(small.small_config(tie_embeddings=tied))
    params = policy.init(jax.random.key(0))
    assert policy.head(params).shape == (24, 61)
    assert np.array_equal(policy.head(params), params['embed']['embedding'].T) == tied


def test_critic_starts_at_zero_and_reads_each_tokens_own_state():
  config = small.small_config(tie_embeddings=False)
  policy, critic = build_policy(config), build_critic(config)
  params = policy.init(jax.random.key(0))
  values = critic.from_policy(params, jax.random.key(1))
  inputs = small.rows(config)
  assert set(values) == (set(params) | {'value'}) - {'head'}
  assert (jax.tree.structure(values)
          == jax.tree.structure(critic.init(jax.random.key(0))))
  np.testing.assert_array_equal(critic.apply(values, *inputs), 0)
  values['value'] = jnp.ones_like(values['value'])
  hidden = policy.apply(params, *inputs)
  np.testing.assert_allclose(critic.apply(values, *inputs), hidden.sum(-1), atol=1e-4)
  assert critic.apply(values, *inputs).dtype == jnp.float32


def test_critic_does_not_share_buffers_with_the_policy():
  config = small.small_config()
  params = build_policy(config).init(jax.random.key(0))
  values = build_critic(config).from_policy(params, jax.random.key(1))
  del values['value']
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(values), strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
