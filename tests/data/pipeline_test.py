"""Feeds: tf.data and NumPy agree, hosts and restarts change nothing."""

import itertools
import subprocess
import sys

import pytest

from mem1_jax import types
from mem1_jax.data import compose
from mem1_jax.data import mixture
from mem1_jax.data import pipeline

COMPOSER = compose.Composer(
    [types.Question(f'q{i}', 'What?', ('a',)) for i in range(30)], (1, 3), 0,
    [f'[{i}]' for i in range(9)])
HAS_TENSORFLOW = pipeline.importlib.util.find_spec('tensorflow') is not None


MIXTURE = mixture.Mixture([COMPOSER, compose.Composer(
    [types.Question(f'r{i}', 'Who?', ('b',)) for i in range(20)], 2, 1,
    [f'[{i}]' for i in range(9)], 'other')], (2, 1), 0)


def make(name):
  if name == 'tfdata_feed' and not HAS_TENSORFLOW:
    pytest.skip('TensorFlow is not installed')
  return getattr(pipeline, name)


def take(feed, count):
  return list(itertools.islice(feed, count))


FEEDS = pytest.mark.parametrize('name', ['numpy_feed', 'tfdata_feed'])


@FEEDS
def test_batches_are_the_tasks_in_order(name):
  batches = take(make(name)(COMPOSER, 4, 10), 3)
  assert [batch.indices.tolist() for batch in batches] == [
      [10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20, 21]]
  assert [batch.next_index for batch in batches] == [14, 18, 22]
  assert [task for batch in batches for task in batch.tasks] == [
      COMPOSER.task(i) for i in range(10, 22)]


@FEEDS
def test_seeking_continues(name):
  whole = take(make(name)(COMPOSER, 2, 0), 4)
  rest = take(make(name)(COMPOSER, 2, whole[1].next_index), 2)
  assert [batch.tasks for batch in rest] == [batch.tasks for batch in whole[2:]]


@FEEDS
@pytest.mark.parametrize('hosts', [2, 3, 6])
def test_hosts_share_each_batch_in_order(name, hosts):
  alone = take(pipeline.numpy_feed(COMPOSER, 6, 12), 2)
  parts = [take(make(name)(COMPOSER, 6, 12, host, hosts), 2) for host in range(hosts)]
  for k, batch in enumerate(alone):
    assert tuple(task for part in parts for task in part[k].tasks) == batch.tasks
    assert {part[k].next_index for part in parts} == {batch.next_index}


@FEEDS
def test_far_seeks_cost_nothing(name):
  batch = next(make(name)(COMPOSER, 2, 10**15))
  assert batch.tasks[0] == COMPOSER.task(10**15)


@FEEDS
@pytest.mark.parametrize('arguments', [(0, 0), (2, -1), (2, 0, 2, 2), (3, 0, 0, 2), (2, 0, -1, 1)])
def test_bad_arguments_raise_at_once(name, arguments):
  with pytest.raises(ValueError):
    make(name)(COMPOSER, *arguments)


def test_default_feed():
  assert next(pipeline.feed(COMPOSER, 2, 0)).tasks == next(
      pipeline.numpy_feed(COMPOSER, 2, 0)).tasks


def test_numpy_feed_without_tensorflow():
  code = '\n'.join([
      'import sys; sys.modules["tensorflow"] = None',
      'from mem1_jax import types',
      'from mem1_jax.data import compose, pipeline',
      'questions = [types.Question("q", "What?", ("a",))]',
      'composer = compose.Composer(questions, 1, 0, ["[a]"])',
      'assert len(next(pipeline.numpy_feed(composer, 2, 0)).tasks) == 2',
      'assert len(next(pipeline.feed(composer, 2, 0)).tasks) == 2',
  ])
  subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


@FEEDS
def test_two_hosts_are_disjoint_and_complete_over_an_epoch(name):
  asked = [types.Question(f'q{i}', 'What?', ('a',)) for i in range(96)]
  composer = compose.Composer(asked, 2, 4, [f'[{i}]' for i in range(9)])
  parts = [take(make(name)(composer, 8, 0, host, 2), 6) for host in range(2)]
  used = [[q.id for batch in part for task in batch.tasks for q in task.questions]
          for part in parts]
  assert not set(used[0]) & set(used[1])
  assert sorted(used[0] + used[1]) == sorted(q.id for q in asked)


@FEEDS
def test_a_mixture_is_fed_and_continued_in_the_middle_of_an_epoch(name):
  whole = take(make(name)(MIXTURE, 4, 0), 8)
  assert [t for batch in whole for t in batch.tasks] == [MIXTURE.task(i) for i in range(32)]
  for k in (1, 3):
    rest = take(make(name)(MIXTURE, 4, whole[k].next_index), 8 - k - 1)
    assert [batch.tasks for batch in rest] == [batch.tasks for batch in whole[k + 1:]]
