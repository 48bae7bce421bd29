"""The outer loop of a rollout: slots take turns, environments reply, episodes end.

Slots are fixed; whenever an episode ends, its slot starts the next one. What an
episode samples depends on (seed, iteration, task, sample, turn, position) only,
never on its slot or on its neighbours.

With several processes each runs the episodes of the slots that it owns, and in the
end all have all trajectories. Which program runs next is decided by the number of
slots in each phase, which a program counts over all processes.
"""

import collections
import dataclasses
import operator
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax.agents.agent import Agent
from mem1_jax.arrays import Params
from mem1_jax.env.qa import QAEpisode, step_many
from mem1_jax.memory import state
from mem1_jax.memory.segments import parse_turn
from mem1_jax.parallel import multihost
from mem1_jax.rollout.decode import Engine
from mem1_jax.rollout.sampling import Sampling, slot_keys
from mem1_jax.types import ActionKind, Context, Segment, Stop, Task, Trajectory, TurnRecord


_EMPTY, _NEW, _GOING, _FAILED = range(4)  # phases of a slot; a new one's question is to be read


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

  @property
  def phase(self) -> int:
    return _GOING if self.turns else _NEW


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

  def __add__(self, other: 'RolloutStats') -> 'RolloutStats':
    return RolloutStats(*map(
        operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))


@dataclasses.dataclass
class _Run:
  """This process's part of a rollout."""

  waiting: collections.deque[tuple[int, Job]]  # in order
  slots: list[_Slot | None]  # of all processes; it fills those that it owns
  iteration: int
  on_done: Callable[[Trajectory], None]
  done: dict[int, Trajectory] = dataclasses.field(default_factory=dict)
  stats: RolloutStats = dataclasses.field(default_factory=RolloutStats)
  error: Exception | None = None


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
    num_slots, slots, whole = engine.config.num_slots, engine.slots, engine.whole
    self._own = multihost.own_rows(slots, num_slots)
    self._owners = sorted(set(multihost.owners(slots, num_slots)))
    self._begin_tick = jax.jit(
        _begin_tick, in_shardings=(whole, whole, slots, slots, slots, slots),
        out_shardings=(slots, whole))

  def run(self, params: Params, jobs: Iterable[Job], options: Sampling, iteration: int = 0,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Runs every job to its end; trajectories come in the order of the jobs.

    Every process gives the same jobs and gets the same trajectories and counts.

    Args:
      on_done: hears of each episode once; of those of other processes in the end.

    Raises:
      ValueError: if a question does not fit the question capacity.
      RuntimeError: another process had an error.
    """
    begun, run = time.monotonic(), self._share(jobs, iteration, on_done)
    self._max_tokens = min(int(options.max_tokens), self._engine.config.turn_capacity)
    cache = self._engine.init_cache()
    while True:
      question, memory, ids = self._inputs(run)
      key_B, count = self._begin_tick(
          *multihost.put((np.int32(self._seed), np.int32(iteration)), self._engine.whole),
          *multihost.put_rows(ids, self._engine.slots))
      count = jax.device_get(count)
      if count[_FAILED] or not count[_NEW] + count[_GOING]:
        break
      if count[_NEW]:
        cache = self._engine.read(params, cache, *question)
      turn, cache = self._engine.take_turn(params, cache, memory, key_B, options)
      turn = multihost.fetch_rows(turn)
      self._guarded(run, lambda: self._harvest(turn, run))  # pylint: disable=cell-var-from-loop
    done, stats = _together(run)
    stats.seconds = time.monotonic() - begun
    return [done[i] for i in sorted(done)], stats

  def _share(self, jobs: Iterable[Job], iteration: int, on_done) -> _Run:
    """The jobs are dealt like cards to the processes that own slots."""
    mine = []
    if self._own:
      mine = list(enumerate(jobs))[self._owners.index(jax.process_index())::len(self._owners)]
    return _Run(collections.deque(mine), [None] * self._engine.config.num_slots, iteration, on_done)

  def _guarded(self, run: _Run, function):
    """What the host's function returns; its error ends the run once all processes know."""
    try:
      return function()
    except Exception as error:  # pylint: disable=broad-except
      run.error = error
      run.waiting.clear()
      run.slots[:] = [None] * len(run.slots)

  def _inputs(self, run: _Run):
    """(questions of new slots, memory, what a tick begins with) after a refill."""
    def fill():
      self._refill(run)
      return self._questions(run.slots), self._memory(run.slots)

    question, memory = self._guarded(run, fill) or (
        self._questions(run.slots), self._memory(run.slots))
    ids = [(s.job.index, s.job.sample, len(s.turns), s.phase) if s else (0, 0, 0, _EMPTY)
           for s in run.slots]
    if run.error:
      ids[self._own[0]] = (0, 0, 0, _FAILED)
    return question, memory, tuple(np.array(ids, np.int32).T)

  def _refill(self, run: _Run):
    """Starts waiting jobs in free slots."""
    capacity = self._engine.config.question_capacity
    for b in self._own:
      if run.slots[b] is not None or not run.waiting:
        continue
      order, job = run.waiting.popleft()
      slot = run.slots[b] = self._begin(order, job, run.iteration)
      if len(slot.prompt) > capacity:
        raise ValueError(f'the question of task {job.task.id!r} has {len(slot.prompt)} tokens, '
                         f'more than question_capacity {capacity}; raise it.')

  def _questions(self, slots):
    """(tokens, position, length) of the questions to read, all but their last token."""
    tokens = np.zeros((len(slots), self._engine.config.question_capacity), np.int32)
    position, length = np.zeros_like(tokens), np.zeros(len(slots), np.int32)
    for b, slot in enumerate(slots):
      if slot is not None and slot.phase == _NEW:
        n = len(slot.prompt)
        length[b] = n - 1
        tokens[b, :n], position[b, :n] = slot.prompt.ids, slot.prompt.positions
    return tokens, position, length

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

  def _harvest(self, turn, run: _Run):
    """Parses what each slot wrote, lets the environments reply, prepares the next contexts."""
    slots, stats = run.slots, run.stats
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
      if slot.context is None:
        run.done[slot.order] = self._finish(slot)
        run.on_done(run.done[slot.order])
        slots[b] = None

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


def _begin_tick(seed, iteration, task_B, sample_B, turn_B, phase_B):
  """(the slots' keys, how many of them are in each phase)."""
  return (slot_keys(seed, iteration, task_B, sample_B, turn_B),
          (phase_B[:, None] == jnp.arange(4)[None]).sum(0))


def _together(run: _Run) -> tuple[dict[int, Trajectory], RolloutStats]:
  """The trajectories and counts of all processes.

  Raises:
    Exception: this process's error.
    RuntimeError: another's.
  """
  parts = multihost.gather((run.done, run.stats, run.error and repr(run.error)))
  if run.error:
    raise run.error
  for process, (_, _, error) in enumerate(parts):
    if error:
      raise RuntimeError(f'process {process} stopped the rollout: {error}')
  done = dict(item for part, _, _ in parts for item in part.items())
  for order in sorted(done.keys() - run.done.keys()):
    run.on_done(done[order])
  return done, sum((stats for _, stats, _ in parts), RolloutStats())


def _count(stats: RolloutStats, record: TurnRecord):
  stats.num_turns += 1
  stats.num_generated += len(record.written)
  stats.num_malformed += record.action.kind is ActionKind.MALFORMED
  stats.num_length_stops += record.stop is Stop.LENGTH
  stats.num_repetition_stops += record.stop is Stop.REPETITION
