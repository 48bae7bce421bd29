"""Slots do not know each other; what ends an episode; what is counted; environments that fail."""

import contextlib
import dataclasses
import functools
import logging
import random
import resource
import threading
import time

import pytest

from mem1_jax import metrics, types
from mem1_jax.env import environment, qa
from mem1_jax.memory import state
from mem1_jax.rollout import collect as collect_lib
from mem1_jax.rollout.collect import Collector
from mem1_jax.rollout.sampling import sampling
from mem1_jax.rollout.slots import Job
from mem1_jax.types import Kind, Stop
from tests.env import small_shop
from tests.rollout import fakes, small

QUESTION = types.Question('q', 'a?', ('b',), 1, ('b',), ('b',), ('r',))


def job(index, sample=0):
  return Job(types.Task(f't{index}', (QUESTION,), ('[kf]',), 'test'), index, sample)


@dataclasses.dataclass
class Reader:
  """An agent whose prompt is `a b`, followed by a context of `length` ids (a fake)."""

  length: int = 2
  prompt_length: int = 2
  is_append_only: bool = False

  def prompt(self, task, rng):
    n = self.prompt_length
    return types.Segment((fakes.ID['b'],) * (n - 1) + (fakes.ID['a'],), tuple(range(n)),
                         (Kind.PROMPT,) * n)

  def context(self, prompt, turns, information, rng):
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    first = prompt.positions[-1] + 1
    ids = (fakes.ID['a'],) * self.length
    segment = types.Segment(ids, tuple(range(first, first + self.length)),
                            (Kind.INFO,) * self.length)
    keep = len(prompt)
    if self.is_append_only:
      keep += sum(len(t.context.segment) + len(t.written) for t in turns) - 1
    return types.Context(segment, 0, num_cut=3), keep


class Shelf:

  def search(self, queries, top_k):
    return [[types.Passage('b', 'b')] for _ in queries]


def begin(task):
  return qa.QAEpisode(task, Shelf(), qa.QAConfig(1, 50, slack=None, max_turns=4))


def collect(params, jobs, agent, engine=None, row_length=None, **options):
  collector = Collector(engine or ENGINE, agent, begin, fakes.VOCABULARY, 0, False, row_length)
  return collector.run(params, jobs, sampling(**(dict(is_greedy=True, max_tokens=8) | options)))


ENGINE = fakes.engine()
ANSWER = fakes.chain('a <answer> b </answer>')
SEARCH = fakes.chain('a <search> b </search>')
RAMBLE = fakes.chain('a b c a')


def test_an_answer_ends_an_episode():
  trajectories, stats = collect(ANSWER, [job(i) for i in range(5)], Reader())
  assert [t.task.id for t in trajectories] == ['t0', 't1', 't2', 't3', 't4']
  for t in trajectories:
    turn, = t.turns
    assert (t.answer, t.reward, t.searches) == ('b', 1.0, 0)
    assert turn.written.ids == tuple(fakes.ID[x] for x in ('<answer>', 'b', '</answer>'))
    assert turn.written.positions == (2, 3, 4) and turn.stop is Stop.TAG
    assert turn.written.kinds == (Kind.ACTION,) * 3
  assert (stats.num_turns, stats.num_generated, stats.num_malformed) == (5, 15, 0)


def test_an_answer_that_the_world_refuses_is_none(monkeypatch):
  def step_many(episodes, actions):
    refused = types.Action(types.ActionKind.MALFORMED, 'nothing to answer')
    return environment.step_many(episodes, [refused] * len(actions))

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  (t,), _ = collect(ANSWER, [job(0)], Reader())
  assert (len(t.turns), t.answer, t.reward) == (4, None, 0.0)


def test_a_shop_is_another_world_and_ends_with_what_was_bought(monkeypatch):
  plan = [('search', 'cotton'), ('answer', 'A10'), ('click', 'A10'), ('click', 'buy now')]
  monkeypatch.setattr(collect_lib, 'step_many', lambda episodes, actions: environment.step_many(
      episodes, [small_shop.act(*plan[e.turns]) for e in episodes]))
  collector = Collector(ENGINE, Reader(), small_shop.environment().start, fakes.VOCABULARY, 0, False)
  jobs = [Job(small_shop.task(number=i), i) for i in range(5)]
  trajectories, _ = collector.run(ANSWER, jobs, sampling(is_greedy=True, max_tokens=8))
  assert [(t.task.id, t.answer, t.reward, len(t.turns), t.searches, t.fault)
          for t in trajectories] == [(f'g{i}', 'A10', 3 / 5, 4, 1, '') for i in range(5)]


