"""Episodes of a model behind a server: the outer loop of rollout/collect.py, without a device.

An episode is a turn loop in a thread: what the agent reads goes to the server as text, and what it
writes comes back as text, becomes ids and is parsed, done and answered as if it had been decoded
here. Episodes do not know each other.
"""

from collections.abc import Callable, Iterable
import dataclasses
import logging
import math
import queue
import threading
import time

from mem1_jax.agents.agent import Agent
from mem1_jax.env import environment
from mem1_jax.memory.segments import parse_turn
from mem1_jax.retrieval.endpoint import Failure
from mem1_jax.rollout import completions
from mem1_jax.rollout.completions import Prompt
from mem1_jax.rollout.replies import Replies
from mem1_jax.rollout.served import HOPELESS, ServedModel
from mem1_jax.rollout.slots import Job
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.text import conversation
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import (
    ActionKind, Context, Kind, Segment, Stop, Task, Trajectory, TurnRecord)

_FEW = 8  # episodes without a server: so many in a row may be chance


@dataclasses.dataclass(eq=False)
class _Episode:
  """One under way.

  Attributes:
    ids, kinds: all that the last turn read and wrote, as a cache here would hold it.
    is_unserved: the server did not answer, for good.
  """

  job: Job
  world: environment.Episode
  replies: Replies
  prompt: Segment
  ids: list[int] = dataclasses.field(default_factory=list)
  kinds: list[Kind] = dataclasses.field(default_factory=list)
  turns: list[TurnRecord] = dataclasses.field(default_factory=list)
  answer: str | None = None
  fault: str = ''
  is_unserved: bool = False
  stats: RolloutStats = dataclasses.field(default_factory=RolloutStats)

  def read(self, segment: Segment, keep: int):
    """Adds what comes after the first `keep` tokens."""
    self.ids = [*self.ids[:keep], *segment.ids]
    self.kinds = [*self.kinds[:keep], *map(Kind, segment.kinds)]


