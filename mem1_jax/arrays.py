"""Every pytree that crosses a package border, and the dimension key.

B rows or slots · T turns · S positions computed · M positions attended ·
P question capacity · C context capacity of a turn (carry) · R tokens per turn ·
L layers · D width · F ffn · V vocabulary · N query heads · K kv heads ·
G = N/K · H head width · E = K·H.

Every [B, S] float is aligned to the token it describes.
"""

import dataclasses
from typing import Any

import jax

Array = jax.Array
Params = Any  # a pytree of arrays
OptState = Any


def overlay(frozen: Params | None, trained: Params) -> Params:
  """The parameters of both trees, `trained`'s where both have a leaf; copies nothing.

  A network that is trained whole overlays all of `frozen`; adapters stand beside its leaves.
  """
  if not isinstance(trained, dict) or not frozen:
    return trained
  return frozen | {name: overlay(frozen.get(name), node) for name, node in trained.items()}


def pytree(cls):
  """A frozen dataclass that jax treats as a tree of its fields."""
  return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class Tags:
  """What each token of a packed row is, and who may see it (ops/masks.py)."""

  kind: Array  # [B, S] int32, types.Kind
  episode: Array  # [B, S] int32, the row's episode it belongs to; -1 padding
  turn: Array  # [B, S] int32, turn that computed it; -1 question and padding
  position: Array  # [B, S] int32, rotary position
  key_end: Array  # [B, S] int32, first row index that cannot see it; 0 padding
  is_generated: Array  # [B, S] bool, sampled by the policy: carries the loss


@pytree
class KVCache:
  """Keys and values of what a slot has read; `length` tokens of each row count."""

  k: Array  # [L, B, M, E]: heads side by side, as a TPU stores them without padding
  v: Array  # [L, B, M, E]
  length: Array  # [B] int32


@pytree
class MemoryState:
  """All that a slot reads at its next turn: the agents' constant memory.

  The cache is first cut to its leading `keep` tokens, then the `length` tokens
  of context are read. A constant-memory agent keeps the question only.
  """

  tokens: Array  # [B, C] int32
  position: Array  # [B, C] int32
  length: Array  # [B] int32, ≥ 1 for a live slot, 0 for an empty one
  keep: Array  # [B] int32, cached tokens that stay visible


@pytree
class Turn:
  """One decode call: what each slot wrote."""

  tokens: Array  # [B, R] int32, pad id past the end
  logprob: Array  # [B, R] float32, of the sampling distribution; 0 past the end
  length: Array  # [B] int32
  stop: Array  # [B] int32, types.Stop


@pytree
class Episodes:
  """Packed rows of whole episodes, several to a row where they fit."""

  tokens: Array  # [B, S] int32
  tags: Tags  # [B, S] each
  logprob: Array  # [B, S] float32, the sampler's; 0 where not generated
  reward: Array  # [B, S] float32, on the token that earned it


@pytree
class TrainBatch:
  """Scored episodes: all that a PPO update reads."""

  episodes: Episodes
  old_logprob: Array  # [B, S] float32, what ratios are taken to; 0 where not generated
  ref_logprob: Array  # [B, S] float32, 0 where not generated
  value: Array  # [B, S] float32, estimate before the token
  advantage: Array  # [B, S] float32
  target: Array  # [B, S] float32, value target


@pytree
class TrainState:
  """All that PPO training changes. The frozen reference travels beside it.

  With LoRA, `policy` and `value` hold what stands beside the reference: adapters, a value head.
  """

  step: Array  # [] int32, updates done
  policy: Params
  value: Params
  policy_opt: OptState
  value_opt: OptState
  kl_coef: Array  # [] float32
  skipped: Array  # [] int32, non-finite updates skipped in a row