def test_the_turn_budget_ends_an_episode():
  trajectories, stats = collect(SEARCH, [job(0)], Reader())
  t, = trajectories
  assert (len(t.turns), t.answer, t.reward, t.searches) == (4, None, 0.0, 4)
  assert [turn.context.segment.positions for turn in t.turns] == [(1,), (2, 3), (2, 3), (2, 3)]
  assert [turn.written.positions[0] for turn in t.turns] == [2, 4, 4, 4]
  assert (stats.num_cut, stats.num_overflow) == (9, 0)


def test_malformed_turns_and_those_that_ran_out_of_tokens_are_counted():
  trajectories, stats = collect(RAMBLE, [job(0), job(1)], Reader(), max_tokens=3)
  assert (stats.num_turns, stats.num_malformed, stats.num_length_stops) == (8, 8, 8)
  turn = trajectories[0].turns[0]
  assert turn.action == types.Action(types.ActionKind.MALFORMED, 'no action')
  assert (turn.stop, len(turn.written)) == (Stop.LENGTH, 3)


def test_turns_that_only_repeat_themselves_are_counted():
  engine = fakes.engine(max_repetition=4)
  (trajectory,), stats = collect(fakes.chain('a z z'), [job(0)], Reader(), engine)
  assert (stats.num_turns, stats.num_malformed, stats.num_repetition_stops) == (4, 4, 4)
  assert [(turn.stop, len(turn.written)) for turn in trajectory.turns] == [(Stop.REPETITION, 5)] * 4


def test_an_episode_that_would_outgrow_the_cache_is_ended_and_counted():
  agent = Reader(length=10, is_append_only=True)
  # 2 + 3, then 10 + 3 each: a third turn of up to 8 tokens needs 36.
  for cache, turns, overflow in ((36, 3, 1), (35, 2, 1), (64, 4, 0)):
    trajectories, stats = collect(SEARCH, [job(0)], agent, fakes.engine(cache=cache))
    assert (len(trajectories[0].turns), stats.num_overflow) == (turns, overflow)


def test_an_episode_that_would_outgrow_its_row_is_ended_and_counted():
  # Rows: 2 + 3 | 2 + 3 | 2 + 3 | …, and a turn may write 8.
  for row_length, turns in ((13, 1), (16, 2), (30, 4)):
    trajectories, stats = collect(SEARCH, [job(0)], Reader(), row_length=row_length)
    assert len(trajectories[0].turns) == turns
    assert stats.num_overflow == (turns < 4)


def test_a_question_too_long_for_its_capacity():
  with pytest.raises(ValueError, match="task 't0' has 9 tokens, more than question_capacity 8"):
    collect(ANSWER, [job(0)], Reader(prompt_length=9))


def test_no_jobs():
  assert collect(ANSWER, [], Reader())[0] == []


def test_a_callback_hears_of_each_episode_once():
  seen = []
  collector = Collector(ENGINE, Reader(), begin, fakes.VOCABULARY, 0, False)
  trajectories, _ = collector.run(ANSWER, [job(i) for i in range(3)],
                                  sampling(is_greedy=True, max_tokens=8), on_done=seen.append)
  assert sorted(t.task.id for t in seen) == [t.task.id for t in trajectories]


def test_a_second_collector_of_an_engine_compiles_nothing(monkeypatch):
  """Training and validation have one each; what several processes add up is compiled once."""
  over_all, sums = Collector._over_all, []

  def of_two_processes(self, counts, run):
    with monkeypatch.context() as patch:
      patch.setattr(collect_lib.jax, 'process_count', lambda: 2)
      sums.append(over_all(self, counts, run))
    return sums[-1]

  monkeypatch.setattr(Collector, '_over_all', of_two_processes)
  engine = fakes.engine()
  collect(ANSWER, [job(0)], Reader(), engine)
  compiles, num_sums = metrics.CompileCounter(), len(sums)
  collect(ANSWER, [job(0)], Reader(), engine)
  assert len(sums) == 2 * num_sums > 0
  compiles.assert_none()


