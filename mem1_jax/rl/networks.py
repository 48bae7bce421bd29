"""What PPO computes with: actor and critic as pure functions, and what is read from packed rows.

A critic is a network of its own, or a head on the actor's hidden states (`Networks.read`): then one
pass of the actor gives log-probs and values.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, Episodes, Params, overlay
from mem1_jax.ops import logprobs
from mem1_jax.rl.config import PPOConfig


@dataclasses.dataclass(frozen=True)
class Networks:
  """The pure functions that PPO trains."""

  hidden: Callable  # (policy, tokens_BS, position_BS, key_end_BS) -> hidden_BSD
  head: Callable  # policy -> head_DV, the unembedding
  value: Callable  # (value, tokens_BS, position_BS, key_end_BS) -> value_BS, unshifted
  read: Callable | None = None  # (value, hidden_BSD) -> value_BS, unshifted; called for `value`
  num_groups: int = 1  # of devices that share a micro-batch's rows

  def on(self, frozen: Params | None) -> 'Networks':
    """The same functions of what is trained; `frozen` has the parameters that it lacks."""
    def of(function):
      return lambda trained, *inputs: function(overlay(frozen, trained), *inputs)

    return dataclasses.replace(
        self, hidden=of(self.hidden), head=of(self.head), value=of(self.value))


def logprob(networks: Networks, config: PPOConfig, policy: Params,
            episodes: Episodes) -> tuple[Array, Array]:
  """(logprob_BS, entropy_BS) of the rows' generated tokens under `policy`, 0 for others."""
  return _logprob(networks, config, policy, _hidden(networks, policy, episodes), episodes)


def value(networks: Networks, policy: Params, value_params: Params, episodes: Episodes) -> Array:
  """value_BS before each token: read from the token that precedes it."""
  if networks.read is None:
    tags = episodes.tags
    value_BS = networks.value(value_params, episodes.tokens, tags.position, tags.key_end)
  else:
    value_BS = networks.read(value_params, _hidden(networks, policy, episodes))
  return logprobs.shift_right(value_BS.astype(jnp.float32))


def both(networks: Networks, config: PPOConfig, policy: Params, value_params: Params,
         episodes: Episodes) -> tuple[Array, Array, Array]:
  """(logprob_BS, entropy_BS, value_BS), as the functions above give them.

  A head on the actor reads the same pass as the log-probs, and the share
  `config.trunk_value_coef` of the gradient goes on from there into the actor.
  """
  if networks.read is None:
    return (*logprob(networks, config, policy, episodes),
            value(networks, policy, value_params, episodes))
  hidden_BSD = _hidden(networks, policy, episodes)
  read_BSD = still_BSD = jax.lax.stop_gradient(hidden_BSD)
  if config.trunk_value_coef:
    # The difference is 0: the value is that of `hidden`, to the bit.
    read_BSD = still_BSD + config.trunk_value_coef * (hidden_BSD - still_BSD)
  value_BS = networks.read(value_params, read_BSD).astype(jnp.float32)
  return (*_logprob(networks, config, policy, hidden_BSD, episodes),
          logprobs.shift_right(value_BS))


def _hidden(networks, policy, episodes):
  tags = episodes.tags
  return networks.hidden(policy, episodes.tokens, tags.position, tags.key_end)


def _logprob(networks, config, policy, hidden_BSD, episodes):
  return logprobs.token_logprobs(
      hidden_BSD, networks.head(policy), episodes.tokens, temperature=config.temperature,
      num_valid=config.num_valid, chunk=config.logprob_chunk,
      mask_BS=episodes.tags.is_generated, num_groups=networks.num_groups)
