"""From hidden states to log-probabilities: what sampler and learner share.

Also the one place where rows are shifted: the hidden state of token t-1 describes token t.
"""

import functools

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, pytree

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
    num_valid: Array | int, chunk: int = 256, mask_BS: Array | None = None,
    num_groups: int = 1) -> tuple[Array, Array]:
  """Log-prob and entropy of the distribution each token was drawn from, aligned to the token.

      logprob[t] = log softmax(sampling_logits(hidden[t-1]))[tokens[t]],  0 at index 0
      entropy[t] = that softmax's entropy in nats,                        0 at index 0

  No [B, S, V] array exists, in the gradient either. Each row's wanted tokens are brought to its
  front, here 3 and 2 of 6,

      mask   0 1 0 1 1 0     →  1 3 4 | 0 2 5
             0 0 0 0 1 1        4 5 0 | 1 2 3

  and logits are made, used and recomputed for `chunk` of them (of all rows) at a time, up to the
  longest row's: cost follows what is wanted, here 3 positions of 6.

  Args:
    hidden_BSD: after the final norm.
    head_DV: the unembedding; its gradient is summed over chunks in float32 at least.
    tokens_BS: int32.
    temperature, num_valid: as `sampling_logits`; neither gets a gradient.
    chunk: positions whose logits exist at one time, ≥ 1.
    mask_BS: bool, whose values are wanted; the others' are 0 and have no gradient. None: all.
    num_groups: of devices over which rows are split, a divisor of B: each sums its own gradient
      of the head, and these are added once, not once a chunk.

  Returns:
    (logprob_BS, entropy_BS), at least float32.
  """
  # Position t describes t + 1 below; the result is shifted back.
  is_wanted_BS = jnp.ones(tokens_BS.shape, bool) if mask_BS is None else mask_BS
  is_wanted_BS, next_token_BS = (
      jnp.pad(x_BS[:, 1:], ((0, 0), (0, 1))) for x_BS in (is_wanted_BS, tokens_BS))
  described = _described(
      (min(chunk, tokens_BS.shape[1]), num_groups), hidden_BSD, head_DV, next_token_BS, is_wanted_BS,
      temperature, num_valid)
  return tuple(map(shift_right, described))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _described(sizes, hidden_BSD, head_DV, token_BS, is_wanted_BS, temperature, num_valid):
  """(logprob_BS, entropy_BS) of token[t] by hidden[t]; 0 where it is not wanted."""
  chunk, _ = sizes
  order = _order(is_wanted_BS, chunk)
  hidden_BPD, token_BP = _along(hidden_BSD, order.first_BP), _along(token_BS, order.first_BP)

  def visit(i, found):
    logits_BcV = sampling_logits(_cut(hidden_BPD, i, chunk), head_DV, temperature, num_valid)
    logprob_BcV = jax.nn.log_softmax(logits_BcV)
    entropy_Bc = -(jnp.exp(logprob_BcV) * logprob_BcV).sum(-1)
    token_Bc1 = _cut(token_BP, i, chunk)[..., None]
    logprob_Bc = jnp.take_along_axis(logprob_BcV, token_Bc1, axis=-1)[..., 0]
    return tuple(_put(x_BP, x_Bc, i) for x_BP, x_Bc in zip(found, (logprob_Bc, entropy_Bc)))

  zeros_BP = jnp.zeros(token_BP.shape, jnp.promote_types(jnp.float32, hidden_BSD.dtype))
  with jax.named_scope('loss_rows'):
    found = jax.lax.fori_loop(0, order.num_chunks, visit, (zeros_BP, zeros_BP))
  return tuple(jnp.where(is_wanted_BS, _along(x_BP, order.back_BS), 0) for x_BP in found)


def _described_fwd(sizes, *inputs):
  return _described(sizes, *inputs), inputs


