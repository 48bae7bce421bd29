"""The output and the log-sum-exp are kept where a remat policy names them, and computed once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.ops import flash


def _forward(static, q, k, v, key_end, plan):
  power, = static
  del key_end, plan
  return jnp.tanh(q) * k * v**power, jnp.zeros(q.shape)  # the one tanh of the program


def _backward(static, residuals, dout):
  power, = static
  q, k, v, key_end, plan, out, lse = residuals
  del key_end, plan, lse
  slope = 1 - (out / (k * v**power))**2
  return (dout * slope * k * v**power, dout * out / k, dout * power * out / v)


def _loss(q, k, v):
  return flash.attend(_forward, _backward, (2,), q, k, v, jnp.zeros((1, 3), jnp.int32), None).sum()


INPUTS = [jnp.array([[0.5, 1.0, -0.3]]), jnp.array([[2.0, 1.0, 3.0]]), jnp.array([[1.0, 2.0, 0.5]])]


def test_the_gradients_are_those_of_backward():
  expected = jax.grad(lambda q, k, v: (jnp.tanh(q) * k * v**2).sum(), (0, 1, 2))(*INPUTS)
  for grad, reference in zip(jax.grad(_loss, (0, 1, 2))(*INPUTS), expected, strict=True):
    np.testing.assert_allclose(grad, reference, rtol=1e-5)


@pytest.mark.parametrize('names,num_forward', [
    (('attention_out', 'attention_lse'), 1), (('attention_lse',), 2), ((), 2)])
def test_a_policy_that_names_both_spares_a_forward_pass(names, num_forward):
  policy = jax.checkpoint_policies.save_only_these_names(*names)
  gradient = jax.grad(jax.checkpoint(lambda *xs: jnp.sin(_loss(*xs)), policy=policy))
  assert str(jax.make_jaxpr(gradient)(*INPUTS)).count(' tanh ') == num_forward
