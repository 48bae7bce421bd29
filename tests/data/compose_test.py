"""Composition: permutations, coverage, and that a task depends on nothing else."""

import collections

from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.data import compose, sources
from mem1_jax.data.schedule import Stage

LABELS = tuple(f'[{i}]' for i in range(80))


def questions(count, starts=None):
  """`count` questions; with `starts`, that many documents to begin at."""
  return [types.Question(f'q{i}', f'What is {i}?', (f'a{i}',),
                         chain=(f'd{i % starts}', 'x') if starts else ()) for i in range(count)]


def as_first_written(questions, sizes, seed, labels, index):
  """(ids, labels) of a task, one number after another, as composition was first defined."""
  def start(question):
    return question.chain[0] if question.chain else question.id

  num, key = len(questions), compose.hash64(seed, 1, index // len(sizes))
  drawn = [sizes[compose.permute(i, len(sizes), key)] for i in range(index % len(sizes) + 1)]
  first, chosen = index // len(sizes) * sum(sizes) + sum(drawn[:-1]), {}
  for slot in range(first, first + drawn[-1]):
    key = compose.hash64(seed, 2, slot // num)
    question = questions[compose.permute(slot % num, num, key)]
    if start(question) in chosen:
      begin, key = compose.hash64(seed, 4, slot) % num, compose.hash64(seed, 5, slot)
      others = (questions[compose.permute((begin + i) % num, num, key)] for i in range(num))
      question = next(other for other in others if start(other) not in chosen)
    chosen[start(question)] = question
  key = compose.hash64(seed, 3, index)
  return ([question.id for question in chosen.values()],
          [labels[compose.permute(i, len(labels), key)] for i in range(drawn[-1])])


def ids(task):
  return [question.id for question in task.questions]


def test_hash_is_the_published_one():
  # splitmix64 from seed 0: its first output (https://prng.di.unimi.it/splitmix64.c)
  assert compose.hash64(0) == 0xE220A8397B1DCDAF
  assert compose.hash64(1, 2) != compose.hash64(2, 1)


@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
@example(size=1, key=0)
@example(size=2, key=1)
def test_permute_is_a_bijection(size, key):
  assert sorted(compose.permute(i, size, key) for i in range(size)) == list(range(size))


def test_permute_mixes_and_depends_on_its_key():
  counts = collections.Counter(compose.permute(0, 5, key) for key in range(2000))
  assert min(counts.values()) > 320 and len(counts) == 5  # 400 each, 4.5 sigma
  with pytest.raises(ValueError, match='position=5'):
    compose.permute(5, 5, 0)


def test_each_epoch_uses_each_question_once():
  composer = compose.Composer(questions(12), 3, 7, LABELS)
  epochs = [[i for t in range(e * 4, e * 4 + 4) for i in ids(composer.task(t))] for e in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == sorted(f'q{i}' for i in range(12))
  assert epochs[0] != epochs[1] != epochs[2]


def test_a_range_spreads_its_sizes_evenly():
  composer = compose.Composer(questions(100), (2, 5), 0, LABELS)
  sizes = [len(composer.task(i).questions) for i in range(80)]
  assert collections.Counter(sizes) == {2: 20, 3: 20, 4: 20, 5: 20}
  assert sizes[:4] != sizes[4:8] or sizes[:4] != sizes[8:12]
  used = [i for t in range(80) for i in ids(composer.task(t))]  # 280 slots, epochs of 100
  counts = collections.Counter(used)
  assert set(counts.values()) <= {1, 2, 3, 4} and len(counts) == 100


@given(count=st.integers(1, 40), seed=st.integers(0, 99), index=st.integers(0, 10**12),
       data=st.data())
@settings(max_examples=150, deadline=None)
def test_tasks_are_pure_and_without_duplicates(count, seed, index, data):
  starts = data.draw(st.none() | st.integers(1, count))
  low = data.draw(st.integers(1, starts or count))
  high = data.draw(st.integers(low, starts or count))
  task = compose.Composer(questions(count, starts), (low, high), seed, LABELS, 'test').task(index)
  again = compose.Composer(questions(count, starts), (low, high), seed, LABELS, 'test')
  again.task(index + 1)
  assert task == again.task(index)
  assert low <= len(task.questions) <= high
  assert len(set(ids(task))) == len(task.questions) == len(task.labels)
  assert len(set(task.labels)) == len(task.labels) and set(task.labels) <= set(LABELS)
  if starts:
    assert len({question.chain[0] for question in task.questions}) == len(task.questions)
  assert (task.id, task.source) == (f'test-{seed}-{index}', 'test')


def test_sixty_four_objectives_of_sixty_four_questions():
  composer = compose.Composer(questions(64), 64, 3, LABELS)
  for index in range(3):
    assert sorted(ids(composer.task(index))) == sorted(f'q{i}' for i in range(64))
  composer = compose.Composer(questions(100, 64), 64, 3, LABELS)
  assert len({q.chain[0] for q in composer.task(1).questions}) == 64


def test_seeds_give_other_tasks_and_labels():
  one, two = (compose.Composer(questions(50), 2, seed, LABELS) for seed in (0, 1))
  assert [ids(one.task(i)) for i in range(9)] != [ids(two.task(i)) for i in range(9)]
  drawn = collections.Counter(label for i in range(400) for label in one.task(i).labels)
  assert len(drawn) == 80 and max(drawn.values()) < 30  # 10 each


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_objectives=0), 'num_objectives=0'),
    (dict(num_objectives=(3, 2)), r'\(3, 2\)'),
    (dict(num_objectives=9), 'questions of different starts, there are 8'),
    (dict(num_objectives=5, questions=questions(8, 4)), 'different starts, there are 4'),
    (dict(num_objectives=3, labels=LABELS[:2]), 'labels, there are 2'),
    (dict(labels=('[a]', '[a]')), r"'\[a\]' comes twice"),
    (dict(questions=questions(2) * 2), "'q0' comes twice"),
    (dict(questions=[]), 'there are 0'),
])
def test_impossible_compositions(kwargs, message):
  arguments = dict(questions=questions(8), num_objectives=2, seed=0, labels=LABELS) | kwargs
  with pytest.raises(ValueError, match=message):
    compose.Composer(**arguments)


