"""The TPU kernel compiles for real chips, and needs no [S, S] array there."""

import functools

import jax
import jax.numpy as jnp
import pytest

from mem1_jax.ops.attention_tpu import attention_tpu, build_plan
from mem1_jax.parallel import topology

SLICES = {'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}


@functools.cache
def _memory(chip, dtype, length, heads, width, block=None):
  """Bytes of temporaries and of arguments of attention with its gradients, compiled for a chip."""
  device = topology.devices(SLICES[chip])[0]
  sharding = jax.sharding.SingleDeviceSharding(device)

  def value_and_grads(q, k, v, dout, key_end):
    plan = build_plan(key_end, block)
    out, vjp = jax.vjp(lambda q, k, v: attention_tpu(q, k, v, key_end, plan), q, k, v)
    return out, *vjp(dout)

  N, K = heads
  shapes = [jax.ShapeDtypeStruct((1, length, n, width), dtype, sharding=sharding)
            for n in (N, K, K, N)]
  shapes.append(jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=sharding))
  with topology.no_compilation_cache():
    compiled = jax.jit(value_and_grads).lower(*shapes).compile()
  assert compiled.as_text().count('tpu_custom_call') == 3  # forward, dq, dk and dv
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes, memory.argument_size_in_bytes


@pytest.mark.parametrize('chip', SLICES)
def test_compiles_for(chip):
  """Grouped heads of 128, in blocks of 512."""
  temporaries, arguments = _memory(chip, 'bfloat16', 2048, (4, 2), 128)
  assert temporaries < 2 * arguments


@pytest.mark.parametrize('dtype,heads,width,block', [
    ('float32', (4, 2), 128, 128), ('bfloat16', (14, 2), 64, 128), ('bfloat16', (4, 4), 32, 128)])
def test_compiles_for_other_sizes(dtype, heads, width, block):
  temporaries, arguments = _memory('v5e', dtype, 1024, heads, width, block)
  assert temporaries < 2 * arguments


def test_memory_grows_with_the_row_not_with_its_square():
  for length in (2048, 16384):  # the first has next to no temporaries outside of VMEM
    temporaries, arguments = _memory('v5e', 'bfloat16', length, (4, 2), 128)
    assert temporaries < 2 * arguments  # a copy of each input and of each output
  assert length**2 > 2 * arguments  # a mask alone


def test_blocks_that_the_vector_units_do_not_fit_are_refused():
  key_end, x = jnp.full((1, 128), 128), jnp.zeros((1, 128, 2, 8))
  with pytest.raises(NotImplementedError, match='multiple of 128 tokens, not 64'):
    jax.eval_shape(lambda: attention_tpu(x, x, x, key_end, build_plan(key_end, 64)))
