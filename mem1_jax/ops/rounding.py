"""Updates of parameters in bfloat16 that no rounding swallows.

A bfloat16 has 8 significant bits: nearest rounding drops an update of less than 2^-9 of its
parameter, so a learning rate of 1e-6 changes next to nothing. Stochastic rounding goes to one of
the two neighbours with the probability that makes the mean right (Gupta et al. 2015, arXiv
1502.02551): small updates add up, without masters in float32.
"""

import zlib

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, Params


def apply_updates(params: Params, updates: Params, key: Array) -> Params:
  """params + updates, each in the dtype of the parameter; bfloat16 is rounded stochastically.

  Args:
    key: consumed by bfloat16 parameters, folded by each one's path; the others do not depend on it.
  """
  def add(path, param, update):
    if param.dtype != jnp.bfloat16:
      return (param + update).astype(param.dtype)  # as optax.apply_updates
    name = zlib.crc32(jax.tree_util.keystr(path).encode())
    return stochastic(param.astype(jnp.float32) + update.astype(jnp.float32),
                      jax.random.fold_in(key, name))

  return jax.tree_util.tree_map_with_path(add, params, updates)


def stochastic(x: Array, key: Array) -> Array:
  """float32 `x` in bfloat16, up or down with a mean of x; what bfloat16 holds stays as it is.

      low 16 bits of x + a random number of 16 bits: the carry rounds away from 0

  Not finite numbers are cast as usual.
  """
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  high = ((bits + noise) >> 16).astype(jnp.uint16)
  rounded = jax.lax.bitcast_convert_type(high, jnp.bfloat16)
  return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
