"""From logits to a token, the same way for every slot whatever the others do."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import Array, pytree

_PIECES = 256  # of the vocabulary, at most


@pytree
class Sampling:
  """How to sample. All are run-time values: changing them recompiles nothing."""

  temperature: Array  # [] float32, > 0; also divides the logits of log-probs
  is_greedy: Array  # [] bool, take the likeliest token
  top_k: Array  # [] int32, 0 for all
  top_p: Array  # [] float32 in (0, 1], 1 for all
  max_tokens: Array  # [] int32 ≤ R, tokens a turn may generate


def sampling(temperature: float = 1.0, is_greedy: bool = False, top_k: int = 0,
             top_p: float = 1.0, max_tokens: int = 1) -> Sampling:
  """Checked sampling options.

  Raises:
    ValueError: on a value out of its range.
  """
  if not temperature > 0:
    raise ValueError(f'temperature {temperature} must be > 0; for greedy use is_greedy.')
  if top_k < 0 or not 0 < top_p <= 1:
    raise ValueError(f'top_k {top_k} must be ≥ 0 and top_p {top_p} in (0, 1].')
  if max_tokens < 1:
    raise ValueError(f'max_tokens {max_tokens} must be ≥ 1.')
  return Sampling(np.float32(temperature), np.bool_(is_greedy), np.int32(top_k),
                  np.float32(top_p), np.int32(max_tokens))


def slot_keys(seed: Array, iteration: Array, task_B: Array, sample_B: Array,
              turn_B: Array) -> Array:
  """[B] keys folded by (seed, iteration, task, sample, turn): no slot number in them.

  Consumes no key; the sampler folds the position in.
  """
  key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), iteration)

  def one(task, sample, turn):
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, task), sample), turn)

  return jax.vmap(one)(task_B, sample_B, turn_B)


def truncate(logits_BV: Array, top_k: Array, top_p: Array) -> Array:
  """Logits with all but the top k, and all past the top-p nucleus, at -inf.

  The nucleus is the smallest set of likeliest tokens whose mass reaches top_p
  (arXiv 1904.09751). Sorting costs V log V, hence only where it is asked for.
  """
  num = logits_BV.shape[-1]

  def cut(logits_BV):
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    rank_1V = jnp.arange(num)[None, :]
    k = jnp.where(top_k > 0, top_k, num)
    is_kept_BV = (rank_1V < k) & (before_BV < top_p)
    threshold_B1 = jnp.min(jnp.where(is_kept_BV, sorted_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)

  return jax.lax.cond((top_k > 0) | (top_p < 1), cut, lambda x: x, logits_BV)


def sample(logits_BV: Array, key_B: Array, step_B: Array, options: Sampling):
  """One token per slot, [B] int32, and its log-prob under the untruncated softmax, [B].

  `step_B` counts the tokens of each slot's turn: with the key it fixes the random numbers.
  """
  def draw(logits_BV):
    uniform_B2 = jax.vmap(lambda key, step: jax.random.uniform(
        jax.random.fold_in(key, step), (2,), jnp.float32))(key_B, step_B)
    return categorical(truncate(logits_BV, options.top_k, options.top_p), uniform_B2)

  token_B = jax.lax.cond(options.is_greedy, lambda x: jnp.argmax(x, axis=-1).astype(jnp.int32),
                         draw, logits_BV)
  logprob_BV = jax.nn.log_softmax(logits_BV, axis=-1)
  logprob_B = jnp.take_along_axis(logprob_BV, token_B[:, None], axis=-1)[:, 0]
  return token_B, logprob_B


def categorical(logits_BV: Array, uniform_B2: Array) -> Array:
  """A token of each row's softmax, [B] int32, from two uniform numbers in [0, 1).

  By the inverse of the distribution function: a piece of the vocabulary first, a token of it then,
  so that no sum is long and no uniform number too coarse for rare tokens. It takes an exponential
  for each id, which the log-prob needs, too; a Gumbel number for each would cost more than the
  logits of a small model.
  """
  B, V = logits_BV.shape
  num_pieces = math.gcd(V, _PIECES)  # a power of two: devices that share the vocabulary have whole ones
  weight_BV = jnp.exp(logits_BV - logits_BV.max(axis=-1, keepdims=True))
  weight_Bnp = weight_BV.reshape(B, num_pieces, -1)
  piece_B = _invert(weight_Bnp.sum(-1), uniform_B2[:, 0])
  # Not a gather, which would bring all pieces to every device.
  is_it_Bn1 = (jnp.arange(num_pieces)[None] == piece_B[:, None])[..., None]
  weight_Bp = jnp.where(is_it_Bn1, weight_Bnp, 0).sum(1)
  return piece_B * (V // num_pieces) + _invert(weight_Bp, uniform_B2[:, 1])


def _invert(weight_Bn: Array, uniform_B: Array) -> Array:
  """The first index at which the sum of weights passes the uniform share of all."""
  sum_Bn = jnp.cumsum(weight_Bn, axis=-1)
  # A uniform number is a whole float below 1: its share of the sum is below the sum.
  return jnp.argmax(sum_Bn > uniform_B[:, None] * sum_Bn[:, -1:], axis=-1).astype(jnp.int32)
