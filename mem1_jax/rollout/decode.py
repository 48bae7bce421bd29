"""What the device programs of a rollout are made of: prefill, decode, copies of what is live."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mem1_jax.arrays import Array, KVCache, MemoryState, Params, Turn, pytree
from mem1_jax.model import cache as cache_lib
from mem1_jax.ops.logprobs import sampling_logits
from mem1_jax.rollout.sampling import Sampling, sample
from mem1_jax.types import Stop

PERIOD = 8  # longest piece that a turn may be found to repeat, tokens
DROPPED = 2**30  # no row has this index: what is written there is dropped


@pytree
class Questions:
  """What is read into rows of the store of questions; a group's rows follow one another."""

  row: Array  # [g] int32, of the group's part of the store; `DROPPED` for none
  tokens: Array  # [g, P] int32
  position: Array  # [g, P] int32
  length: Array  # [g] int32, 0 for none


@pytree
class Refill:
  """Turns that begin in free slots; a group's slots follow one another."""

  slot: Array  # [g] int32, of the group's slots; `DROPPED` for none
  question: Array  # [g] int32, row of the group's part of the store
  is_own: Array  # [g] bool, the slot keeps what it holds: no question is copied into it
  memory: MemoryState  # [g, C]; `keep` leading tokens of the question, or of the slot's own
  ids: Array  # [g, 3] int32: task, sample and turn, of which keys are made


@pytree
class Store:
  """What slots are refilled from."""

  questions: KVCache  # [L, Q, P, E]
  desk: KVCache  # [L, g, …]: rows in which questions and contexts are read; nothing stays there


@pytree
class Slots:
  """Turns under way; what is not active is free, or waits for the host to read it."""

  cache: KVCache  # [L, B, M, E]
  is_active: Array  # [B] bool
  automaton: Array  # [B] int32
  recent: Array  # [B, p] int32, the last tokens, the newest first
  repeats: Array  # [B, p] int32, tokens in a row that were the same as the one p + 1 before them
  hidden: Array  # [B, D], of the last token
  key: Array  # [B, 2] uint32
  position: Array  # [B] int32, of the first token sampled
  turn: Turn  # [B, R]


@pytree
class Report:
  """What a call of `decode` did, the same on every device."""

  num_steps: Array  # [] int32
  num_sampled: Array  # [] int32, tokens of all slots
  num_active: Array  # [] int32, slots that are left active


@dataclasses.dataclass(frozen=True)
class Automaton:
  """Of rollout/stop.py, and the ids that mean something."""

  start: int
  stop: int
  eos_id: int
  pad_id: int


