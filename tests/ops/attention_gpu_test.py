"""The GPU kernel is lowered for CUDA by Triton, without a GPU."""

import jax
import jax.numpy as jnp
import pytest

from mem1_jax.ops.attention_gpu import attention_gpu, build_plan

S = 512
H100 = jax.sharding.AbstractDevice(
    device_kind='NVIDIA H100 80GB HBM3', num_cores=None, platform='gpu')
ONE_GPU = jax.sharding.AbstractMesh(
    (1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), abstract_device=H100)


def _value_and_grads(q, k, v, dout, key_end):
  plan = build_plan(key_end)
  out, vjp = jax.vjp(lambda q, k, v: attention_gpu(q, k, v, key_end, plan), q, k, v)
  return out, *vjp(dout)


@pytest.mark.parametrize('dtype,heads,width', [
    ('bfloat16', (12, 2), 128), ('bfloat16', (14, 2), 64), ('float16', (4, 4), 32),
    ('float32', (4, 2), 128), ('bfloat16', (4, 2), 24)])
def test_is_lowered_for_cuda(dtype, heads, width):
  N, K = heads
  shapes = [jax.ShapeDtypeStruct((2, S, n, width), dtype) for n in (N, K, K, N)]
  shapes.append(jax.ShapeDtypeStruct((2, S), jnp.int32))
  # It is not among the calls that jax promises to keep: nobody saves this program.
  checks = [jax.export.DisabledSafetyCheck.custom_call('__gpu$xla.gpu.triton')]
  with jax.sharding.use_abstract_mesh(ONE_GPU):
    exported = jax.export.export(
        jax.jit(_value_and_grads), platforms=['cuda'], disabled_checks=checks)(*shapes)
  assert exported.mlir_module().count('custom_call @__gpu$xla.gpu.triton') == 3  # forward, dq, dkv
  assert [(x.shape, x.dtype) for x in exported.out_avals] == [
      (shapes[i].shape, jnp.dtype(dtype)) for i in (0, 0, 1, 2)]


def test_other_dtypes_are_refused():
  with jax.enable_x64(True):
    x, key_end = jnp.zeros((1, 128, 2, 16), 'float64'), jnp.full((1, 128), 128, jnp.int32)
    with pytest.raises(NotImplementedError, match='not float64'):
      jax.eval_shape(lambda: attention_gpu(x, x, x, key_end, build_plan(key_end)))
