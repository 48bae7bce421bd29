"""Slots of tasks: next to each other, and found both ways, whatever the curriculum."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax.data.schedule import Schedule, Stage, stages


@st.composite
def curricula(draw):
  starts = [0, *draw(st.lists(st.integers(1, 60), unique=True, max_size=3))]
  lows = [draw(st.integers(1, 6)) for _ in starts]
  return [Stage(start, low, low + draw(st.integers(0, 4))) for start, low in zip(starts, lows)]


@given(curriculum=curricula(), seed=st.integers(0, 99), per_slot=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_tasks_take_the_slots_one_after_another(curriculum, seed, per_slot):
  schedule = Schedule(curriculum, seed, per_slot)
  first, size = schedule.at(np.arange(100))
  ends = first + schedule.num_slots(size)
  assert first[0] == 0 and (first[1:] == ends[:-1]).all()
  for index in range(100):
    stage = max((s for s in curriculum if s.start <= index), key=lambda s: s.start)
    assert stage.fewest <= size[index] <= stage.most
    assert schedule.task_at(int(first[index])) == schedule.task_at(int(ends[index]) - 1) == index
  order = np.random.default_rng(seed).permutation(100)
  again, sizes = Schedule(curriculum, seed, per_slot).at(order)
  assert (again == first[order]).all() and (sizes == size[order]).all()


def test_a_literal_curriculum():
  schedule = Schedule([Stage(4, 3, 3), Stage(0, 1, 1), Stage(6, 8, 8)], 0)
  first, size = schedule.at(np.arange(8))
  assert size.tolist() == [1, 1, 1, 1, 3, 3, 8, 8]
  assert first.tolist() == [0, 1, 2, 3, 4, 7, 10, 18]
  assert schedule.most == 8


def test_each_block_has_every_size_once():
  _, size = Schedule((2, 5), 3).at(np.arange(40))
  for begin in range(0, 40, 4):
    assert sorted(size[begin:begin + 4]) == [2, 3, 4, 5]
  assert len({tuple(size[begin:begin + 4]) for begin in range(0, 40, 4)}) > 3


def test_chains_share_slots():
  schedule = Schedule((1, 5), 0, per_slot=2)
  first, size = schedule.at(np.arange(5))
  assert schedule.max_slots == 3
  assert dict(zip(size.tolist(), np.diff([*first, 9]).tolist())) == {1: 1, 2: 1, 3: 2, 4: 2, 5: 3}


def test_far_tasks_cost_nothing():
  schedule = Schedule([Stage(0, 1, 2), Stage(10, 1, 64)], 0)
  first, _ = schedule.at(np.array([10**15]))
  assert schedule.task_at(int(first[0])) == 10**15
  counted = collections.Counter(schedule.at(10**15 + 2 + np.arange(64))[1].tolist())
  assert set(counted.values()) <= {1, 2}


@pytest.mark.parametrize('objectives, message', [
    (0, 'num_objectives=0'), ((3, 2), r'\(3, 2\)'), ((-1, 2), r'\(-1, 2\)')])
def test_no_range(objectives, message):
  with pytest.raises(ValueError, match=message):
    stages(objectives)


def test_no_curriculum():
  with pytest.raises(ValueError, match=r'tasks \[5\]'):
    stages([Stage(5, 1, 2)])
  with pytest.raises(ValueError, match=r'tasks \[0, 0\]'):
    stages([Stage(0, 1, 2), Stage(0, 2, 2)])
  with pytest.raises(ValueError, match='start=-1'):
    Stage(-1, 1, 2)
  with pytest.raises(ValueError, match=r'tasks \[\]'):
    stages([])