def timeless(trajectory):
  turns = tuple(dataclasses.replace(turn, seconds=0.0) for turn in trajectory.turns)
  return dataclasses.replace(trajectory, turns=turns, seconds=0.0)


@pytest.mark.parametrize('agent', list(small.AGENTS))
def test_an_episode_is_the_same_alone_in_a_crowd_and_in_any_order(agent):
  """To the last bit of its log-probs: same program, other slots empty, full or refilled."""
  with small.exact_arithmetic('float32'):
    collector = small.collector('float32', agent, gap=60)
    programs = small.programs('float32')
    for program in programs:
      program.clear_cache()  # of other tests, some of which call them with adapters
    _, params = small.model('float32')
    options = sampling(max_tokens=small.MAX_TOKENS)
    jobs = small.jobs(5)
    jobs.append(dataclasses.replace(jobs[0], sample=1))

    def run(some):
      trajectories, _ = collector.run(params, some, options)
      return {(j.index, j.sample): timeless(t) for j, t in zip(some, trajectories)}

    crowd = run(jobs)
    assert run(jobs[::-1]) == crowd
    for one in (jobs[0], jobs[4]):
      assert run([one]) == {(one.index, one.sample): crowd[one.index, one.sample]}
    other, _ = collector.run(params, jobs[:1], options, iteration=1)
    assert [program._cache_size() for program in programs] == [1, 1, 1]
  first, again = crowd[0, 0].turns[0].written.ids, crowd[0, 1].turns[0].written.ids
  assert len({first, again, other[0].turns[0].written.ids}) == 3


# Environments that take their time, and those that fail.


