"""The device programs of a rollout: read questions, refill slots, decode.

    questions [Q, P]   keys and values of questions: read once, shared by their episodes
    slots     [B, M]   turns under way, each `[question | context | generation]` without gaps

A question is copied, its context read after it, both copied into a slot, which decodes beside the
others until its turn stops. What is read is read in a few rows of their own, and copies are of
what is live: so the cost of a refill is that of its tokens. Where slots are split over groups of
devices, every group has its own questions. All programs have fixed shapes whatever the number of
turns, questions or live slots, so each compiles once; a row's numbers do not depend on other rows.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.arrays import Array, MemoryState, Params, Turn
from mem1_jax.model import cache as cache_lib
from mem1_jax.parallel import multihost, sharding
from mem1_jax.rollout import decode
from mem1_jax.rollout.decode import Questions, Refill, Report, Slots, Store
from mem1_jax.rollout.sampling import Sampling, sampling, slot_keys
from mem1_jax.rollout.stop import build_stop_table
from mem1_jax.types import Stop


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
  max_repetition: int = 0  # tokens that may repeat what was `decode.PERIOD` or less before; 0: any
  num_questions: int = 0  # Q, whose keys and values are held; 0: 1.5 per slot
  refill_rows: int = 0  # slots of a group of devices that are refilled at a time; 0: an eighth
  decode_steps: int = 16  # tokens per slot, at most, between two refills
  keeps_turns: bool = True  # an agent may append to its own slot

  def __post_init__(self):
    need = self.question_capacity + self.context_capacity + self.turn_capacity
    if self.max_repetition < 0:
      raise ValueError(f'max_repetition {self.max_repetition} is below 0; 0 is for none.')
    if self.cache_capacity < need:
      raise ValueError(f'cache_capacity {self.cache_capacity} is below question + context + turn '
                       f'= {need} tokens; raise it.')
    for name, least in (('num_questions', 0), ('refill_rows', 0), ('decode_steps', 1)):
      if getattr(self, name) < least:
        raise ValueError(f'{name} {getattr(self, name)} is below {least}; raise it.')


class Engine:
  """Compiled `read`, `refill` and `decode` over questions and slots of fixed size.

  The stop table is the automaton of rollout/stop.py over the vocabulary. Parameters, questions and
  slots lie on the policy's mesh; arrays of the host are put there, each row as the process has it
  that owns it (parallel/multihost.py).

  Args:
    params: the shardings of the parameters, or one for all; None for the policy's own, without
      adapters.

  Attributes:
    num_groups: of devices, each of which has slots and questions of its own.
    slots_per_group, questions_per_group, refill_rows: rows of each group.
    rows, whole: the shardings of arrays with a row per slot, question or refill, and of what every
      device has.
    params: the shardings of the parameters.
    state, state_shardings: shapes and shardings of (store, slots).
    count: sums over groups of numbers that the hosts have, [groups, n] → [n].
  """

  def __init__(self, policy: Any, config: EngineConfig, token_bytes, eos_id: int, pad_id: int,
               params: Params | None = None):
    self.config = config
    self._policy = policy
    self._host_table, start, stop = build_stop_table(token_bytes)
    self._automaton = decode.Automaton(int(start), int(stop), eos_id, pad_id)
    self.params = params = policy.shardings() if params is None else params
    self.rows = sharding.rows(policy.mesh, config.num_slots)
    self.whole = whole = sharding.whole(policy.mesh)
    self.num_groups = sharding.num_row_groups(policy.mesh, config.num_slots)
    self.slots_per_group = config.num_slots // self.num_groups
    num_questions = config.num_questions or -(-3 * config.num_slots // 2)
    self.questions_per_group = -(-num_questions // self.num_groups)
    self.refill_rows = min(config.refill_rows or -(-self.slots_per_group // 8),
                           self.slots_per_group, self.questions_per_group)
    self.state = jax.eval_shape(self._empty)
    store, slots = self.state_shardings = self._shardings()
    self._lay = self._by_group(
        decode.lay, (slots.cache, *(self.rows,) * 3, slots.cache), slots.cache)
    self._file = self._by_group(
        lambda desk, questions, row: cache_lib.copy(desk, None, questions, row),
        (slots.cache, slots.cache, self.rows), slots.cache)
    self._put = self._by_group(decode.put, (slots, self.rows, slots), slots)
    # Of the engine, not of those who run it: a second one of them must compile nothing.
    self.count = jax.jit(lambda x_nc: x_nc.sum(0), out_shardings=whole)
    self.init = jax.jit(self._empty, out_shardings=(store, slots))
    self._read = jax.jit(
        self._read_program, donate_argnums=1, in_shardings=(params, store, self.rows),
        out_shardings=store)
    self._refill = jax.jit(
        self._refill_program, donate_argnums=(1, 2),
        in_shardings=(params, store, slots, self.rows, whole), out_shardings=(store, slots))
    self._decode = jax.jit(
        self._decode_program, donate_argnums=1, in_shardings=(params, slots, whole, whole, whole),
        out_shardings=(slots, whole))

  @functools.cached_property
  def _table(self) -> Array:
    return multihost.put(self._host_table, self.whole)

  def read(self, params: Params, store: Store, new: Questions) -> Store:
    """The store with new questions in it, all their tokens read. The store is donated."""
    return self._read(params, store, multihost.put_rows(new, self.rows))

  def refill(self, params: Params, store: Store, slots: Slots, refill: Refill, seed: int,
             iteration: int) -> tuple[Store, Slots]:
    """The slots with contexts read into some, from where they will decode. Both are donated."""
    numbers = multihost.put((np.int32(seed), np.int32(iteration)), self.whole)
    return self._refill(params, store, slots, multihost.put_rows(refill, self.rows), numbers)

  def decode(self, params: Params, slots: Slots, options: Sampling,
             enough: int | None = None) -> tuple[Slots, Report]:
    """A few tokens of every active slot. The slots are donated.

    It ends after `decode_steps`, or as soon as `enough` turns have stopped: as many as a refill has
    rows, if None.
    """
    enough = np.int32(self.num_groups * self.refill_rows if enough is None else enough)
    options, enough = multihost.put((options, enough), self.whole)
    return self._decode(params, slots, self._table, options, enough)

  def lower_refill(self, params: Params) -> jax.stages.Lowered:
    """The program for shapes of parameters, not compiled: nothing is computed."""
    g, C = self.num_groups * self.refill_rows, self.config.context_capacity
    def array(*shape, dtype=np.int32):
      return jax.ShapeDtypeStruct(shape, dtype)

    refill = Refill(array(g), array(g), array(g, dtype=bool),
                    MemoryState(array(g, C), array(g, C), array(g), array(g)), array(g, 3))
    return self._refill.lower(params, *self.state, refill, (array(), array()))

  def lower_decode(self, params: Params) -> jax.stages.Lowered:
    """As `lower_refill`."""
    options = jax.eval_shape(lambda: sampling(max_tokens=1))
    table = jax.ShapeDtypeStruct(self._host_table.shape, self._host_table.dtype)
    enough = jax.ShapeDtypeStruct((), np.int32)
    return self._decode.lower(params, self.state[1], table, options, enough)

  def _empty(self):
    """(store, slots) of a fresh run."""
    config, policy, n = self.config, self._policy, self.num_groups
    B, R = config.num_slots, config.turn_capacity
    params = jax.eval_shape(policy.init, jax.random.key(0))
    cache = policy.init_cache(B, config.cache_capacity)
    token = jax.ShapeDtypeStruct((B, 1), np.int32)
    hidden, _ = jax.eval_shape(policy.extend, params, token, token, cache.length, cache)
    ids, zeros = jnp.zeros((B, decode.PERIOD), jnp.int32), jnp.zeros(B, jnp.int32)
    turn = Turn(jnp.full((B, R), self._automaton.pad_id, jnp.int32),
                jnp.zeros((B, R), jnp.promote_types(jnp.float32, hidden.dtype)), zeros, zeros)
    read = config.question_capacity + config.context_capacity
    store = Store(policy.init_cache(n * self.questions_per_group, config.question_capacity),
                  policy.init_cache(n * self.refill_rows,
                                    config.cache_capacity if config.keeps_turns else read))
    return store, Slots(
        cache, jnp.zeros(B, bool), zeros, ids, ids, jnp.zeros((B, hidden.shape[-1]), hidden.dtype),
        jnp.zeros((B, 2), jnp.uint32), zeros, turn)

  def _shardings(self):
    _, slots = self.state
    cache = self._policy.cache_shardings(slots.cache)  # of all caches: groups have rows of each
    by_row = jax.tree.map(lambda _: self.rows, dataclasses.replace(slots, cache=None))
    return Store(cache, cache), dataclasses.replace(by_row, cache=cache)

  def _by_group(self, function, inputs, output):
    """`function` on each group's own rows, for arguments and a result of those shardings."""
    if self._policy.mesh.size == 1:
      return function
    inputs, output = jax.tree.map(lambda x: x.spec, (inputs, output))
    return jax.shard_map(function, mesh=self._policy.mesh, in_specs=inputs, out_specs=output,
                         check_vma=False)

  def _read_program(self, params, store, new):
    desk = dataclasses.replace(store.desk, length=jnp.zeros_like(store.desk.length))
    desk, _ = decode.prefill(self._policy, params, desk, new.tokens, new.position, new.length,
                             self.config.prefill_chunk)
    return Store(self._file(desk, store.questions, new.row), desk)

  def _refill_program(self, params, store, slots, refill, numbers):
    config, memory = self.config, refill.memory
    desk = self._lay(store.questions, refill.question, ~refill.is_own, memory.keep, store.desk)
    if config.keeps_turns:
      desk = self._lay(slots.cache, refill.slot, refill.is_own, memory.keep, desk)
    desk, hidden_gD = decode.prefill(self._policy, params, desk, memory.tokens, memory.position,
                                     memory.length, config.prefill_chunk)
    last_g1 = jnp.maximum(memory.length - 1, 0)[:, None]
    position_g = jnp.take_along_axis(memory.position, last_g1, axis=1)[:, 0] + 1
    key_g = jax.random.key_data(slot_keys(*numbers, *refill.ids.T))
    num, R = refill.slot.shape[0], config.turn_capacity

    def full(value, *shape):
      return jnp.full((num, *shape), value, jnp.int32)

    fresh = Slots(
        desk, memory.length > 0, full(self._automaton.start), full(-1, decode.PERIOD),
        full(0, decode.PERIOD), hidden_gD, key_g, position_g,
        Turn(full(self._automaton.pad_id, R), jnp.zeros((num, R), slots.turn.logprob.dtype),
             full(0), full(Stop.LENGTH)))
    return Store(store.questions, desk), self._put(slots, refill.slot, fresh)

  def _decode_program(self, params, slots, table, options, enough):
    return decode.decode(self._policy, params, slots, options, table, self._automaton, self.config,
                         enough)