class RemoteCollector:
  """Runs episodes of one agent, whose model is asked elsewhere.

  Args:
    model: that is asked.
    agent: what it sees each turn.
    begin_episode: task → environment episode.
    tokenizer: the agent's; lengths are in its tokens, whatever the server's are.
    context_capacity: tokens that a turn may read and write; an episode that might need more is
      ended before, with the reward it has, and counted, as one that the server finds too long.
    turn_capacity: tokens of a turn; what is longer is cut there, and has run out of tokens.
    num_concurrent: episodes at a time.
    reply_timeout_s: how long an environment may take for an action, seconds.
  """

  def __init__(self, model: ServedModel, agent: Agent,
               begin_episode: Callable[[Task], environment.Episode], tokenizer: Tokenizer,
               context_capacity: int, turn_capacity: int, num_concurrent: int,
               reply_timeout_s: float = 120.0):
    if num_concurrent < 1:
      raise ValueError(f'endpoint.concurrent {num_concurrent} must be ≥ 1')
    self._model, self._agent, self._begin_episode = model, agent, begin_episode
    self._tokenizer, self._num_concurrent = tokenizer, num_concurrent
    self._context_capacity, self._turn_capacity = context_capacity, turn_capacity
    self._reply_timeout_s = reply_timeout_s

  def run(self, jobs: Iterable[Job], max_tokens: int,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Runs every job to its end; trajectories come in the order of the jobs.

    Args:
      max_tokens: of a turn, in the server's tokens.
      on_done: hears of each episode once.

    Raises:
      ValueError: the server denies access or does not know the model, or has answered none of as
        many episodes in a row as run at a time.
    """
    begun, stats, done = time.monotonic(), RolloutStats(), {}
    waiting, finished = queue.SimpleQueue(), queue.SimpleQueue()
    for item in enumerate(jobs):
      waiting.put(item)
    num_jobs, is_over = waiting.qsize(), threading.Event()
    try:
      # Daemons: a request that hangs must not keep the process alive.
      for _ in range(min(self._num_concurrent, num_jobs)):
        threading.Thread(target=self._work, daemon=True,
                         args=(waiting, finished, max_tokens, is_over)).start()
      num_failed = 0  # in a row
      while len(done) < num_jobs:
        order, episode, trajectory = finished.get()
        if isinstance(episode, Exception):
          raise episode
        done[order], stats = trajectory, stats + episode.stats
        num_failed = num_failed + 1 if episode.is_unserved else 0
        if num_failed >= min(num_jobs, max(_FEW, self._num_concurrent)):
          raise ValueError(
              f'the server answered none of {num_failed} episodes in a row; the last of them: '
              f'{episode.fault}. Start again once it does: what is done is kept')
        on_done(trajectory)
    finally:
      is_over.set()
    stats.seconds = time.monotonic() - begun
    return [done[order] for order in sorted(done)], stats

  def _work(self, waiting: queue.SimpleQueue, finished: queue.SimpleQueue, max_tokens: int,
            is_over: threading.Event):
    """One thread: episodes, one after another."""
    while not is_over.is_set():
      try:
        order, job = waiting.get_nowait()
      except queue.Empty:
        return
      try:
        finished.put((order, *self._play(job, max_tokens, is_over)))
      except Exception as error:  # pylint: disable=broad-except
        finished.put((order, error, None))
        is_over.set()

  def _play(self, job: Job, max_tokens: int, is_over: threading.Event
            ) -> tuple[_Episode, Trajectory]:
    begun = time.monotonic()
    episode = _Episode(
        job, self._begin_episode(job.task),
        Replies(lambda *calls: environment.step_many(*calls), self._reply_timeout_s),
        self._agent.prompt(job.task, None))
    episode.read(episode.prompt, 0)
    context, keep = self._agent.context(episode.prompt, (), '', None)
    while context is not None and not is_over.is_set():
      if not self._take_turn(episode, context, keep, max_tokens):
        break
      context, keep = self._next_context(episode, max_tokens)
    return episode, Trajectory(
        job.task, episode.prompt, tuple(episode.turns), self._agent.is_append_only, job.sample,
        episode.answer, episode.world.searches, time.monotonic() - begun, episode.fault,
        job.index, episode.stats.num_overflow > 0)

  def _take_turn(self, episode: _Episode, context: Context, keep: int, max_tokens: int) -> bool:
    """Asks for a turn and records it; its reward is not known yet. False ends the episode."""
    episode.read(context.segment, keep)
    try:
      reply = self._model.complete(self._prompt(episode), max_tokens)
    except Failure as failure:
      if failure.kind in HOPELESS:
        raise ValueError(str(failure)) from None
      if failure.kind == 'too_long':
        episode.stats.num_overflow += 1
        return False
      episode.is_unserved, episode.fault = True, f'endpoint, {failure.kind}: {failure}'
      episode.stats.num_faults += 1
      logging.warning('an episode ended without its server: %s', episode.fault)
      return False
    text, stop = completions.end_turn(reply)
    ids = self._tokenizer.encode(text)
    if stop is Stop.EOS or not ids:  # a turn has a token
      ids.append(self._tokenizer.eos_id)
    if len(ids) > self._turn_capacity:
      ids, stop = ids[:self._turn_capacity], Stop.LENGTH
    parse = parse_turn(ids, self._tokenizer.token_bytes)
    first = context.segment.positions[-1] + 1
    written = Segment(tuple(ids), tuple(range(first, first + len(ids))),
                      tuple(int(k) for k in parse.kind))
    episode.read(written, len(episode.ids))
    episode.turns.append(TurnRecord(context, written, None, parse.action, stop, 0.0))
    episode.stats.add(episode.turns[-1])
    if parse.action.kind is ActionKind.ANSWER:
      episode.answer = parse.action.text
    return True

  def _prompt(self, episode: _Episode) -> Prompt:
    if self._model.settings.api == 'chat':
      return conversation.messages(self._tokenizer, episode.ids, episode.kinds,
                                   episode.job.task.domain)
    return conversation.spell(self._tokenizer, episode.ids)

  def _next_context(self, episode: _Episode, max_tokens: int) -> tuple[Context | None, int]:
    """Does the turn's action; what the next turn reads, or None where there is none."""
    turn = episode.turns[-1]
    episode.replies.send([episode], [episode.world], [turn.action])
    (_, observation, episode.fault), = episode.replies.receive(math.inf)
    if observation is None:
      episode.stats.num_faults += 1
      return None, 0
    episode.answer = episode.world.answer
    episode.turns[-1] = dataclasses.replace(
        turn, reward=observation.reward, outage=observation.outage)
    episode.stats.num_outages += bool(observation.outage)
    if observation.is_done:
      return None, 0
    context, keep = self._agent.context(episode.prompt, episode.turns, observation.text, None)
    if keep + len(context.segment) + max_tokens > self._context_capacity:
      episode.stats.num_overflow += 1
      return None, 0
    episode.stats.num_cut += context.num_cut
    return context, keep
