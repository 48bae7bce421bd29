"""Who gets which slot, and what the programs are told of it."""

from mem1_jax import types
from mem1_jax.memory import state
from mem1_jax.rollout.decode import DROPPED
from mem1_jax.rollout.slots import Episode, Group, Job, Tick, Timing
from mem1_jax.types import Kind

REFILL_ROWS = 2


def group(number=0):
  return Group(number, num_slots=3, num_questions=4)


def begin(group, index, num=3, is_append_only=False):
  """An episode whose question is `num` times its task's number."""
  prompt = types.Segment((index,) * num, tuple(range(num)), (Kind.PROMPT,) * num)
  task = types.Task(f't{index}', (types.Question('q', 'a?', ('b',)),), ('[kf]',), 'test')
  episode = Episode(Job(task, index), index, None, group.ask(prompt), None,
                    state.first_context(prompt), num - 1, is_append_only, 0.0)
  group.ready.append(episode)
  return episode


def tick(*groups, num_groups=1):
  made = Tick(REFILL_ROWS, num_groups, groups)
  for each in groups:
    each.choose(made, is_last=False)
    each.begin(made)
  return made


def test_slots_are_filled_in_order_and_a_few_at_a_time():
  one = group()
  episodes = [begin(one, i) for i in range(4)]
  first = tick(one)
  assert first.refills == {0: list(zip(episodes, (0, 1)))}
  assert [e.slot for e in episodes] == [0, 1, None, None]
  assert first.counts == {'reads': 2, 'refills': 2, 'ready': 3, 'left': 0}
  for episode in episodes:
    episode.question.is_read = True
  second = tick(one)
  assert second.refills == {0: [(episodes[2], 2)]} and second.counts['ready'] == 1
  assert list(one.ready) == [episodes[3]]


def test_a_question_is_read_once_and_its_row_freed_with_its_last_episode():
  one = group()
  episodes = [begin(one, 7), begin(one, 7)]
  assert episodes[0].question is episodes[1].question
  assert tick(one).reads == {0: [episodes[0].question]}
  one.leave(episodes[0])
  assert one.slots[0] is None and len(one.free_rows) == 3 and one.num_episodes == 1
  one.leave(episodes[1])
  assert sorted(one.free_rows) == [0, 1, 2, 3] and not one.questions
  for i in range(4):
    begin(one, i)
  assert one.ask(types.Segment((9,), (0,), (Kind.PROMPT,))) is None  # no row is left


def test_an_episode_that_keeps_its_slot_goes_on_in_it():
  one = group()
  episode = begin(one, 1, is_append_only=True)
  tick(one)
  assert not episode.keeps_slot  # its first turn
  episode.turns.append(None)
  episode.question.is_read = True
  others = [begin(one, i) for i in (2, 3)]
  one.ready.append(episode)
  made = tick(one)
  assert made.refills == {0: [(episode, 0), (others[0], 1)]}
  refill = made.refill(8)
  assert refill.slot.tolist() == [0, 1] and refill.is_own.tolist() == [True, False]
  assert tick(one).refill(8).slot.tolist() == [2, DROPPED]


def test_the_programs_are_told_of_all_groups():
  """This process has the second of three."""
  one = group(number=1)
  episode = begin(one, 5)
  made = tick(one, num_groups=3)
  questions, refill = made.questions(4), made.refill(6)
  assert questions.row.tolist() == [DROPPED] * 2 + [episode.question.row] + [DROPPED] * 3
  assert questions.tokens[2].tolist() == [5, 5, 5, 0]
  assert questions.length.tolist() == [0, 0, 3, 0, 0, 0]
  assert questions.position[2].tolist() == [0, 1, 2, 0]
  assert refill.slot.tolist() == [DROPPED] * 2 + [0] + [DROPPED] * 3
  assert refill.memory.keep.tolist() == [0, 0, 2, 0, 0, 0]
  assert refill.memory.tokens.shape == (6, 6)
  assert refill.memory.length.tolist() == [0, 0, 1, 0, 0, 0]
  assert refill.ids[2].tolist() == [5, 0, 0]


def counts(refills=0, ready=0, pending=0):
  return {'refills': refills, 'ready': ready, 'pending': pending}


def test_a_refill_waits_until_it_is_whole_in_proportion_to_the_active_slots():
  timing = Timing(refill_size=4, num_slots=32)
  assert [timing.is_due(counts(n, n), 32, False) for n in range(5)] == [False] * 4 + [True]
  assert [timing.is_due(counts(n, n), 16, False) for n in range(3)] == [False, False, True]
  assert [timing.is_due(counts(n, n), 0, False) for n in range(2)] == [False, True]
  assert timing.is_due(counts(2, 6), 32, False), 'one group has all that is ready'
  assert not timing.is_due(counts(2, 5), 32, False)


def test_what_a_refill_lacks_is_what_decoding_waits_for():
  timing = Timing(refill_size=4, num_slots=32)
  assert timing.lack(counts(3, 3), 32, False) == 1
  assert timing.lack(counts(4, 5), 32, True) == 3
  assert timing.lack(counts(4, 9), 32, True) < 0, 'the next refill follows at once'


def test_lock_step_waits_for_all_slots_and_environments_then_fills_all():
  timing = Timing(refill_size=2, num_slots=4, is_lockstep=True)
  assert not timing.is_due(counts(2, 4), 1, False) and not timing.is_due(counts(2, 3, 1), 0, False)
  assert timing.is_due(counts(2, 4), 0, False) and timing.lack(counts(2, 4), 2, True) < 0
  assert timing.is_due(counts(2, 2), 2, True)


def test_who_is_ahead_begins_first_until_nothing_is_left_to_start():
  for is_last in (False, True):
    one = group()
    new, ahead = (begin(one, i) for i in range(2))
    ahead.turns.append(None)
    made = Tick(1, 1, [one])
    one.choose(made, is_last)
    assert made.refills == {0: [(new if is_last else ahead, 0)]}
