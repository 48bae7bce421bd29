"""Every implementation gives the numbers of the reference, on any layout, with its gradients."""

import functools

from hypothesis import given, settings, strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops import attention_chunked, attention_gpu, attention_tpu
from mem1_jax.ops import attention as attention_lib
from mem1_jax.ops.attention import attention, choose, make_plan
from mem1_jax.ops.attention_reference import attention_reference
from tests.ops import layouts

B, S, N, K, H = 2, 300, 4, 2, 16  # S is no multiple of a block
# Blocks so small that a row has many of each kind.
OPS = {
    'chunked': lambda *a: attention_chunked.attention_chunked(
        *a, attention_chunked.build_plan(a[3], 32)),
    'tpu': lambda *a: attention_tpu.attention_tpu(
        *a, attention_tpu.build_plan(a[3], 128), interpret=True),
    'gpu': lambda *a: attention_gpu.attention_gpu(
        *a, attention_gpu.build_plan(a[3], 32, 16), interpret=True),
}
TOLERANCE = {'float32': 2e-5, 'bfloat16': 2e-2}  # relative to the largest number


def _inputs(dtype='float32', length=S, heads=(N, K), width=H):
  shapes = [(B, length, n, width) for n in (heads[0], heads[1], heads[1], heads[0])]
  return [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grads(op, q, k, v, dout, key_end):
  out, vjp = jax.vjp(lambda q, k, v: op(q, k, v, key_end), q, k, v)
  return out, *vjp(dout)


def _assert_equals_the_reference(name, key_end, dtype='float32', **shape):
  inputs, key_end = _inputs(dtype, **shape), jnp.asarray(key_end)
  results = _value_and_grads(OPS[name], *inputs, key_end)
  expected = _value_and_grads(
      attention_reference, *(x.astype('float32') for x in inputs), key_end)
  for result, reference in zip(results, expected, strict=True):
    assert result.dtype == dtype and np.isfinite(result).all()
    gap = jnp.abs(result.astype('float32') - reference).max()
    assert gap <= TOLERANCE[dtype] * jnp.maximum(jnp.abs(reference).max(), 0.1)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), layout=st.sampled_from(['exact', 'stitched', 'full']),
       max_turns=st.integers(1, 24), max_tokens=st.sampled_from([8, 40, 150]))
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', OPS)
def test_equals_the_reference_on_packed_episodes(name, dtype, seed, layout, max_turns, max_tokens):
  key_end, _ = layouts.episodes(B, S, seed, layout, max_turns, max_tokens)
  _assert_equals_the_reference(name, key_end, dtype)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31 - 1), share=st.sampled_from([0.0, 0.1, 1.0]))
@pytest.mark.parametrize('name', OPS)
def test_equals_the_reference_on_any_vector(name, seed, share):
  """Keys nobody sees, queries that see nothing, padding inside."""
  rng = np.random.RandomState(seed)
  key_end = rng.randint(0, S + 1, (B, S)) * (rng.rand(B, S) < share)
  _assert_equals_the_reference(name, key_end.astype(np.int32))


@pytest.mark.parametrize('heads,width', [((7, 1), 24), ((6, 3), 128)])
@pytest.mark.parametrize('name', OPS)
def test_any_grouping_and_head_width(name, heads, width):
  key_end, _ = layouts.episodes(B, 160, 1, max_tokens=40)
  _assert_equals_the_reference(name, key_end, length=160, heads=heads, width=width)


@pytest.mark.parametrize('length', [1, 129])
@pytest.mark.parametrize('name', OPS)
def test_short_rows(name, length):
  _assert_equals_the_reference(name, np.full((B, length), length, np.int32), length=length)


@pytest.mark.parametrize('name', OPS)
def test_a_query_that_sees_nothing_gives_zero_and_no_gradient(name):
  key_end = jnp.zeros((B, S), jnp.int32).at[0, :3].set(3)
  results = _value_and_grads(OPS[name], *_inputs(), key_end)
  for result in results:
    assert np.asarray(result[0, :3]).any()
    assert not np.asarray(result[0, 3:]).any() and not np.asarray(result[1]).any()