def test_negative_index():
  with pytest.raises(ValueError, match='index=-1'):
    compose.Composer(questions(8), 2, 0, LABELS).task(-1)


@given(count=st.integers(4, 60), seed=st.integers(-5, 99), index=st.integers(0, 10**12),
       data=st.data())
@settings(max_examples=80, deadline=None)
def test_tasks_are_what_they_have_always_been(count, seed, index, data):
  starts = data.draw(st.integers(2, count - 1))
  low = data.draw(st.integers(1, starts))
  high = data.draw(st.integers(low, starts))
  asked = questions(count, starts)
  task = compose.Composer(asked, (low, high), seed, LABELS).task(index)
  expected = as_first_written(asked, range(low, high + 1), seed, LABELS, index)
  assert (ids(task), list(task.labels)) == expected


def test_tasks_of_the_atlas_are_what_they_have_always_been():
  asked = sources.load_atlas('validation')
  composer = compose.Composer(asked, (1, 8), 5, LABELS)
  for index, task in zip(range(600, 640), composer.tasks(range(600, 640)), strict=True):
    assert (ids(task), list(task.labels)) == as_first_written(
        asked, range(1, 9), 5, LABELS, index)


@given(size=st.integers(1, 6), more=st.integers(0, 2), extra=st.integers(0, 25),
       seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_epoch_uses_a_question_twice(size, more, extra, seed):
  count = 4 * (size + more) + extra
  composer = compose.Composer(questions(count), (size, size + more), seed, LABELS)
  used, index = [], 0
  while len(used) < 5 * count:
    used += ids(composer.task(index))
    index += 1
  for epoch in range(5):
    assert len(set(used[epoch * count:(epoch + 1) * count])) == count


def test_many_at_once_are_those_one_at_a_time():
  composer = compose.Composer(questions(100, 70), (1, 16), 0, LABELS, 'x')
  indices = [3, 3, 10**15, *range(90)]
  assert composer.tasks(indices) == tuple(composer.task(i) for i in indices)
  assert composer.tasks([]) == ()


@given(seed=st.integers(0, 99), index=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_a_curriculum_goes_through_the_questions_once(seed, index):
  curriculum = [Stage(0, 1, 2), Stage(7, 2, 2), Stage(20, 3, 5)]
  composer = compose.Composer(questions(60), curriculum, seed, LABELS)
  sizes = [len(task.questions) for task in composer.tasks(range(25))]
  assert set(sizes[:7]) == {1, 2} and set(sizes[7:20]) == {2} and set(sizes[20:25]) == {3, 4, 5}
  used = [i for task in composer.tasks(range(25)) for i in ids(task)]
  assert len(set(used[:60])) == min(60, len(used))
  assert compose.Composer(questions(60), curriculum, seed, LABELS).task(index) == (
      composer.task(index))


def test_a_curriculum_of_one_stage_is_a_range():
  one, other = (compose.Composer(questions(40), n, 3, LABELS) for n in ((1, 4), [Stage(0, 1, 4)]))
  assert one.tasks(range(30)) == other.tasks(range(30))


@pytest.mark.shared_data
@pytest.mark.parametrize('objectives', [1, 2, 8, 16])
def test_the_7405_questions(shared_data, objectives):
  asked = sources.load(f'hotpotqa:{shared_data}/hotpotqa/dev_7405.json').questions
  composer = compose.Composer(asked, objectives, 0, LABELS, 'dev')
  tasks = composer.tasks(range(2 * 7405 // objectives))
  used = [i for task in tasks for i in ids(task)]
  for epoch in (used[:7405], used[7405:]):
    assert len(set(epoch)) == len(epoch) > 7405 - objectives


def ready(count, labels=()):
  return [types.Task(f't{i}', tuple(questions(2)), labels, 'file') for i in range(count)]


def test_ready_tasks_come_once_per_epoch():
  given_tasks = ready(10)
  composer = compose.Ready(given_tasks, 0, LABELS)
  tasks = composer.tasks(range(30))
  names = [task.id.partition('-')[0] for task in tasks]
  for epoch in (names[:10], names[10:20], names[20:]):
    assert sorted(epoch) == sorted(task.id for task in given_tasks)
  assert names[:10] != names[10:20]
  assert composer.task(17) == tasks[17] == compose.Ready(given_tasks, 0, LABELS).task(17)
  assert len({task.id for task in tasks}) == 30
  assert len({task.labels for task in tasks}) > 20
  assert all(len(set(task.labels)) == 2 for task in tasks)


def test_ready_tasks_keep_the_labels_that_they_have():
  composer = compose.Ready(ready(3, ('[a]', '[b]')), 0, LABELS)
  assert {task.labels for task in composer.tasks(range(9))} == {('[a]', '[b]')}


@pytest.mark.parametrize('arguments, message', [
    (([], 0, LABELS), 'there are 0 tasks'), ((ready(2) * 2, 0, LABELS), "'t0' comes twice"),
    ((ready(2), 0, ['[a]']), 'labels, there are 1')])
def test_what_cannot_be_ready(arguments, message):
  with pytest.raises(ValueError, match=message):
    compose.Ready(*arguments)


def test_an_index_that_slots_cannot_count():
  with pytest.raises(ValueError, match='2\\^53'):
    compose.Composer(questions(8), 2, 0, LABELS).task(2**53)