@dataclasses.dataclass
class Listener(Reader):
  """Its prompt depends on the task and its contexts on what the environment said."""

  def prompt(self, task, rng):
    prompt = super().prompt(task, rng)
    return dataclasses.replace(prompt, ids=(*prompt.ids[:-1], _id(int(task.id[1:]))))

  def context(self, prompt, turns, information, rng):
    context, keep = super().context(prompt, turns, information, rng)
    if turns:
      number = int(information.split()[0])
      ids = _id(number), _id(number // 7)
      context = dataclasses.replace(context, segment=dataclasses.replace(context.segment, ids=ids))
    return context, keep


def _id(number):
  return 2 + number % (len(fakes.VOCABULARY) - 2)


AGENTS = {'memory': Listener(), 'append_only': Listener(is_append_only=True)}
MANY = [job(i, sample) for i in range(7) for sample in range(2)]
# It acts, errs and rambles: its tokens are sampled from flat distributions.
WILD = fakes.chain('a <answer> b </answer>', '<think> x <search> c </search> x', 'y a', 'z x')


@functools.cache
def pool():
  """More questions than slots: episodes wait for slots and slots for episodes."""
  return fakes.engine(fakes.Chain(scale=3.5), num_slots=3, num_questions=6, decode_steps=5)


def tell(episodes, actions):
  """What it says is of the task and turn."""
  return [dataclasses.replace(observation, text=f'{int(e.task.id[1:]) * 13 + e.turns}')
          for e, observation in zip(episodes, environment.step_many(episodes, actions))]


def wild(agent, jobs=MANY, engine=None, params=WILD, **options):
  """(timeless trajectories, stats) of sampled episodes."""
  collector = Collector(engine or pool(), agent, begin, fakes.VOCABULARY, 0, False, **options)
  trajectories, stats = collector.run(params, jobs, sampling(max_tokens=8))
  return [timeless(t) for t in trajectories], stats


@functools.cache
def immediate(kind):
  """`wild` with an environment that answers at once."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect_lib, 'step_many', tell)
    return wild(AGENTS[kind])


@contextlib.contextmanager
def leaks_nothing():
  """At the end no episode has a slot or a question, and every row is free."""
  groups = []

  class Group(collect_lib.Group):
    def __init__(self, *args):
      super().__init__(*args)
      self.rows = set(self.free_rows)
      groups.append(self)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect_lib, 'Group', Group)
    yield
  assert groups
  for group in groups:
    assert set(group.slots) == {None} and not group.ready
    assert group.num_episodes == 0 and not group.questions
    assert len(group.free_rows) == len(group.rows) and set(group.free_rows) == group.rows


def test_sampled_episodes_differ():
  """Else the tests below would say nothing."""
  trajectories, stats = immediate('memory')
  assert [(t.task.id, t.sample) for t in trajectories] == [(j.task.id, j.sample) for j in MANY]
  assert len({t.turns[0].written.ids for t in trajectories}) > len(MANY) / 2
  assert {len(t.turns) for t in trajectories} >= {1, 4}
  assert stats.num_malformed and stats.num_turns > stats.num_malformed + stats.num_length_stops
  assert stats.num_faults == 0 and {t.fault for t in trajectories} == {''}


@pytest.mark.parametrize('kind', AGENTS)
def test_when_the_environment_answers_changes_nothing(kind, monkeypatch):
  waits = random.Random(0)

  def step_many(episodes, actions):
    time.sleep(waits.uniform(0, 0.02))
    return tell(episodes, actions)

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  with leaks_nothing():
    assert wild(AGENTS[kind])[0] == immediate(kind)[0]
    assert wild(AGENTS[kind], MANY[::-1])[0] == immediate(kind)[0][::-1]


@pytest.mark.parametrize('kind', AGENTS)
def test_lock_step_gives_the_same_episodes(kind, monkeypatch):
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  with leaks_nothing():
    assert wild(AGENTS[kind], is_lockstep=True)[0] == immediate(kind)[0]


def test_lock_step_begins_turns_in_all_slots_however_few_are_refilled_at_a_time(monkeypatch):
  engine, active = fakes.engine(num_slots=3, refill_rows=1), []
  decode = engine.decode

  def watched(params, slots, options, enough):
    active.append(int(slots.is_active.sum()))
    return decode(params, slots, options, enough)

  monkeypatch.setattr(engine, 'decode', watched)
  wild(Reader(), [job(i) for i in range(6)], engine, ANSWER, is_lockstep=True)
  assert active == [3, 3]


def test_append_only_episodes_may_share_fewer_questions_than_slots(monkeypatch):
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  engine = fakes.engine(fakes.Chain(scale=3.5), num_slots=3, num_questions=1)
  with leaks_nothing():
    assert wild(AGENTS['append_only'], engine=engine)[0] == immediate('append_only')[0]


def test_samples_of_a_task_share_its_question(monkeypatch):
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  for samples, tasks in ((4, 1), (2, 2), (1, 4)):
    jobs = [job(i, sample) for i in range(tasks) for sample in range(samples)]
    trajectories, stats = wild(Listener(prompt_length=5), jobs)
    contexts = sum(len(turn.context.segment) for t in trajectories for turn in t.turns)
    assert stats.num_read == 5 * tasks + contexts
    later = sum(len(t.turns) - 1 for t in trajectories)  # they keep 5, first turns 4
    assert stats.num_reused == 4 * (samples - 1) * tasks + 5 * later


def _fail(monkeypatch, is_hit, fail):
  """Calls in which `is_hit` holds for an episode `fail` instead; returns who was in them."""
  hit = []

  def step_many(episodes, actions):
    if any(map(is_hit, episodes)):
      hit.append([(e.task.id, e.turns) for e in episodes])
      return fail(episodes, actions)
    return tell(episodes, actions)

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  return hit


def _cut(trajectory, failed):
  """`trajectory` as far as `failed` went, whose environment failed in its last turn."""
  turns = trajectory.turns[:len(failed.turns)]
  turns = (*turns[:-1], dataclasses.replace(turns[-1], reward=0.0))
  return dataclasses.replace(trajectory, turns=turns, answer=failed.answer, fault=failed.fault,
                             searches=failed.searches)


@pytest.mark.parametrize('kind', AGENTS)
def test_an_environment_that_raises_ends_its_episode_and_no_other(kind, monkeypatch, caplog):
  expected, _ = immediate(kind)

  def fail(episodes, actions):
    raise ConnectionError('broken')

  _fail(monkeypatch, lambda e: e.task.id == 't2' and e.turns == 1, fail)
  with leaks_nothing(), caplog.at_level(logging.WARNING):
    trajectories, stats = wild(AGENTS[kind])
  failed = [i for i, t in enumerate(trajectories) if t.fault]
  assert failed and failed == [
      i for i, t in enumerate(expected) if t.task.id == 't2' and len(t.turns) > 1]
  assert stats.num_faults == len(failed) == caplog.text.count('ConnectionError: broken')
  for i, (trajectory, right) in enumerate(zip(trajectories, expected)):
    if i in failed:
      assert trajectory.fault == 'ConnectionError: broken' and trajectory.reward == 0
      assert trajectory == _cut(right, trajectory) and len(trajectory.turns) == 2
    else:
      assert trajectory == right


def test_an_answer_whose_reward_is_lost_is_a_fault(monkeypatch):
  def step_many(episodes, actions):
    raise ConnectionError('broken')

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  trajectories, stats = collect(ANSWER, [job(0), job(1)], Reader())
  assert [(t.answer, t.reward, t.fault) for t in trajectories] == [
      ('b', 0.0, 'ConnectionError: broken')] * 2
  assert (stats.num_faults, stats.num_turns) == (2, 2)


def test_an_environment_that_hangs_ends_the_episodes_of_that_call_and_no_other(monkeypatch):
  expected, _ = immediate('memory')
  gate = threading.Event()

  def hang(episodes, actions):
    gate.wait(30)
    return tell(episodes, actions)

  hung = _fail(monkeypatch, lambda e: e.task.id == 't2' and e.turns == 1, hang)
  collector = Collector(pool(), AGENTS['memory'], begin, fakes.VOCABULARY, 0, False,
                        reply_timeout_s=0.3)
  options = sampling(max_tokens=8)
  try:
    with leaks_nothing():
      trajectories, stats = collector.run(WILD, MANY, options)
  finally:
    gate.set()
  trajectories = [timeless(t) for t in trajectories]
  failed = [t for t in trajectories if t.fault]
  assert {t.fault for t in failed} == {'no reply within 0.3 s'}
  assert 0 < stats.num_faults == len(failed) < len(MANY)
  assert sorted((t.task.id, len(t.turns) - 1) for t in failed) == sorted(sum(hung, []))
  for trajectory, right in zip(trajectories, expected):
    assert trajectory == (_cut(right, trajectory) if trajectory.fault else right)
  # The same collector, once its environment is well again.
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  trajectories, stats = collector.run(WILD, MANY, options)
  assert [timeless(t) for t in trajectories] == expected and stats.num_faults == 0


def test_an_environment_that_never_answers_stops_the_run(monkeypatch):
  monkeypatch.setattr('mem1_jax.rollout.replies._MAX_STUCK', 3)
  gate = threading.Event()
  monkeypatch.setattr(collect_lib, 'step_many', lambda *_: gate.wait(30))
  try:
    with pytest.raises(RuntimeError, match='3 calls of the environment have not returned'):
      wild(Reader(), [job(i) for i in range(30)], reply_timeout_s=0.02)
  finally:
    gate.set()
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  assert wild(AGENTS['memory'])[0] == immediate('memory')[0]


def test_an_environment_may_say_ten_megabytes(monkeypatch):
  def shout(episodes, actions):
    return [dataclasses.replace(observation, text=observation.text + ' word' * 2_000_000)
            for observation in tell(episodes, actions)]

  _fail(monkeypatch, lambda e: e.task.id == 't2', shout)
  with leaks_nothing():
    trajectories, stats = wild(AGENTS['memory'])
  assert trajectories == immediate('memory')[0] and stats.num_faults == 0


def _soak(num, monkeypatch):
  """`num` episodes, of which some fail in every way there is."""
  gate, waits, own = threading.Event(), random.Random(0), threading.active_count()
  jobs = [job(i // 2, i % 2) for i in range(num)]
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  expected, _ = wild(AGENTS['memory'], jobs)

  def step_many(episodes, actions):
    time.sleep(waits.uniform(0, 0.004))
    luck = [random.Random(f'{e.task.id} {e.turns}').random() for e in episodes]
    if any(x < 0.01 for x in luck):
      raise OSError('nobody was stepped')
    if any(x < 0.02 for x in luck):
      return []
    if any(0.5 < x < 0.502 for x in luck):
      gate.wait(60)
    observations = []
    for episode, action, x in zip(episodes, actions, luck):
      if 0.02 < x < 0.03:
        raise OSError('some were stepped')
      observations += tell([episode], [action])
      if x > 0.99:
        loud = observations[-1].text + ' ' * 4_000_000
        observations[-1] = dataclasses.replace(observations[-1], text=loud)
    return observations

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    with leaks_nothing():
      trajectories, stats = wild(AGENTS['memory'], jobs, reply_timeout_s=0.3)
  finally:
    gate.set()
  grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
  assert [(t.task.id, t.sample) for t in trajectories] == [(j.task.id, j.sample) for j in jobs]
  for trajectory, right in zip(trajectories, expected):
    assert trajectory == (_cut(right, trajectory) if trajectory.fault else right)
  faults = [t.fault.partition(':')[2] or t.fault for t in trajectories if t.fault]
  assert num / 50 < stats.num_faults == len(faults) < num / 3
  assert grown < 150  # MB; the long texts alone are more in a long soak
  end = time.monotonic() + 10
  while threading.active_count() > own:
    assert time.monotonic() < end
    time.sleep(0.01)
  return set(faults)


def test_a_hundred_episodes_of_which_some_fail(monkeypatch):
  assert len(_soak(100, monkeypatch)) >= 2


@pytest.mark.slow
def test_thousands_of_episodes_of_which_some_fail(monkeypatch):
  assert _soak(2000, monkeypatch) == {
      ' nobody was stepped', ' some were stepped', ' 0 observations of 1 actions',
      'no reply within 0.3 s'}


@pytest.mark.parametrize('is_lockstep', [False, True])
def test_every_step_of_every_slot_is_a_token_or_idle(is_lockstep, monkeypatch):
  engine, reports = pool(), []
  decode = engine.decode

  def watched(*args):
    slots, report = decode(*args)
    reports.append(int(report.num_steps))
    return slots, report

  monkeypatch.setattr(engine, 'decode', watched)
  monkeypatch.setattr(collect_lib, 'step_many', tell)
  trajectories, stats = wild(AGENTS['memory'], is_lockstep=is_lockstep)
  assert stats.num_generated == sum(len(u.written) for t in trajectories for u in t.turns)
  assert stats.num_generated + stats.num_idle == sum(reports) * engine.config.num_slots
  assert stats.occupancy == stats.num_generated / (sum(reports) * engine.config.num_slots)
  assert 0.3 < stats.occupancy < 1


def test_time_spent_waiting_for_an_environment_is_counted(monkeypatch):
  def step_many(episodes, actions):
    time.sleep(0.1)
    return environment.step_many(episodes, actions)

  _, fast = collect(SEARCH, [job(0)], Reader())
  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  (trajectory,), slow = collect(SEARCH, [job(0)], Reader())
  assert len(trajectory.turns) == 4
  assert 0.38 < slow.environment_seconds < slow.seconds
  assert fast.environment_seconds < slow.environment_seconds / 2
  parts = slow.environment_seconds + slow.prefill_seconds + slow.decode_seconds
  assert parts <= slow.seconds < 2 * parts


def test_episodes_decode_while_others_wait_for_their_environment(monkeypatch):
  """A slot is not held by an episode whose environment is slow."""
  gate, seen = threading.Event(), []

  def step_many(episodes, actions):
    if any(e.task.id in ('t0', 't1', 't2') for e in episodes):
      gate.wait(30)
    return tell(episodes, actions)

  def on_done(trajectory):
    seen.append(trajectory.task.id)
    if len(seen) == 3:
      gate.set()

  monkeypatch.setattr(collect_lib, 'step_many', step_many)
  collector = Collector(pool(), AGENTS['memory'], begin, fakes.VOCABULARY, 0, False)
  collector.run(ANSWER, [job(i) for i in range(6)], sampling(max_tokens=8), on_done=on_done)
  assert not set(seen[:3]) & {'t0', 't1', 't2'}
