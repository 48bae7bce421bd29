"""The outer loop of a rollout: slots take turns, environments reply, episodes end.

A tick reads new questions, refills free slots and decodes a few tokens of all slots; turns that
stopped are parsed, and their actions go to the environment, which answers when it likes
(rollout/replies.py). Meanwhile the slot is another episode's: more episodes are under way than
there are slots. What an episode samples depends on (seed, iteration, task, sample, turn, position)
only, never on its slot, its neighbours or the time that an environment takes.

With several processes each runs the episodes of the slots that it owns, and in the end all have all
trajectories. All run the same programs in the same order: which ones comes next is decided by what
a program counts over all processes.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from mem1_jax import preemption
from mem1_jax.agents.agent import Agent
from mem1_jax.arrays import Params, Turn
from mem1_jax.env import environment
from mem1_jax.env.environment import step_many
from mem1_jax.memory.segments import parse_turn
from mem1_jax.parallel import multihost
from mem1_jax.rollout.decode import Questions, Refill, Slots
from mem1_jax.rollout.engine import Engine
from mem1_jax.rollout.replies import Replies
from mem1_jax.rollout.run import Run, together
from mem1_jax.rollout.sampling import Sampling
from mem1_jax.rollout.slots import Episode, Group, Job, Tick, Timing
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import (
    Action, ActionKind, Context, Observation, Segment, Stop, Task, Trajectory, TurnRecord)

_IDLE_WAIT_S = 0.05  # for an environment, where nothing else is to be done
# Of the time that decoding takes: so long a refill may wait for environments that are usually done
# by then.
_PATIENCE = 0.25


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
    reply_timeout_s: how long an environment may take for an action, seconds.
    is_lockstep: begin turns only when all slots are free (for comparison).
    counted: what environments have counted so far, by name (retrieval/protocol.py).
  """

  def __init__(self, engine: Engine, agent: Agent,
               begin_episode: Callable[[Task], environment.Episode],
               token_bytes: Sequence[bytes], seed: int, has_gaps: bool,
               row_length: int | None = None, reply_timeout_s: float = 120.0,
               is_lockstep: bool = False, counted: Callable[[], Mapping[str, int]] = dict):
    self._engine, self._agent = engine, agent
    self._begin_episode, self._token_bytes = begin_episode, token_bytes
    self._seed, self._has_gaps, self._row_length = seed, has_gaps, row_length
    self._reply_timeout_s, self._is_lockstep, self._counted = reply_timeout_s, is_lockstep, counted
    self._max_tokens = engine.config.turn_capacity  # of the run under way
    owners = multihost.owners(engine.rows, engine.num_groups * engine.slots_per_group)
    self._owner = owners[::engine.slots_per_group]  # of each group
    self._timing = Timing(engine.num_groups * engine.refill_rows, engine.config.num_slots,
                          is_lockstep)

  def run(self, params: Params, jobs: Iterable[Job], options: Sampling, iteration: int = 0,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Runs every job to its end; trajectories come in the order of the jobs.

    Every process gives the same jobs and gets the same trajectories and counts.

    Args:
      on_done: hears of each episode once; of those of other processes in the end.

    Raises:
      ValueError: if a question does not fit the question capacity.
      RuntimeError: another process had an error, or environments hang.
      Preempted: a process was told to end (preemption.py); all raise it.
    """
    begun, run, before = time.monotonic(), self._share(jobs, iteration, on_done), self._counted()
    self._max_tokens = min(int(options.max_tokens), self._engine.config.turn_capacity)
    store, slots = self._engine.init()
    while True:
      tick, arrays = self._guarded(run, lambda: self._plan(run)) or (self._tick(run), None)
      counts = self._over_all(
          tick.counts | {'pending': len(run.replies), 'failed': int(run.error is not None),
                         'told': int(preemption.is_told())}, run)
      if counts['failed'] or not counts['left']:
        break
      if counts['told']:
        raise preemption.Preempted('in the middle of a rollout')
      if is_due := self._timing.is_due(counts, run.num_active, run.is_filling):
        store, slots = self._prefill(params, store, slots, tick, arrays, counts, run)
      run.is_idle = not (run.num_active or is_due)
      lack = self._timing.lack(counts, run.num_active, is_due)
      run.is_filling = is_due and lack <= 0
      if run.num_active and not run.is_filling:
        slots = self._decode(params, slots, options, max(1, lack), run)
    run.stats.counts = {name: n - before[name] for name, n in self._counted().items()}
    done, stats = together(run)
    stats.seconds = time.monotonic() - begun
    return [done[i] for i in sorted(done)], stats

  def _share(self, jobs: Iterable[Job], iteration: int, on_done) -> Run:
    """The jobs are dealt like cards to the processes that own slots."""
    engine, owners = self._engine, sorted(set(self._owner))
    own = [g for g in range(engine.num_groups) if self._owner[g] == jax.process_index()]
    mine = []
    if own:
      mine = list(enumerate(jobs))[owners.index(jax.process_index())::len(owners)]
    replies = Replies(lambda *calls: step_many(*calls), self._reply_timeout_s)
    groups = [Group(g, engine.slots_per_group, engine.questions_per_group) for g in own]
    return Run(collections.deque(mine), groups, replies, iteration, on_done)

  def _guarded(self, run: Run, function):
    """What the host's function returns; its error ends the run once all processes know."""
    try:
      return function()
    except Exception as error:  # pylint: disable=broad-except
      run.error = error
      run.waiting.clear()

  def _over_all(self, counts: dict[str, int], run: Run) -> dict[str, int]:
    """The sums over all processes."""
    if jax.process_count() == 1:
      return counts
    array = np.zeros((self._engine.num_groups, len(counts)), np.int32)
    if run.groups:
      array[run.groups[0].number] = list(counts.values())
    total = jax.device_get(self._engine.count(multihost.put_rows(array, self._engine.rows)))
    return dict(zip(counts, total.tolist()))

  def _tick(self, run: Run) -> Tick:
    return Tick(self._engine.refill_rows, self._engine.num_groups, run.groups)

  # What happens between two programs.

  def _plan(self, run: Run) -> tuple[Tick, tuple[Questions, Refill]]:
    """Hears of environments, starts jobs, and says what is to be read and refilled now."""
    self._receive(run)
    self._start(run)
    tick = self._tick(run)
    tick.counts['left'] = len(run.waiting) + sum(group.num_episodes for group in run.groups)
    for group in run.groups:
      group.choose(tick, is_last=not run.waiting)
    config = self._engine.config
    return tick, (tick.questions(config.question_capacity), tick.refill(config.context_capacity))

  def _receive(self, run: Run):
    """Episodes that were answered get their next context, or end."""
    begun, wait_s = time.monotonic(), 0.0
    if run.is_idle or (self._is_lockstep and not run.num_active):
      wait_s = _IDLE_WAIT_S
    elif run.replies.latency_s < run.patience_s:
      wait_s = run.patience_s
    received = run.replies.receive(wait_s if len(run.replies) else 0.0)
    run.stats.environment_seconds += (time.monotonic() - begun) * (wait_s > 0)
    for (group, episode), observation, fault in received:
      self._next_context(episode, observation, fault, run.stats)
      if episode.context is None:
        group.leave(episode)
        run.done[episode.order] = self._finish(episode)
        run.on_done(run.done[episode.order])
      else:
        group.ready.append(episode)

  def _start(self, run: Run):
    """Begins waiting jobs where there is room for their questions."""
    engine = self._engine
    limit = engine.questions_per_group
    if self._agent.is_append_only:  # each keeps its slot
      limit = min(limit, engine.slots_per_group)
    while run.waiting:
      group = min(run.groups, key=lambda g: g.num_episodes)
      if group.num_episodes >= limit:
        return
      order, job = run.waiting.popleft()
      group.ready.append(self._begin(group, order, job, run.iteration))

  def _begin(self, group: Group, order: int, job: Job, iteration: int) -> Episode:
    rng, capacity = None, self._engine.config.question_capacity
    if self._has_gaps:
      rng = np.random.default_rng([self._seed, iteration, job.index, job.sample])
    prompt = self._agent.prompt(job.task, rng)
    if len(prompt) > capacity:
      raise ValueError(f'the question of task {job.task.id!r} has {len(prompt)} tokens, '
                       f'more than question_capacity {capacity}; raise it.')
    context, keep = self._agent.context(prompt, (), '', rng)
    return Episode(job, order, self._begin_episode(job.task), group.ask(prompt), rng, context, keep,
                   self._agent.is_append_only, time.monotonic())

  def _harvest(self, is_active_B: np.ndarray, turn: Turn, run: Run):
    """Parses the turns that stopped and sends their actions to the environments."""
    sent = []
    for group in run.groups:
      for b, episode in enumerate(group.slots):
        row = group.number * len(group.slots) + b
        if episode is None or not episode.is_decoding or is_active_B[row]:
          continue
        sent.append((group, episode, self._record(episode, turn, row)))
        run.stats.add(episode.turns[-1])
        episode.is_decoding = False
        if not self._agent.is_append_only:
          group.slots[b], episode.slot = None, None
    if sent:
      run.replies.send([(group, episode) for group, episode, _ in sent],
                       [episode.episode for _, episode, _ in sent],
                       [action for *_, action in sent])

  def _record(self, episode: Episode, turn: Turn, row: int) -> Action:
    """Adds the turn that stopped to its episode; its reward is not known yet."""
    n = int(turn.length[row])
    ids = tuple(turn.tokens[row, :n].tolist())
    parse = parse_turn(ids, self._token_bytes)
    first = episode.context.segment.positions[-1] + 1
    written = Segment(ids, tuple(range(first, first + n)), tuple(int(k) for k in parse.kind))
    episode.turns.append(TurnRecord(
        episode.context, written, tuple(turn.logprob[row, :n].tolist()), parse.action,
        Stop(int(turn.stop[row])), 0.0))
    if parse.action.kind is ActionKind.ANSWER:
      episode.answer = parse.action.text
    return parse.action

  def _next_context(self, episode: Episode, observation: Observation | None, fault: str,
                    stats: RolloutStats):
    """Sets the episode's next context; None ends it."""
    episode.context, episode.fault = None, fault
    if observation is None:
      stats.num_faults += 1
      return
    episode.answer = episode.episode.answer
    episode.turns[-1] = dataclasses.replace(
        episode.turns[-1], reward=observation.reward, outage=observation.outage)
    stats.num_outages += bool(observation.outage)
    if observation.is_done:
      return
    context, keep = self._agent.context(
        episode.prompt, episode.turns, observation.text, episode.rng)
    if self._outgrows(episode, context, keep):
      stats.num_overflow += 1
      episode.outgrew = True
      return
    stats.num_cut += context.num_cut
    episode.context, episode.keep = context, keep

  def _outgrows(self, episode: Episode, context: Context, keep: int) -> bool:
    """Whether one more turn might not fit the cache, or the row it is trained on."""
    config = self._engine.config
    new = len(context.segment) + self._max_tokens
    if keep + new > config.cache_capacity:
      return True
    before = sum(len(turn.context.segment) + len(turn.written) for turn in episode.turns)
    return self._row_length is not None and len(episode.prompt) + before + new > self._row_length

  def _finish(self, episode: Episode) -> Trajectory:
    return Trajectory(episode.job.task, episode.prompt, tuple(episode.turns),
                      self._agent.is_append_only, episode.job.sample, episode.answer,
                      episode.episode.searches, time.monotonic() - episode.begun, episode.fault,
                      episode.job.index, episode.outgrew)

  # The programs.

  def _prefill(self, params, store, slots, tick: Tick, arrays, counts: dict[str, int], run: Run):
    """(store, slots) after the tick's reading."""
    begun, engine = time.monotonic(), self._engine
    for group in run.groups:
      group.begin(tick)
    if counts['reads']:
      store = engine.read(params, store, arrays[0])
    if counts['refills']:
      store, slots = engine.refill(params, store, slots, arrays[1], self._seed, run.iteration)
      run.num_active += counts['refills']
    for read in tick.reads.values():
      for question in read:
        question.is_read = True
        run.stats.num_read += len(question.prompt)
    for refills in tick.refills.values():
      for episode, _ in refills:
        episode.is_decoding = True
        run.stats.num_read += len(episode.context.segment)
        is_copied = episode.question.is_used and not episode.keeps_slot
        run.stats.num_reused += episode.keep * is_copied
        episode.question.is_used = True
    jax.block_until_ready(slots.is_active)
    run.stats.prefill_seconds += time.monotonic() - begun
    return store, slots

  def _decode(self, params, slots: Slots, options: Sampling, enough: int, run: Run) -> Slots:
    begun = time.monotonic()
    slots, report = self._engine.decode(params, slots, options, enough)
    report = jax.device_get(report)
    seconds = time.monotonic() - begun
    run.num_active, run.patience_s = int(report.num_active), _PATIENCE * seconds
    run.stats.decode_seconds += seconds
    if multihost.is_main():  # counted once
      num_slots = self._engine.config.num_slots
      run.stats.num_idle += int(report.num_steps) * num_slots - int(report.num_sampled)
    is_active_B, turn = multihost.fetch_rows((slots.is_active, slots.turn))
    self._guarded(run, lambda: self._harvest(is_active_B, turn, run))
    return slots
