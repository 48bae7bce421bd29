"""Episodes by a real server: an expert is right whatever it does; what ends one of them, or all."""

import dataclasses
import functools
import logging
import threading

import pytest

from mem1_jax import types
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.compose import Composer
from mem1_jax.env import qa
from mem1_jax.memory.positions import Gaps
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.rollout.completions import Settings
from mem1_jax.rollout.remote import RemoteCollector
from mem1_jax.rollout.served import Limits, ServedModel
from mem1_jax.rollout.slots import Job
from mem1_jax.text import conversation
from mem1_jax.types import ActionKind, Kind, Stop
from tests.rollout import model_server, small
from tests.rollout.model_server import Experts, ModelServer

QUICK = Limits(timeout_s=5.0, patience_s=20.0, max_tries=3, backoff_s=0.001)


@functools.cache
def world():
  retriever = BM25Retriever(sources.atlas_documents(), k1=1.2, b=0.75, title_weight=2)
  return qa.QAEnvironment(retriever, qa.QAConfig(
      top_k=1, max_passage_chars=1000, slack=2, max_turns=None))


@functools.cache
def jobs(num, objectives=2):
  composer = Composer(sources.load_atlas('test'), objectives, 0, LABELS)
  return [Job(composer.task(i), i) for i in range(num)]


def make_agent(name, style='atlas', capacity=500):
  tokenizer = conversation.with_markers(small.tokenizer(), style)
  make = {'mem1': Mem1Agent, 'full_context': FullContextAgent}[name]
  return make(tokenizer, capacity, style, Gaps(0, 0, 0.0))


def experts(agent, some):
  return Experts([job.task for job in some], not agent.is_append_only)


def collector(url, agent, api='completions', begin=None, capacity=4000, turn_capacity=300,
              num_concurrent=4, limits=QUICK, **kwargs):
  model = ServedModel(url, Settings(api, 'writer'), limits)
  return RemoteCollector(model, agent, begin or world().start, agent.tokenizer, capacity,
                         turn_capacity, num_concurrent, **kwargs)


def collect(server, agent, some, max_tokens=82, on_done=lambda _: None, **kwargs):
  with model_server.running(server) as url:
    return collector(url, agent, **kwargs).run(some, max_tokens, on_done)


def writes(text, finish='stop'):
  return lambda *_: (text, finish)


def timeless(trajectories):
  return [dataclasses.replace(t, seconds=0.0) for t in trajectories]


@pytest.mark.parametrize('agent', ['mem1', 'full_context'])
@pytest.mark.parametrize('api', ['completions', 'chat'])
@pytest.mark.parametrize('style', ['strips', 'says', 'includes', 'goes_on'])
def test_an_expert_is_right_whatever_servers_do_with_stop_strings(style, api, agent):
  some, agent = jobs(5), make_agent(agent)
  server, heard = ModelServer(experts(agent, some), style), []
  trajectories, stats = collect(server, agent, some, api=api, on_done=heard.append)
  assert [t.task.id for t in trajectories] == [job.task.id for job in some]
  assert [t.reward for t in trajectories] == [2.0] * 5
  assert {turn.stop for t in trajectories for turn in t.turns} == {Stop.TAG}
  assert stats.num_faults == stats.num_malformed == stats.num_overflow == 0
  assert stats.num_turns == len(server.requests) == sum(len(t.turns) for t in trajectories)
  assert sorted(t.task.id for t in heard) == sorted(t.task.id for t in trajectories)


def test_an_experts_turns_are_those_that_it_plays_here():
  from mem1_jax.agents import expert
  some = jobs(4)
  for name in ('mem1', 'full_context'):
    agent = make_agent(name)
    trajectories, _ = collect(ModelServer(experts(agent, some)), agent, some)
    for job, trajectory in zip(some, trajectories):
      played = expert.play(job.task, agent, world().start(job.task), agent.tokenizer, None)
      here, there = ([(turn.context, turn.written, turn.action, turn.reward) for turn in t.turns]
                     for t in (played, trajectory))
      assert here == there
      assert (trajectory.answer, trajectory.searches) == (played.answer, played.searches)


@pytest.mark.parametrize('style', ['base', 'chatml'])
@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_prompts_for_people(api, style):
  some, agent = jobs(3), make_agent('full_context', style)
  server = ModelServer(lambda text, _: ('<search> Oslo', 'stop'))
  collect(server, agent, some, api=api, num_concurrent=1)
  first, second = server.requests[:2]
  if api == 'chat':
    assert [m['role'] for m in first['messages']] == ['system', 'user']
    assert [m['role'] for m in second['messages']] == ['system', 'user', 'assistant', 'user']
    assert second['messages'][2]['content'] == '<search> Oslo</search>'
  else:
    assert second['prompt'].startswith(f'{first["prompt"]}<search> Oslo</search><information>')
    assert first['prompt'].endswith('assistant\n') == (style == 'chatml')


