"""Slots do not know each other; what ends an episode; what is counted."""

import dataclasses

import pytest

from mem1_jax import types
from mem1_jax.env import qa
from mem1_jax.memory import state
from mem1_jax.rollout.collect import Collector, Job
from mem1_jax.rollout.sampling import sampling
from mem1_jax.types import Kind, Stop
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


def timeless(trajectory):
  turns = tuple(dataclasses.replace(turn, seconds=0.0) for turn in trajectory.turns)
  return dataclasses.replace(trajectory, turns=turns, seconds=0.0)


@pytest.mark.parametrize('agent', ['mem1', 'full_context'])
def test_an_episode_is_the_same_alone_in_a_crowd_and_in_any_order(agent):
  """To the last bit of its log-probs: same program, other slots empty, full or refilled."""
  with small.exact_arithmetic('float32'):
    collector = small.collector('float32', agent, gap=60)
    programs = small.engine('float32')._turn
    programs.clear_cache()  # of other tests, some of which call it with adapters
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
    assert programs._cache_size() == 1
  first, again = crowd[0, 0].turns[0].written.ids, crowd[0, 1].turns[0].written.ids
  assert len({first, again, other[0].turns[0].written.ids}) == 3
