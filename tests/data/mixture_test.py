"""Mixtures: weights exactly, each source one after another, nothing but (seed, index)."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.data.compose import Composer
from mem1_jax.data.mixture import Mixture, counts

LABELS = tuple(f'[{i}]' for i in range(8))


def composer(name, count, objectives=2):
  questions = [types.Question(f'{name}{i}', 'What?', ('a',)) for i in range(count)]
  return Composer(questions, objectives, 0, LABELS, name)


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_source_runs_through_its_own_tasks(weights, seed):
  parts = [composer('abcd'[k], 10 + k) for k in range(len(weights))]
  mixture = Mixture(parts, weights, seed)
  block = sum(mixture.counts)
  tasks = mixture.tasks(range(3 * block))
  for part, name, share in zip(parts, 'abcd', mixture.counts):
    own = [task for task in tasks if task.source == name]
    assert own == list(part.tasks(range(3 * share)))
  assert collections.Counter(task.source for task in tasks[block:2 * block]) == dict(
      zip('abcd', mixture.counts))


@given(index=st.integers(0, 10**12), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_tasks_are_pure(index, seed):
  parts = [composer('a', 12), composer('b', 9, (1, 2))]
  mixture = Mixture(parts, (0.7, 0.3), seed)
  expected = mixture.tasks([index, index + 5])
  assert (Mixture(parts, (7, 3), seed).task(index), mixture.task(index + 5)) == expected


def test_a_mixture_may_be_mixed_again():
  inner = Mixture([composer('a', 12), composer('b', 12)], (1, 1), 0)
  outer = Mixture([inner, composer('c', 12)], (2, 1), 1)
  found = collections.Counter(task.source for task in outer.tasks(range(60)))
  assert found == {'a': 20, 'b': 20, 'c': 20}


def test_at_counts_each_source():
  mixture = Mixture([composer('a', 9), composer('b', 9)], (3, 1), 4)
  part, own = mixture.at(np.arange(40))
  assert sorted(own[part == 0]) == list(range(30)) and list(own[part == 1]) == list(range(10))
  assert len({tuple(part[i:i + 4]) for i in range(0, 40, 4)}) > 1


@pytest.mark.parametrize('weights, expected', [
    ((1,), (1,)), ((3, 1), (3, 1)), ((0.7, 0.3), (7, 3)), ((1, 1, 1), (1, 1, 1)),
    ((0.5, 0.25, 0.25), (2, 1, 1)), ((100, 1), (99, 1)), ((90447, 79168), (53, 47))])
def test_weights_as_tasks_of_a_block(weights, expected):
  assert counts(weights) == expected


@pytest.mark.parametrize('weights, message', [
    ((1, 0), 'positive'), ((1, -2), 'positive'), ((1, float('nan')), 'positive'),
    ((1, float('inf')), 'positive'), ((1000, 1), 'rounds to no task'), ((1,), '2 parts and 1'),
    ((1e9, 1e-9), 'rounds to no task')])
def test_impossible_weights(weights, message):
  with pytest.raises(ValueError, match=message):
    Mixture([composer('a', 9), composer('b', 9)], weights, 0)


def test_nothing_to_mix_and_negative_indices():
  with pytest.raises(ValueError, match='0 parts'):
    Mixture([], (), 0)
  with pytest.raises(ValueError, match='index=-1'):
    Mixture([composer('a', 9)], (1,), 0).task(-1)