def test_a_constant_memory_forgets():
  some, agent = jobs(1), make_agent('mem1')
  texts = iter(['<search> Oslo', '<search> Lima', '<answer> x'])
  server = ModelServer(lambda *_: (next(texts), 'stop'))
  (trajectory,), _ = collect(server, agent, some)
  asked = [request['prompt'] for request in server.requests]
  assert '<search> Oslo</search><information>' in asked[1] and 'Oslo' not in asked[2]
  assert asked[2].startswith(asked[0]) and '<search> Lima</search><information>' in asked[2]
  assert trajectory.answer == 'x' and trajectory.turns[-1].written.kinds == (
      Kind.ACTION,) * len(trajectory.turns[-1].written)


TROUBLES = ['429', '500', 'garbage', 'empty', 'no_text', '503', '', '408', 'hang']


@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_an_expert_is_right_in_spite_of_troubles(api):
  some, agent = jobs(6), make_agent('mem1')
  server = ModelServer(experts(agent, some), troubles=TROUBLES, retry_after='0')
  trajectories, stats = collect(server, agent, some, api=api, limits=Limits(
      timeout_s=1.0, backoff_s=0.001, max_tries=9))
  assert [t.reward for t in trajectories] == [2.0] * 6 and stats.num_faults == 0
  assert not server.troubles


def test_an_episode_without_its_server_is_a_fault_and_the_others_go_on(caplog):
  some, agent = jobs(5), make_agent('mem1')
  server = ModelServer(experts(agent, some), troubles=['', '500', '500', '500'])
  trajectories, stats = collect(server, agent, some, num_concurrent=1)
  assert [t.reward for t in trajectories] == [0.0, 2.0, 2.0, 2.0, 2.0] and stats.num_faults == 1
  first = trajectories[0]
  assert len(first.turns) == 1 and first.answer is None
  assert first.fault.startswith('endpoint, server_errors: status 500 of http://127.0.0.1:')
  assert caplog.text.count('an episode ended without its server') == 1


def test_a_server_that_answers_nobody_stops_the_run():
  some, agent = jobs(30), make_agent('mem1')
  server = ModelServer(writes('x'), always='500')
  with pytest.raises(ValueError, match=r'none of 8 episodes in a row; the last .*status 500.*kept'):
    collect(server, agent, some)
  assert len(server.requests) <= 3 * (8 + 4)
  with pytest.raises(ValueError, match='none of 2 episodes in a row; .*connection_errors'):
    collector('http://127.0.0.1:9', agent).run(some[:2], 9)


def test_a_server_that_goes_away_stops_the_run():
  some, agent = jobs(40), make_agent('mem1')
  server = ModelServer(experts(agent, some), troubles=[''] * 20, always='503')
  with pytest.raises(ValueError, match='none of 8 episodes in a row'):
    collect(server, agent, some)


@pytest.mark.parametrize('server, message', [
    (ModelServer(writes('x'), key='k'), 'status 401 .*endpoint.key_variable'),
    (ModelServer(writes('x'), always='404'), 'status 404 .*endpoint.model')])
def test_what_is_wrong_with_the_run_stops_it_at_once(server, message):
  with pytest.raises(ValueError, match=message):
    collect(server, make_agent('mem1'), jobs(30), num_concurrent=1)
  assert len(server.requests) == 1


def test_a_context_that_the_server_finds_too_long_ends_its_episode():
  some, agent = jobs(2), make_agent('full_context')
  server = ModelServer(writes('<search> Oslo'), troubles=['', ''], always='too_long')
  trajectories, stats = collect(server, agent, some)
  assert (stats.num_overflow, stats.num_faults) == (2, 0)
  # Whoever asks first has the two turns that were answered.
  assert sum(len(t.turns) for t in trajectories) == 2 and not any(t.fault for t in trajectories)


def test_an_episode_that_outgrows_its_capacity_is_ended_and_counted():
  some, agent = jobs(1), make_agent('full_context')
  (whole,), stats = collect(ModelServer(writes('<search> Oslo')), agent, some)
  assert stats.num_overflow == 0 and len(whole.turns) == world().start(some[0].task).max_turns
  read = len(whole.prompt) + len(whole.turns[0].written) + len(whole.turns[1].context.segment)
  for capacity, turns in ((read + 82, 2), (read + 81, 1)):
    (cut,), stats = collect(ModelServer(writes('<search> Oslo')), agent, some, capacity=capacity)
    assert (len(cut.turns), stats.num_overflow, cut.fault) == (turns, 1, '')


