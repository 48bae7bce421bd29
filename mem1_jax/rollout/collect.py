"""The outer loop of a rollout: slots take turns, environments reply, episodes end.

Slots are fixed; whenever an episode ends, its slot starts the next one. What an
episode samples depends on (seed, iteration, task, sample, turn, position) only,
never on its slot or on its neighbours.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from mem1_jax.agents.agent import Agent
from mem1_jax.arrays import Params
from mem1_jax.env.qa import QAEpisode, step_many
from mem1_jax.memory import state
from mem1_jax.memory.segments import parse_turn
from mem1_jax.rollout.decode import Engine
from mem1_jax.rollout.sampling import Sampling, slot_keys
from mem1_jax.types import ActionKind, Context, Segment, Stop, Task, Trajectory, TurnRecord


@dataclasses.dataclass(frozen=True)
class Job:
  """One episode to run: a task, its number in the feed, and which sample of it."""

  task: Task
  index: int
  sample: int = 0


@dataclasses.dataclass
class _Slot:
  """An episode under way."""

  job: Job
  order: int
  episode: QAEpisode
  prompt: Segment
  rng: np.random.Generator | None
  context: Context
  keep: int
  begun: float
  turns: list[TurnRecord] = dataclasses.field(default_factory=list)
  answer: str | None = None


@dataclasses.dataclass
class RolloutStats:
  """What a rollout did, for the metrics."""

  num_turns: int = 0
  num_generated: int = 0
  num_malformed: int = 0
  num_cut: int = 0  # information tokens that did not fit a context
  num_overflow: int = 0  # episodes ended because they outgrew the cache or a row
  num_length_stops: int = 0  # turns that ran out of their token budget
  num_repetition_stops: int = 0  # turns that only repeated themselves
  seconds: float = 0.0


class Collector:
  """Runs episodes of one agent on one engine.

  Args:
    engine: the compiled programs.
    agent: what the policy sees each turn.
    begin_episode: task → environment episode.
    token_bytes: bytes of each vocabulary id.
    seed: of sampling and of position gaps.
    has_gaps: draw the agent's position gaps (training), or none (evaluation).
    row_length: longest episode, tokens of its packed row; None for any. One that
      might outgrow it is ended before, with the reward it has, and counted.
  """

  def __init__(self, engine: Engine, agent: Agent, begin_episode: Callable[[Task], QAEpisode],
               token_bytes: Sequence[bytes], seed: int, has_gaps: bool,
               row_length: int | None = None):
    self._engine, self._agent = engine, agent
    self._begin_episode, self._token_bytes = begin_episode, token_bytes
    self._seed, self._has_gaps, self._row_length = seed, has_gaps, row_length
    self._max_tokens = engine.config.turn_capacity  # of the run under way
    self._keys = jax.jit(slot_keys, in_shardings=engine.whole, out_shardings=engine.slots)

  def run(self, params: Params, jobs: Iterable[Job], options: Sampling, iteration: int = 0,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Runs every job to its end; trajectories come in the order of the jobs.

    Raises:
      ValueError: if a question does not fit the question capacity.
    """
    waiting = collections.deque(enumerate(jobs))
    slots: list[_Slot | None] = [None] * self._engine.config.num_slots
    done: dict[int, Trajectory] = {}
    stats, begun = RolloutStats(), time.monotonic()
    self._max_tokens = min(int(options.max_tokens), self._engine.config.turn_capacity)
    cache = self._engine.init_cache()
    while waiting or any(slots):
      cache = self._refill(params, cache, slots, waiting, iteration)
      turn, cache = self._engine.take_turn(
          params, cache, self._memory(slots), self._slot_keys(slots, iteration), options)
      self._harvest(jax.device_get(turn), slots, stats)
      for b, slot in enumerate(slots):
        if slot is not None and slot.context is None:
          done[slot.order] = self._finish(slot)
          on_done(done[slot.order])
          slots[b] = None
    stats.seconds = time.monotonic() - begun
    return [done[i] for i in sorted(done)], stats

  def _refill(self, params, cache, slots, waiting, iteration):
    """Starts waiting jobs in free slots and reads their questions but for the last token."""
    capacity = self._engine.config.question_capacity
    tokens = np.zeros((len(slots), capacity), np.int32)
    position, length = np.zeros_like(tokens), np.zeros(len(slots), np.int32)
    for b in range(len(slots)):
      if slots[b] is not None or not waiting:
        continue
      order, job = waiting.popleft()
      slot = slots[b] = self._begin(order, job, iteration)
      n = len(slot.prompt)
      if n > capacity:
        raise ValueError(f'the question of task {job.task.id!r} has {n} tokens, more than '
                         f'question_capacity {capacity}; raise it.')
      length[b] = n - 1
      tokens[b, :n], position[b, :n] = slot.prompt.ids, slot.prompt.positions
    return self._engine.read(params, cache, tokens, position, length) if length.any() else cache

  def _begin(self, order: int, job: Job, iteration: int) -> _Slot:
    rng = None
    if self._has_gaps:
      rng = np.random.default_rng([self._seed, iteration, job.index, job.sample])
    prompt = self._agent.prompt(job.task, rng)
    context, keep = self._agent.context(prompt, (), '', rng)
    return _Slot(job, order, self._begin_episode(job.task), prompt, rng, context, keep,
                 time.monotonic())

  def _memory(self, slots):
    config = self._engine.config
    return state.batch([slot and slot.context for slot in slots],
                       [slot.keep if slot else 0 for slot in slots], config.context_capacity, 0)

  def _slot_keys(self, slots, iteration):
    ids = np.array([(s.job.index, s.job.sample, len(s.turns)) if s else (0, 0, 0) for s in slots],
                   np.int32)
    return self._keys(*jax.device_put(
        (np.int32(self._seed), np.int32(iteration), *ids.T), self._engine.whole))

  def _harvest(self, turn, slots, stats):
    """Parses what each slot wrote, lets the environments reply, prepares the next contexts."""
    live = [b for b, slot in enumerate(slots) if slot is not None]
    parsed, actions = [], []
    for b in live:
      ids = tuple(turn.tokens[b, :turn.length[b]].tolist())
      parsed.append((ids, parse_turn(ids, self._token_bytes)))
      actions.append(parsed[-1][1].action)
    observations = step_many([slots[b].episode for b in live], actions)
    for b, (ids, parse), observation in zip(live, parsed, observations):
      slot, n = slots[b], len(ids)
      first = slot.context.segment.positions[-1] + 1
      written = Segment(ids, tuple(range(first, first + n)), tuple(int(k) for k in parse.kind))
      logprobs = tuple(turn.logprob[b, :n].tolist())
      stop = Stop(int(turn.stop[b]))
      slot.turns.append(TurnRecord(slot.context, written, logprobs, parse.action, stop,
                                   observation.reward))
      _count(stats, slot.turns[-1])
      if parse.action.kind is ActionKind.ANSWER:
        slot.answer = parse.action.text
      self._next_context(slot, observation, stats)

  def _next_context(self, slot: _Slot, observation, stats: RolloutStats):
    """Sets the slot's next context; None ends its episode."""
    slot.context = None
    if observation.is_done:
      return
    context, keep = self._agent.context(slot.prompt, slot.turns, observation.text, slot.rng)
    if self._outgrows(slot, context, keep):
      stats.num_overflow += 1
      return
    stats.num_cut += context.num_cut
    slot.context, slot.keep = context, keep

  def _outgrows(self, slot: _Slot, context: Context, keep: int) -> bool:
    """Whether one more turn might not fit the cache, or the row it is trained on."""
    config = self._engine.config
    new = len(context.segment) + self._max_tokens
    if keep + new > config.cache_capacity:
      return True
    before = sum(len(turn.context.segment) + len(turn.written) for turn in slot.turns)
    return self._row_length is not None and len(slot.prompt) + before + new > self._row_length

  def _finish(self, slot: _Slot) -> Trajectory:
    return Trajectory(slot.job.task, slot.prompt, tuple(slot.turns), self._agent.is_append_only,
                      slot.job.sample, slot.answer, slot.episode.searches,
                      time.monotonic() - slot.begun)


def _count(stats: RolloutStats, record: TurnRecord):
  stats.num_turns += 1
  stats.num_generated += len(record.written)
  stats.num_malformed += record.action.kind is ActionKind.MALFORMED
  stats.num_length_stops += record.stop is Stop.LENGTH
  stats.num_repetition_stops += record.stop is Stop.REPETITION
