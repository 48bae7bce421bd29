"""Adapters: how they begin, that every path adds them, that merging changes no logit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.arrays import overlay
from mem1_jax.model import build_critic, build_policy, lora, named_config
from mem1_jax.ops.logprobs import sampling_logits
from tests.model import small

ALPHA, RANK, ALL = 6.0, 4, tuple(lora.TARGETS)


def _model(implementation='reference', **overrides):
  policy = build_policy(small.small_config(lora_alpha=ALPHA, **overrides), implementation)
  return policy, policy.init(jax.random.key(0))


def _apply(policy):
  """The packed path as one program."""
  return jax.jit(policy.apply)


def _trained(params, rank=RANK, targets=ALL):
  """Adapters whose B is not zero any more."""
  adapters = lora.init(jax.random.key(1), params, rank, targets)
  rng = np.random.default_rng(2)
  return jax.tree.map(
      lambda x: x if x.any() else jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), adapters)


def test_shapes_and_how_they_begin():
  _, params = _model()  # L 2, D 24, N 4, K 2, H 8, F 40
  adapters = lora.init(jax.random.key(1), params, RANK, ALL)
  shapes = {f'{part}.{name}': (pair['lora_a'].shape, pair['lora_b'].shape)
            for part, named in adapters['layers'].items() for name, pair in named.items()}
  assert shapes == {
      'attention.q': ((2, 24, 4), (2, 4, 4, 8)), 'attention.k': ((2, 24, 4), (2, 4, 2, 8)),
      'attention.v': ((2, 24, 4), (2, 4, 2, 8)), 'attention.o': ((2, 4, 8, 4), (2, 4, 24)),
      'mlp.gate': ((2, 24, 4), (2, 4, 40)), 'mlp.up': ((2, 24, 4), (2, 4, 40)),
      'mlp.down': ((2, 40, 4), (2, 4, 24))}
  for name, inputs in (('o', 32), ('q', 24)):
    a = adapters['layers']['attention'][name]['lora_a']
    bound = inputs**-0.5
    assert 0.95 * bound < float(jnp.abs(a).max()) <= bound and abs(float(a.mean())) < 0.1 * bound
    assert not np.array_equal(a[0], a[1])  # layers are drawn apart
  assert not any(leaf.any() for path, leaf in jax.tree_util.tree_leaves_with_path(adapters)
                 if 'lora_b' in str(path))


def test_a_target_draws_the_same_whatever_the_others_are():
  _, params = _model()
  every = lora.init(jax.random.key(1), params, RANK, ALL)['layers']
  some = lora.init(jax.random.key(1), params, RANK, ('down', 'v'))['layers']
  assert {part: set(named) for part, named in some.items()} == {
      'attention': {'v'}, 'mlp': {'down'}}
  np.testing.assert_array_equal(some['mlp']['down']['lora_a'], every['mlp']['down']['lora_a'])
  assert not np.array_equal(every['mlp']['up']['lora_a'], every['mlp']['gate']['lora_a'])


def test_fresh_adapters_and_none_are_the_base():
  policy, params = _model()
  inputs, apply = small.rows(policy.config), _apply(policy)
  plain = _apply(build_policy(small.small_config(), 'reference'))(params, *inputs)
  np.testing.assert_array_equal(apply(params, *inputs), plain)
  fresh = overlay(params, lora.init(jax.random.key(1), params, RANK, ALL))
  np.testing.assert_allclose(apply(fresh, *inputs), plain, atol=1e-5)
  assert lora.init(jax.random.key(1), params, 0, ALL) == {}


@pytest.mark.parametrize('target', ['q', 'o', 'gate'])
def test_each_target_adds_its_product_alone(target):
  """What a kernel W + A B alpha / rank computes, written out in NumPy for this target."""
  policy, params = _model()
  adapters = _trained(params, targets=(target,))
  part = lora.TARGETS[target]
  kernel = np.asarray(params['layers'][part][target]['kernel'], np.float64)
  a, b = (np.asarray(adapters['layers'][part][target][name], np.float64)
          for name in ('lora_a', 'lora_b'))
  product = np.tensordot(a[0], b[0], axes=1), np.tensordot(a[1], b[1], axes=1)
  by_hand = kernel + np.stack(product) * ALPHA / RANK
  merged = lora.merge(params, adapters, ALPHA)
  np.testing.assert_allclose(merged['layers'][part][target]['kernel'], by_hand, atol=1e-5)
  changed = jax.tree.map(lambda x, y: x.shape != y.shape or bool((x != y).any()), merged, params)
  assert sum(jax.tree.leaves(changed)) == 1 and changed['layers'][part][target]['kernel']
  inputs, apply = small.rows(policy.config), _apply(policy)
  hidden = apply(overlay(params, adapters), *inputs)
  np.testing.assert_allclose(hidden, apply(merged, *inputs), atol=1e-4)
  assert float(jnp.abs(hidden - apply(params, *inputs)).max()) > 1e-2


@pytest.mark.parametrize('variant', [small.QWEN2, small.QWEN3], ids=['qwen2', 'qwen3'])
def test_merged_logits_are_the_unmerged(variant):
  policy, params = _model(**variant)
  adapters, inputs = _trained(params), small.rows(policy.config)

  @jax.jit
  def logits(params):
    return sampling_logits(policy.apply(params, *inputs), policy.head(params), 1.0, 61)

  with jax.default_matmul_precision('highest'):
    apart = logits(overlay(params, adapters))
    merged = lora.merge(params, adapters, ALPHA)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    np.testing.assert_allclose(logits(merged), apart, atol=1e-4)
    assert float(jnp.abs(logits(params) - apart).max()) > 0.1


def test_a_merged_kernel_is_not_rounded_to_the_base():
  _, params = _model(param_dtype='bfloat16')
  adapters = _trained(params, targets=('up',))
  merged = lora.merge(params, adapters, ALPHA)['layers']['mlp']
  assert merged['up']['kernel'].dtype == jnp.float32
  assert merged['gate']['kernel'].dtype == jnp.bfloat16
  assert adapters['layers']['mlp']['up']['lora_a'].dtype == jnp.float32


def test_a_whole_network_merges_to_itself():
  _, params = _model()
  for base in (None, jax.tree.map(jnp.zeros_like, params)):
    jax.tree.map(np.testing.assert_array_equal, lora.merge(base, params, ALPHA), params)


@pytest.mark.parametrize('dtype, tolerance', [('float64', 1e-9), ('float32', 1e-5)])
def test_decode_equals_forward(dtype, tolerance):
  with jax.enable_x64(dtype == 'float64'), jax.default_matmul_precision('highest'):
    policy, params = _model('chunked', dtype=dtype, param_dtype=dtype)
    adapters = _trained(params)
    assert {x.dtype.name for x in jax.tree.leaves(adapters)} == {dtype}
    params, extend = overlay(params, adapters), jax.jit(policy.extend)
    tokens = jax.random.randint(jax.random.key(3), (2, 20), 0, 61)
    position = jnp.tile(jnp.arange(20)[None], (2, 1))
    expected = _apply(policy)(params, tokens, position, jnp.full((2, 20), 20))
    cache, hidden = policy.init_cache(2, 20), []
    for part in (slice(0, 17), slice(17, 18), slice(18, 19), slice(19, 20)):
      num_tokens = jnp.full((2,), part.stop - part.start)
      out, cache = extend(params, tokens[:, part], position[:, part], num_tokens, cache)
      hidden.append(out)
    assert float(jnp.abs(jnp.concatenate(hidden, 1) - expected).max()) <= tolerance


@pytest.mark.parametrize('remat', ['none', 'dots'])
def test_gradients_are_those_of_the_merged_kernels(remat):
  """dL/dA = s dL/dW Bᵀ and dL/dB = s Aᵀ dL/dW, W the merged kernel."""
  policy, params = _model(remat=remat)
  adapters, inputs = _trained(params, targets=('o', 'down')), small.rows(policy.config)
  loss = lambda params: jnp.sin(policy.apply(params, *inputs)).sum()
  grads = jax.jit(jax.grad(lambda adapters: loss(overlay(params, adapters))))(adapters)
  whole = jax.jit(jax.grad(loss))(lora.merge(params, adapters, ALPHA))
  for part, name, inputs_outputs in (('attention', 'o', (32, 24)), ('mlp', 'down', (40, 24))):
    got, pair = grads['layers'][part][name], adapters['layers'][part][name]
    flat = lambda x, *shape: np.asarray(x, np.float64).reshape(2, *shape)
    kernel = flat(whole['layers'][part][name]['kernel'], *inputs_outputs)
    a = flat(pair['lora_a'], inputs_outputs[0], RANK)
    b = flat(pair['lora_b'], RANK, inputs_outputs[1])
    for leaf, want in (('lora_a', kernel @ b.transpose(0, 2, 1)),
                       ('lora_b', a.transpose(0, 2, 1) @ kernel)):
      want = want * ALPHA / RANK
      np.testing.assert_allclose(flat(got[leaf], *want.shape[1:]), want,
                                 atol=1e-4 * np.abs(want).max())


def test_no_gradient_of_a_whole_kernel_is_made():
  policy, params = _model('chunked')
  adapters, inputs = _trained(params), small.rows(policy.config)

  def shapes(loss, *args):
    text = str(jax.make_jaxpr(jax.grad(loss))(*args))
    return text.count('f32[24,40] = dot_general')

  loss = lambda trained, base: (policy.apply(overlay(base, trained), *inputs)**2).sum()
  assert shapes(loss, adapters, params) == 0 < shapes(loss, params, {})


def test_a_critic_stands_on_the_base_too():
  policy, params = _model(tie_embeddings=False)
  critic, inputs = build_critic(policy.config), small.rows(policy.config)
  frozen = build_critic(small.small_config(param_dtype='bfloat16'))
  assert frozen.from_policy({}, jax.random.key(0))['value'].dtype == jnp.float32  # trained
  value = critic.from_policy(_trained(params), jax.random.key(0))
  assert set(value) == {'layers', 'value'}
  value['value'] = jnp.ones((24, 1))
  hidden = _apply(policy)(lora.merge(params, _trained(params), ALPHA), *inputs)
  np.testing.assert_allclose(_apply(critic)(overlay(params, value), *inputs), hidden.sum(-1),
                             atol=1e-3)


def test_the_size_that_configs_qwen2p5_0p5b_lora_colab_reckons_with():
  policy = build_policy(named_config('qwen2.5-0.5b', param_dtype='bfloat16'))
  base = jax.eval_shape(policy.init, jax.random.key(0))
  adapters = jax.eval_shape(lambda: lora.init(jax.random.key(0), base, 16, ALL))
  assert {leaf.dtype.name for leaf in jax.tree.leaves(adapters)} == {'float32'}
  assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == 24 * 16 * (
      2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864))


@pytest.mark.parametrize('rank, targets, message', [
    (-1, ALL, 'rank of -1 must be ≥ 0; 0 trains no adapters'),
    (4, ('q', 'query'), r"lora.targets=\('q', 'query'\).*no projection 'query'; choose from"),
    (4, (), r"lora.targets=\(\).*no projection to train; choose from \['q', 'k', 'v', 'o'"),
])
def test_refuses(rank, targets, message):
  _, params = _model()
  with pytest.raises(ValueError, match=message):
    lora.init(jax.random.key(0), params, rank, targets)


def test_a_target_that_the_model_lacks():
  _, params = _model()
  del params['layers']['mlp']['gate']
  with pytest.raises(ValueError, match=r"no projection 'gate'; choose from .*'up', 'down'\]"):
    lora.init(jax.random.key(0), params, RANK, ALL)


def test_the_scale_must_be_positive():
  with pytest.raises(ValueError, match='lora_alpha=0.0 must be above 0'):
    small.small_config(lora_alpha=0.0)
