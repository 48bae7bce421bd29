"""From hidden states to log-probabilities: what sampler and learner share.

Also the one place where rows are shifted: the hidden state of token t-1 describes token t.
"""

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array

_MASKED = -1e30  # finite: probability 0 times it is 0, not nan


def shift_right(x_BS: Array) -> Array:
  """x[t-1] at index t and 0 at index 0; further axes are kept."""
  return jnp.pad(x_BS, ((0, 0), (1, 0)) + ((0, 0),) * (x_BS.ndim - 2))[:, :-1]


def sampling_logits(
    hidden: Array, head_DV: Array, temperature: Array | float, num_valid: Array | int) -> Array:
  """Logits [..., V] of the sampling distribution, at least float32.

      hidden @ head / temperature, ids >= num_valid masked

  Args:
    hidden: [..., D], after the final norm.
    head_DV: the unembedding; read in the dtype of `hidden`.
    temperature: > 0, the caller checks; greedy is the caller's argmax.
    num_valid: ids that may be sampled are 0…num_valid-1: the rest pads the vocabulary.
  """
  dtype = jnp.promote_types(jnp.float32, hidden.dtype)
  # As one matrix product: XLA's CPU gradient of a product with more axes takes twice as long.
  logits = jnp.matmul(
      hidden.reshape(-1, hidden.shape[-1]), head_DV.astype(hidden.dtype),
      preferred_element_type=dtype).reshape(hidden.shape[:-1] + head_DV.shape[1:])
  is_valid = jnp.broadcast_to(jnp.arange(head_DV.shape[1]) < num_valid, logits.shape)
  return jnp.where(is_valid, logits / temperature, _MASKED)


def token_logprobs(
    hidden_BSD: Array, head_DV: Array, tokens_BS: Array, temperature: Array | float,
    num_valid: Array | int, chunk: int = 256) -> tuple[Array, Array]:
  """Log-prob and entropy of the distribution each token was drawn from, aligned to the token.

      logprob[t] = log softmax(sampling_logits(hidden[t-1]))[tokens[t]],  0 at index 0
      entropy[t] = that softmax's entropy in nats,                        0 at index 0

  No [B, S, V] array exists, in the gradient either: logits are made, used and recomputed for
  `chunk` positions (of all rows) at a time.

  Returns:
    (logprob_BS, entropy_BS), at least float32.
  """
  B, S, D = hidden_BSD.shape
  chunk = min(chunk, S)
  num_chunks = -(-S // chunk)
  padding = num_chunks * chunk - S

  def chunked(x_BS):
    x_BS = jnp.pad(x_BS, ((0, 0), (0, padding)) + ((0, 0),) * (x_BS.ndim - 2))
    return jnp.moveaxis(x_BS.reshape(B, num_chunks, chunk, *x_BS.shape[2:]), 1, 0)

  @jax.checkpoint
  def one_chunk(head_DV, xs):
    hidden_BcD, tokens_Bc = xs
    logits_BcV = sampling_logits(hidden_BcD, head_DV, temperature, num_valid)
    logprob_BcV = jax.nn.log_softmax(logits_BcV)
    entropy_Bc = -(jnp.exp(logprob_BcV) * logprob_BcV).sum(-1)
    logprob_Bc = jnp.take_along_axis(logprob_BcV, tokens_Bc[..., None], axis=-1)[..., 0]
    return logprob_Bc, entropy_Bc

  # Position t describes t + 1 inside the scan; the result is shifted back.
  next_token_BS = jnp.pad(tokens_BS[:, 1:], ((0, 0), (0, 1)))
  _, described = jax.lax.scan(
      lambda _, xs: (None, one_chunk(head_DV, xs)), None,
      (chunked(hidden_BSD), chunked(next_token_BS)))
  return tuple(
      shift_right(jnp.moveaxis(x, 0, 1).reshape(B, -1)[:, :S]) for x in described)