@pytest.mark.parametrize('name', OPS)
def test_a_row_does_not_depend_on_its_neighbour(name):
  key_end = jnp.asarray(layouts.episodes(B, S)[0])
  busier = key_end.at[1].set(S)  # a longer list: row 0 idles through the rest of the loop
  for a, b in zip(*(_value_and_grads(OPS[name], *_inputs(), e) for e in (key_end, busier))):
    np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize('name', ['reference', *OPS])
def test_an_evicted_key_changes_nothing_later_by_a_bit(name):
  evicted = slice(40, 90)
  q, k, v, _ = _inputs()
  key_end = jnp.full((B, S), S).at[:, evicted].set(90)
  op = jax.jit(lambda k, v: (OPS | {'reference': attention_reference})[name](q, k, v, key_end))
  out = op(k, v)
  edited = op(k.at[:, evicted].add(3.0), v.at[:, evicted].multiply(-50.0))
  np.testing.assert_array_equal(out[:, 90:], edited[:, 90:])
  assert np.abs(out[:, evicted] - edited[:, evicted]).max() > 0.1
  grads = jax.grad(lambda k, v: op(k, v)[:, 90:].sum(), (0, 1))(k, v)
  assert not any(np.asarray(g[:, evicted]).any() for g in grads)


@pytest.mark.parametrize('name,length', [
    ('auto', 8), ('auto', S), ('tpu_interpret', S), ('gpu_interpret', S)])
def test_the_entry_calls_what_it_is_told_with_and_without_a_plan(name, length):
  *inputs, _ = _inputs(length=length)
  key_end = jnp.full((B, length), length)
  chosen = choose(name, jax.devices()[0], length, 'float32')
  expected = jax.jit(attention_reference)(*inputs, key_end)
  call = jax.jit(lambda *xs: [attention(*xs, implementation=chosen, plan=plan)
                              for plan in (make_plan(xs[-1], chosen), None)])
  for out in call(*inputs, key_end):
    np.testing.assert_allclose(out, expected, atol=1e-5)


class _Device:
  """What `choose` reads of a device."""

  def __init__(self, platform, compute_capability=None):
    self.platform = platform
    self.device_kind = platform.upper()
    if compute_capability:
      self.compute_capability = compute_capability


@pytest.mark.parametrize('device,dtype,length,expected', [
    (_Device('tpu'), 'bfloat16', 4096, 'tpu'),
    (_Device('tpu'), 'float16', 4096, 'chunked'),
    (_Device('gpu', '9.0'), 'float16', 4096, 'gpu'),
    (_Device('gpu', '10.3'), 'bfloat16', 4096, 'gpu'),
    (_Device('gpu', '7.5'), 'float16', 4096, 'chunked'),  # Colab's T4
    (_Device('gpu', '8.0'), 'float64', 4096, 'chunked'),
    (_Device('cpu'), 'float32', 4096, 'chunked'),
    (_Device('cpu'), 'float32', 256, 'reference'),
])
def test_auto_is_what_the_target_runs_best(device, dtype, length, expected):
  assert choose('auto', device, length, dtype) == expected
  assert choose('reference', device, length, dtype) == 'reference'


def test_an_explicit_kernel_never_falls_back():
  with pytest.raises(NotImplementedError, match="'tpu' cannot run on CPU.*'tpu_interpret'"):
    choose('tpu', _Device('cpu'), 8, 'float32')
  for name, dtype in (('tpu', 'float16'), ('gpu', 'float64')):
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match=f'not {dtype}'):
      jax.eval_shape(functools.partial(attention, implementation=f'{name}_interpret'),
                     *_inputs(dtype)[:3], jnp.full((B, S), S, jnp.int32))


def test_unknown_implementation_is_refused():
  inputs, key_end = _inputs()[:3], jnp.full((B, S), S)
  with pytest.raises(ValueError, match="'flash'.*one of"):
    attention(*inputs, key_end, implementation='flash')
  with pytest.raises(ValueError, match="'flash'.*one of"):
    choose('flash', jax.devices()[0], S, 'float32')


def test_shapes_that_do_not_fit_are_refused():
  q, k, v, _ = _inputs()
  key_end = jnp.full((B, S), S)
  with pytest.raises(ValueError, match='multiple'):
    attention(q[:, :, :3], k, v, key_end, implementation='reference')
  with pytest.raises(ValueError, match='must agree'):
    attention(q, k, v, key_end[:, 1:], implementation='reference')
