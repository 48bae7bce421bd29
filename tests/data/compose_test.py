"""Composition: permutations, coverage, and that a task depends on nothing else."""

import collections

from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.data import compose

LABELS = tuple(f'[{i}]' for i in range(80))


def questions(count, starts=None):
  """`count` questions; with `starts`, that many documents to begin at."""
  return [types.Question(f'q{i}', f'What is {i}?', (f'a{i}',),
                         chain=(f'd{i % starts}', 'x') if starts else ()) for i in range(count)]


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