def prefill(policy, params, cache, tokens_BC, position_BC, length_B, chunk):
  """Reads `length` tokens per row in chunks, as many as the longest row needs.

  Returns the cache and the hidden state of each row's last token, [B, D].
  """
  num_chunks = -(-tokens_BC.shape[1] // chunk)
  pad = ((0, 0), (0, num_chunks * chunk - tokens_BC.shape[1]))
  tokens_BC, position_BC = jnp.pad(tokens_BC, pad), jnp.pad(position_BC, pad)
  hidden_shape = jax.eval_shape(policy.head, params).shape[0]
  dtype = jax.eval_shape(
      policy.extend, params, tokens_BC[:, :1], position_BC[:, :1], length_B, cache)[0].dtype

  def step(i, state):
    cache, last_BD = state
    begin = i * chunk
    tokens = jax.lax.dynamic_slice_in_dim(tokens_BC, begin, chunk, axis=1)
    position = jax.lax.dynamic_slice_in_dim(position_BC, begin, chunk, axis=1)
    num_B = jnp.clip(length_B - begin, 0, chunk)
    hidden_BTD, cache = policy.extend(params, tokens, position, num_B, cache)
    index_B11 = jnp.maximum(num_B - 1, 0)[:, None, None]
    hidden_BD = jnp.take_along_axis(hidden_BTD, index_B11, axis=1)[:, 0]
    return cache, jnp.where((num_B > 0)[:, None], hidden_BD, last_BD)

  last_BD = jnp.zeros((tokens_BC.shape[0], hidden_shape), dtype)
  live_chunks = -(-jnp.max(length_B) // chunk)
  with jax.named_scope('prefill'):
    return jax.lax.fori_loop(0, live_chunks, step, (cache, last_BD))


def decode(policy: Any, params: Params, slots: Slots, options: Sampling, table: Array,
           automaton: Automaton, config: Any, enough: Array) -> tuple[Slots, Report]:
  """Samples until `enough` active rows have stopped, or for `decode_steps`; all that was sampled is
  in the cache.
  """
  head_DV = policy.head(params)
  limit = jnp.minimum(options.max_tokens, config.turn_capacity)
  num_before = _num_active(slots)
  index_1R = jnp.arange(config.turn_capacity)[None]

  def body(state):
    slots, step, num_sampled, num_active = state
    is_active_B, old = slots.is_active, slots.turn
    logits_BV = sampling_logits(slots.hidden, head_DV, options.temperature, config.num_valid)
    key_B = jax.random.wrap_key_data(slots.key, impl='threefry2x32')
    token_B, logprob_B = sample(logits_BV, key_B, old.length, options)
    automaton_B = table[slots.automaton, token_B].astype(jnp.int32)
    is_same_Bp = slots.recent == token_B[:, None]
    recent_Bp = jnp.concatenate([token_B[:, None], slots.recent[:, :-1]], axis=1)
    repeats_Bp = jnp.where(is_same_Bp, slots.repeats + 1, 0)
    stop_B = jnp.full_like(token_B, Stop.LENGTH)
    if config.max_repetition:
      is_stuck_B = repeats_Bp.max(axis=1) >= config.max_repetition
      stop_B = jnp.where(is_stuck_B, Stop.REPETITION, stop_B)
    stop_B = jnp.where(automaton_B == automaton.stop, Stop.TAG,
                       jnp.where(token_B == automaton.eos_id, Stop.EOS, stop_B))
    # Not a scatter: where slots are split, it would send what each writes to all.
    is_at_BR = (index_1R == old.length[:, None]) & is_active_B[:, None]
    turn = Turn(
        jnp.where(is_at_BR, token_B[:, None], old.tokens),
        jnp.where(is_at_BR, logprob_B[:, None], old.logprob),
        old.length + is_active_B,
        jnp.where(is_active_B, stop_B, old.stop).astype(jnp.int32))
    hidden_B1D, cache = policy.extend(
        params, token_B[:, None], (slots.position + old.length)[:, None],
        is_active_B.astype(jnp.int32), slots.cache)
    slots = Slots(cache, is_active_B & (stop_B == Stop.LENGTH) & (turn.length < limit), automaton_B,
                  recent_Bp, repeats_Bp, hidden_B1D[:, 0], slots.key, slots.position, turn)
    return slots, step + 1, num_sampled + num_active, _num_active(slots)

  def goes_on(state):
    _, step, _, num_active = state
    return (step < config.decode_steps) & (num_active > jnp.maximum(num_before - enough, 0))

  with jax.named_scope('decode'):
    slots, *counts = jax.lax.while_loop(
        goes_on, body, (slots, jnp.int32(0), jnp.int32(0), num_before))
  return slots, Report(*counts)


def _num_active(slots: Slots) -> Array:
  """Over all devices, which agree on it once a step."""
  return slots.is_active.sum(dtype=jnp.int32)


def lay(source: KVCache, row: Array, is_it: Array, keep: Array, desk: KVCache) -> KVCache:
  """The desk with the leading `keep` tokens of rows of `source`, where `is_it`; on one device."""
  length = jnp.minimum(keep, jnp.take(source.length, row, mode='clip'))
  own_row = jnp.arange(row.shape[0], dtype=jnp.int32)
  return cache_lib.copy(dataclasses.replace(source, length=length), row, desk,
                        jnp.where(is_it, own_row, DROPPED))


def put(slots: Slots, index: Array, new: Slots) -> Slots:
  """The slots with those rows replaced; on one device."""
  rest = jax.tree.map(lambda x, y: x.at[index].set(y, mode='drop'),
                      dataclasses.replace(slots, cache=None), dataclasses.replace(new, cache=None))
  return dataclasses.replace(rest, cache=cache_lib.copy(new.cache, None, slots.cache, index))
