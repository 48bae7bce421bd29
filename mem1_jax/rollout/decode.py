"""The two device programs of a rollout: read a question, take a turn.

Both have fixed shapes whatever the number of turns, questions or live slots, so
each compiles once. A slot's cache holds `[question | context | generation]`
without gaps; a turn begins by cutting it to the tokens that stay visible.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import Array, KVCache, MemoryState, Params, Turn, pytree
from mem1_jax.model import cache as cache_lib
from mem1_jax.ops.logprobs import sampling_logits
from mem1_jax.parallel import multihost, sharding
from mem1_jax.rollout.sampling import Sampling, sample, sampling
from mem1_jax.rollout.stop import build_stop_table
from mem1_jax.types import Stop

_PERIOD = 8  # longest piece that a turn may be found to repeat, tokens
_FEWEST = 4  # slots that still halve their number as turns end: fewer are not worth a program


@dataclasses.dataclass(frozen=True)
class EngineConfig:
  """Capacities of the rollout programs: all that fixes their shapes."""

  num_slots: int  # B
  question_capacity: int  # P, tokens
  context_capacity: int  # C, tokens
  turn_capacity: int  # R, tokens
  cache_capacity: int  # M, tokens
  prefill_chunk: int  # tokens read per step of a prefill
  num_valid: int  # vocabulary ids below it may be sampled
  max_repetition: int = 0  # tokens that may repeat what was `_PERIOD` or less before; 0: any

  def __post_init__(self):
    need = self.question_capacity + self.context_capacity + self.turn_capacity
    if self.max_repetition < 0:
      raise ValueError(f'max_repetition {self.max_repetition} is below 0; 0 is for none.')
    if self.cache_capacity < need:
      raise ValueError(f'cache_capacity {self.cache_capacity} is below question + context + turn '
                       f'= {need} tokens; raise it.')


class Engine:
  """Compiled `read` and `take_turn` over one cache of fixed size.

  The stop table is the automaton of rollout/stop.py over the vocabulary. Parameters, cache and
  slots lie on the policy's mesh; arrays of the host are put there, each slot as the process has it
  that owns it (parallel/multihost.py).

  Args:
    params: the shardings of the parameters, or one for all; None for the policy's own, without
      adapters.

  Attributes:
    slots, whole: the shardings of arrays [B, …], and of what every device has.
    params: the shardings of the parameters.
    cache, cache_shardings: shapes and shardings of the cache.
  """

  def __init__(self, policy: Any, config: EngineConfig, token_bytes, eos_id: int, pad_id: int,
               params: Params | None = None):
    self.config = config
    self._policy = policy
    self._host_table, start, stop = build_stop_table(token_bytes)
    self._automaton = _Automaton(int(start), int(stop), eos_id, pad_id)
    empty = functools.partial(policy.init_cache, config.num_slots, config.cache_capacity)
    self.params = params = policy.shardings() if params is None else params
    self.cache = jax.eval_shape(empty)
    cache = self.cache_shardings = cache_lib.shardings(policy.mesh, self.cache)
    slots, whole = sharding.rows(policy.mesh, config.num_slots), sharding.whole(policy.mesh)
    self.slots, self.whole = slots, whole
    # Where the slots are split over devices, half of them would have to bring their cache along.
    self._fewest = _FEWEST if slots.is_fully_replicated else config.num_slots
    self.init_cache = jax.jit(empty, out_shardings=cache)
    self._read = jax.jit(
        self._read_program, donate_argnums=1, in_shardings=(params, cache, slots, slots, slots),
        out_shardings=cache)
    self._turn = jax.jit(
        self._turn_program, donate_argnums=1,
        in_shardings=(params, cache, whole, slots, slots, whole), out_shardings=(slots, cache))

  @functools.cached_property
  def _table(self) -> Array:
    return multihost.put(self._host_table, self.whole)

  def read(self, params: Params, cache: KVCache, tokens_BP, position_BP, length_B) -> KVCache:
    """Reads new questions into the slots with `length > 0`; other slots stay as they are."""
    question = multihost.put_rows((tokens_BP, position_BP, length_B), self.slots)
    return self._read(params, cache, *question)

  def take_turn(self, params: Params, cache: KVCache, memory: MemoryState, key_B,
                options: Sampling) -> tuple[Turn, KVCache]:
    """One turn of every slot with `memory.length > 0`. The cache is donated."""
    memory = multihost.put_rows(memory, self.slots)
    options = multihost.put(options, self.whole)
    return self._turn(params, cache, self._table, memory, key_B, options)

  def lower_turn(self, params: Params) -> jax.stages.Lowered:
    """The program of a turn for shapes of parameters, not compiled: nothing is computed."""
    B, C = self.config.num_slots, self.config.context_capacity
    def array(*shape):
      return jax.ShapeDtypeStruct(shape, np.int32)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))
    options = jax.eval_shape(lambda: sampling(max_tokens=1))
    memory = MemoryState(array(B, C), array(B, C), array(B), array(B))
    table = jax.ShapeDtypeStruct(self._host_table.shape, self._host_table.dtype)
    return self._turn.lower(params, self.cache, table, memory, keys, options)

  def _read_program(self, params, cache, tokens_BP, position_BP, length_B):
    is_new_B = length_B > 0
    old_B = cache.length
    cache = dataclasses.replace(cache, length=jnp.where(is_new_B, 0, old_B))
    cache, _ = _prefill(self._policy, params, cache, tokens_BP, position_BP, length_B,
                        self.config.prefill_chunk)
    return cache

  def _turn_program(self, params, cache, table, memory, key_B, options):
    cache = dataclasses.replace(cache, length=jnp.minimum(memory.keep, cache.length))
    cache, hidden_BD = _prefill(self._policy, params, cache, memory.tokens, memory.position,
                                memory.length, self.config.prefill_chunk)
    last_B = jnp.maximum(memory.length - 1, 0)[:, None]
    position_B = jnp.take_along_axis(memory.position, last_B, axis=1)[:, 0] + 1
    return _decode(self._policy, params, cache, hidden_BD, position_B, memory.length > 0, key_B,
                   options, table, self._automaton, self.config, self._fewest)


def _prefill(policy, params, cache, tokens_BC, position_BC, length_B, chunk):
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


@dataclasses.dataclass(frozen=True)
class _Automaton:
  start: int
  stop: int
  eos_id: int
  pad_id: int


@pytree
class _Rows:
  """Slots in the middle of their turns; every leaf but `step` and the cache's has a leading B."""

  step: Array  # [] int32, tokens sampled so far
  is_active: Array  # [B] bool, not stopped yet
  automaton: Array  # [B] int32
  recent: Array  # [B, p] int32, the last tokens, the newest first
  repeats: Array  # [B, p] int32, tokens in a row that were the same as the one p + 1 before them
  hidden: Array  # [B, D], of the last token
  key: Array  # [B]
  position: Array  # [B] int32, of the first token sampled
  cache: KVCache
  turn: Turn