def _described_bwd(sizes, inputs, cotangents):
  """d logprob / d logits = onehot - p; d entropy / d logits = -p (log p + entropy)."""
  chunk, G = sizes
  hidden_BSD, head_DV, token_BS, is_wanted_BS, temperature, num_valid = inputs
  (D, V), order = head_DV.shape, _order(is_wanted_BS, chunk)
  hidden_BPD, token_BP = _along(hidden_BSD, order.first_BP), _along(token_BS, order.first_BP)
  d_logprob_BP, d_entropy_BP = (
      _along(jnp.where(is_wanted_BS, x_BS, 0), order.first_BP) for x_BS in cotangents)
  dtype, wide = hidden_BSD.dtype, jnp.promote_types(jnp.float32, hidden_BSD.dtype)
  id_11V = jnp.arange(V)[None, None]

  def visit(i, grads):
    d_hidden_BPD, d_head_GDV = grads
    hidden_BcD, d_logprob_Bc1, d_entropy_Bc1 = (
        _cut(x, i, chunk) for x in (hidden_BPD, d_logprob_BP[..., None], d_entropy_BP[..., None]))
    logprob_BcV = jax.nn.log_softmax(
        sampling_logits(hidden_BcD, head_DV, temperature, num_valid))
    p_BcV = jnp.exp(logprob_BcV)
    entropy_Bc1 = -(p_BcV * logprob_BcV).sum(-1, keepdims=True)
    d_logits_BcV = jnp.where(id_11V == _cut(token_BP, i, chunk)[..., None], d_logprob_Bc1, 0)
    d_logits_BcV -= p_BcV * (d_logprob_Bc1 + d_entropy_Bc1 * (logprob_BcV + entropy_Bc1))
    d_logits_BcV = jnp.where(id_11V < num_valid, d_logits_BcV / temperature, 0).astype(dtype)
    d_hidden_TD = jnp.matmul(
        d_logits_BcV.reshape(-1, V), head_DV.astype(dtype).T, preferred_element_type=wide)
    d_head_GDV += jnp.einsum(
        'gtd,gtv->gdv', hidden_BcD.reshape(G, -1, D), d_logits_BcV.reshape(G, -1, V),
        preferred_element_type=wide)
    d_hidden_BcD = d_hidden_TD.reshape(hidden_BcD.shape).astype(dtype)
    return _put(d_hidden_BPD, d_hidden_BcD, i), d_head_GDV

  zeros = jnp.zeros_like(hidden_BPD), jnp.zeros((G, D, V), wide)
  with jax.named_scope('loss_rows'):
    d_hidden_BPD, d_head_GDV = jax.lax.fori_loop(0, order.num_chunks, visit, zeros)
  d_hidden_BSD = _along(d_hidden_BPD, order.back_BS)
  return d_hidden_BSD, d_head_GDV.sum(0).astype(head_DV.dtype), None, None, None, None


_described.defvjp(_described_fwd, _described_bwd)


@pytree
class _Order:
  """Where positions go so that each row's wanted ones come first, P = S rounded up to chunks."""

  first_BP: Array  # [B, P] int32, the position that comes to each place
  back_BS: Array  # [B, S] int32, the place of each position
  num_chunks: Array  # [] int32, that hold a wanted position of some row


def _order(is_wanted_BS, chunk):
  S = is_wanted_BS.shape[1]
  first_BS = jnp.argsort(~is_wanted_BS, axis=1, stable=True)
  longest = is_wanted_BS.sum(1, dtype=jnp.int32).max()
  # Places past S repeat the last position, which describes no token: no gradient comes from them.
  return _Order(
      jnp.pad(first_BS, ((0, 0), (0, -S % chunk)), mode='edge'), jnp.argsort(first_BS, axis=1),
      (longest + chunk - 1) // chunk)


def _along(x_BS, index_BP):
  """x[b, index[b, p]], further axes kept: within each row, so rows may lie on many devices."""
  return jnp.take_along_axis(
      x_BS, index_BP.reshape(index_BP.shape + (1,) * (x_BS.ndim - 2)), axis=1)


def _cut(x_BP, i, chunk):
  return jax.lax.dynamic_slice_in_dim(x_BP, i * chunk, chunk, axis=1)


def _put(x_BP, x_Bc, i):
  return jax.lax.dynamic_update_slice_in_dim(x_BP, x_Bc, i * x_Bc.shape[1], axis=1)
