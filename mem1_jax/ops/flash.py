"""What flash attention (arXiv 2205.14135) is to autodiff, whichever kernel computes it.

The forward pass keeps the output and the log-sum-exp of each query's scores, from which the
backward pass makes the weights again. Both are named ('attention_out', 'attention_lse') for the
remat policies of model/transformer.py: to recompute them costs a whole forward pass.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from mem1_jax.arrays import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def attend(forward: Callable, backward: Callable, static: tuple, q: Array, k: Array, v: Array,
           key_end: Array, plan: Any) -> Array:
  """The output of `forward`, with the gradients of `backward`; arrays in the kernel's own forms.

  Args:
    forward: (static, q, k, v, key_end, plan) → (output, log-sum-exp).
    backward: (static, (q, k, v, key_end, plan, output, log-sum-exp), gradient of the output) →
      (dq, dk, dv).
    static: hashable settings of both.
  """
  return forward(static, q, k, v, key_end, plan)[0]


def _fwd(forward, backward, static, q, k, v, key_end, plan):
  del backward
  out, lse = forward(static, q, k, v, key_end, plan)
  out, lse = checkpoint_name(out, 'attention_out'), checkpoint_name(lse, 'attention_lse')
  return out, (q, k, v, key_end, plan, out, lse)


def _bwd(forward, backward, static, residuals, dout):
  del forward
  return *backward(static, residuals, dout), None, None


attend.defvjp(_fwd, _bwd)