def _decode(policy: Any, params: Params, cache: KVCache, hidden_BD: Array, position_B: Array,
            is_live_B: Array, key_B: Array, options: Sampling, table: Array,
            automaton: _Automaton, config: EngineConfig, fewest: int) -> tuple[Turn, KVCache]:
  """Samples until every live row has stopped. All that was sampled is in the cache.

  A step costs the same however many rows are still active. So the last half goes on by itself,
  then the last half of that, down to `fewest`: a turn that never ends does not keep the others
  computing.
  """
  num, capacity = hidden_BD.shape[0], config.turn_capacity
  head_DV = policy.head(params)
  limit = jnp.minimum(options.max_tokens, capacity)

  def body(rows):
    logits_BV = sampling_logits(rows.hidden, head_DV, options.temperature, config.num_valid)
    token_B, logprob_B = sample(logits_BV, rows.key, rows.step, options)
    is_active_B, old = rows.is_active, rows.turn
    automaton_B = table[rows.automaton, token_B].astype(jnp.int32)
    is_same_Bp = rows.recent == token_B[:, None]
    recent_Bp = jnp.concatenate([token_B[:, None], rows.recent[:, :-1]], axis=1)
    repeats_Bp = jnp.where(is_same_Bp, rows.repeats + 1, 0)
    stop_B = jnp.full_like(token_B, Stop.LENGTH)
    if config.max_repetition:
      is_stuck_B = repeats_Bp.max(axis=1) >= config.max_repetition
      stop_B = jnp.where(is_stuck_B, Stop.REPETITION, stop_B)
    stop_B = jnp.where(automaton_B == automaton.stop, Stop.TAG,
                       jnp.where(token_B == automaton.eos_id, Stop.EOS, stop_B))
    turn = Turn(
        old.tokens.at[:, rows.step].set(jnp.where(is_active_B, token_B, automaton.pad_id)),
        old.logprob.at[:, rows.step].set(jnp.where(is_active_B, logprob_B, 0.0)),
        old.length + is_active_B,
        jnp.where(is_active_B, stop_B, old.stop).astype(jnp.int32))
    hidden_B1D, cache = policy.extend(
        params, token_B[:, None], (rows.position + rows.step)[:, None],
        is_active_B.astype(jnp.int32), rows.cache)
    return _Rows(rows.step + 1, is_active_B & (stop_B == Stop.LENGTH), automaton_B,
                 recent_Bp, repeats_Bp, hidden_B1D[:, 0], rows.key, rows.position, cache, turn)

  def run(rows, num_left):
    """Goes on until at most `num_left` rows are active."""
    with jax.named_scope('decode'):
      return jax.lax.while_loop(
          lambda r: (r.step < limit) & (jnp.sum(r.is_active) > num_left), body, rows)

  def finish(rows, size):
    """Goes on until none of the `size` rows is active."""
    half = size // 2
    if half < fewest:
      return run(rows, 0)
    rows = run(rows, half)
    index = jnp.argsort(~rows.is_active)[:half]  # all that are active, and some that are not
    return _put(rows, index, finish(_take(rows, index), half))

  rows = _Rows(
      jnp.int32(0), is_live_B, jnp.full(num, automaton.start, jnp.int32),
      jnp.full((num, _PERIOD), -1, jnp.int32), jnp.zeros((num, _PERIOD), jnp.int32), hidden_BD,
      key_B, position_B, cache,
      Turn(jnp.full((num, capacity), automaton.pad_id, jnp.int32),
           jnp.zeros((num, capacity), jnp.promote_types(jnp.float32, hidden_BD.dtype)),
           jnp.zeros(num, jnp.int32), jnp.full(num, Stop.LENGTH, jnp.int32)))
  rows = finish(rows, num)
  return rows.turn, rows.cache


def _take(rows: _Rows, index: Array) -> _Rows:
  """Those rows alone."""
  def one(x):
    return x[index] if x.ndim else x

  cache = KVCache(rows.cache.k[:, index], rows.cache.v[:, index], rows.cache.length[index])
  return dataclasses.replace(
      jax.tree.map(one, dataclasses.replace(rows, cache=None)), cache=cache)


def _put(rows: _Rows, index: Array, new: _Rows) -> _Rows:
  """`rows` with the cache and the turns of those rows replaced; the rest has no further use."""
  cache, turn = rows.cache, jax.tree.map(lambda x, y: x.at[index].set(y), rows.turn, new.turn)
  cache = KVCache(cache.k.at[:, index].set(new.cache.k), cache.v.at[:, index].set(new.cache.v),
                  cache.length.at[index].set(new.cache.length))
  return dataclasses.replace(rows, cache=cache, turn=turn)