@pytest.mark.parametrize('text, finish, stop, action', [
    ('ramble', 'length', Stop.LENGTH, 'no action'), ('ramble', 'stop', Stop.EOS, 'no action'),
    ('', 'stop', Stop.EOS, 'no action'), ('', 'length', Stop.LENGTH, 'no action'),
    ('<think>a <search> b', 'stop', Stop.EOS, 'think not closed')])
@pytest.mark.parametrize('agent', ['mem1', 'full_context'])
def test_turns_without_an_action(agent, text, finish, stop, action):
  some, agent = jobs(1), make_agent(agent)
  (trajectory,), stats = collect(ModelServer(writes(text, finish)), agent, some)
  assert stats.num_malformed == len(trajectory.turns) == world().start(some[0].task).max_turns
  assert stats.num_length_stops == (stop is Stop.LENGTH) * stats.num_turns
  turn, eos = trajectory.turns[0], agent.tokenizer.eos_id
  assert turn.action == types.Action(ActionKind.MALFORMED, action) and turn.stop is stop
  assert len(turn.written) and (turn.written.ids[-1] == eos) == (stop is Stop.EOS or not text)


def test_a_turn_that_is_longer_than_any_is_cut_and_has_run_out_of_tokens():
  some, agent = jobs(1), make_agent('mem1')
  text = '<think>' + 'a long thought ' * 50 + '</think><answer> x</answer>'
  (trajectory,), stats = collect(ModelServer(writes(text)), agent, some, turn_capacity=40)
  assert {len(turn.written) for turn in trajectory.turns} == {40}
  assert stats.num_length_stops == stats.num_malformed == len(trajectory.turns)


@dataclasses.dataclass
class Broken:
  """An environment's episode that fails, or hangs, where it is told to (a fake)."""

  inner: qa.QAEpisode
  fails: bool = False
  gate: threading.Event | None = None

  def __getattr__(self, name):
    return getattr(self.inner, name)

  def need(self, action):
    if self.fails:
      raise OSError('the world is gone')
    if self.gate:
      self.gate.wait(20)
    return self.inner.need(action)


def test_an_environment_that_fails_or_hangs_ends_its_own_episode(caplog):
  some, agent, gate = jobs(4), make_agent('mem1'), threading.Event()
  broken = {some[1].task.id: dict(fails=True), some[2].task.id: dict(gate=gate)}

  def begin(task):
    return Broken(world().start(task), **broken.get(task.id, {}))

  with caplog.at_level(logging.ERROR):
    trajectories, stats = collect(ModelServer(experts(agent, some)), agent, some, begin=begin,
                                  reply_timeout_s=1.0)
  gate.set()
  assert [t.reward for t in trajectories] == [2.0, 0.0, 0.0, 2.0] and stats.num_faults == 2
  assert [t.fault for t in trajectories] == [
      '', 'OSError: the world is gone', 'no reply within 1 s', '']


def test_searches_that_cannot_be_done_are_outages():
  class Down:
    def search(self, queries, top_k):
      return [types.Unavailable('down')] * len(queries)

  some, agent = jobs(1), make_agent('mem1')
  begin = qa.QAEnvironment(Down(), world().config).start
  (trajectory,), stats = collect(ModelServer(writes('<search> x')), agent, some, begin=begin)
  assert stats.num_outages == trajectory.outages == len(trajectory.turns) - 1
  assert trajectory.turns[0].outage == 'down'


def test_episodes_run_side_by_side_and_do_not_know_each_other():
  some, agent = jobs(8), make_agent('mem1')
  together, lock, is_first = threading.Barrier(4, timeout=10), threading.Lock(), set()
  expert = experts(agent, some)

  def writer(text, max_tokens):
    with lock:
      is_met = len(is_first) >= 4
      is_first.add(text)
    if not is_met:
      together.wait()
    return expert(text, max_tokens)

  crowd, _ = collect(ModelServer(writer), agent, some, num_concurrent=4)
  alone, _ = collect(ModelServer(experts(agent, some)), agent, some, num_concurrent=1)
  assert timeless(crowd) == timeless(alone)


def test_an_error_of_our_own_is_not_hidden():
  def begin(task):
    raise KeyError('bug')

  with pytest.raises(KeyError, match='bug'):
    collect(ModelServer(writes('x')), make_agent('mem1'), jobs(1), begin=begin)
  with pytest.raises(ValueError, match='endpoint.concurrent 0'):
    collector('http://a', make_agent('mem1'), num_concurrent=0)


def test_no_jobs():
  assert collector('http://127.0.0.1:9', make_agent('mem1')).run([], 9)[0] == []
