"""What the chunked op has beyond the numbers that attention_test.py compares."""

import functools

import jax
import jax.numpy as jnp
import pytest

from mem1_jax.ops.attention_chunked import attention_chunked, build_plan
from mem1_jax.ops.attention_reference import attention_reference
from tests.ops import layouts

N, K, H = 4, 2, 4


def _value_and_grads(op, q, k, v, dout, key_end):
  out, vjp = jax.vjp(lambda q, k, v: op(q, k, v, key_end), q, k, v)
  return out, *vjp(dout)


def _chunked(q, k, v, key_end, block=64):
  return attention_chunked(q, k, v, key_end, build_plan(key_end, block))


def _shapes(length, dtype='float32'):
  return [jax.ShapeDtypeStruct((1, length, heads, H), dtype) for heads in (N, K, K, N)] + [
      jax.ShapeDtypeStruct((1, length), jnp.int32)]


def test_float64_is_accumulated_in_float64():
  with jax.enable_x64(True):
    inputs = [jax.random.normal(jax.random.key(i), x.shape, 'float64')
              for i, x in enumerate(_shapes(100)[:4])]
    key_end = jnp.asarray(layouts.episodes(1, 100)[0])
    gaps = [float(abs(a - b).max()) for a, b in zip(*(
        jax.jit(functools.partial(_value_and_grads, op))(*inputs, key_end)
        for op in (functools.partial(_chunked, block=8), attention_reference)))]
  assert max(gaps) < 1e-13


@pytest.mark.parametrize('op,is_linear', [(_chunked, True), (attention_reference, False)])
def test_memory_grows_with_the_row_not_with_its_square(op, is_linear):
  """Of the compiled gradient, from 2,048 to 16,384 positions; the reference shows it can fail."""
  bytes_of = {}
  for length in (2048, 4096, 8192, 16384):
    compiled = jax.jit(functools.partial(_value_and_grads, op)).lower(*_shapes(length)).compile()
    bytes_of[length] = compiled.memory_analysis().temp_size_in_bytes
  assert (bytes_of[16384] < 1.2 * 8 * bytes_of[2048]) == is_linear, bytes_of
