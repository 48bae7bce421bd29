"""Items of slots: every epoch whole, no task with one twice."""

import collections

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax.data import order
from mem1_jax.data.order import Order
from mem1_jax.data.schedule import Schedule, Stage


@given(low=st.integers(1, 5), more=st.integers(0, 3), extra=st.integers(0, 30),
       seed=st.integers(0, 10**6), per_slot=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_epochs_are_whole_and_tasks_have_nothing_twice(low, more, extra, seed, per_slot):
  curriculum = [Stage(0, low, low + more), Stage(7, low + 1, low + more + 1)]
  schedule = Schedule(curriculum, seed, per_slot)
  num = 4 * schedule.max_slots + extra
  arranged = Order(num, seed, schedule, swaps=True)
  assert arranged.is_exact
  items = arranged.items(np.arange(6 * num))
  for epoch in items.reshape(6, num):
    assert sorted(epoch) == list(range(num))
  first, size = schedule.at(np.arange(4 * num // schedule.max_slots))
  for begin, count in zip(first, schedule.num_slots(size)):
    assert len(set(items[begin:begin + count])) == count
  some = np.random.default_rng(seed).integers(6 * num, size=50)
  assert (Order(num, seed, schedule, True).items(some) == items[some]).all()  # no state


def test_repetitions_would_happen_without_swaps():
  schedule, found = Schedule(3, 0), collections.Counter()
  for swaps in (False, True):
    items = Order(13, 0, schedule, swaps).items(np.arange(3 * 13 * 40)).reshape(-1, 3)
    found[swaps] = sum(len(set(task)) < 3 for task in items.tolist())
  assert found[False] > 10 and found[True] == 0


def test_swaps_leave_other_slots_as_they_are():
  schedule, slots = Schedule(8, 0), np.arange(20_200)
  plain, exact = (Order(101, 1, schedule, swaps).items(slots) for swaps in (False, True))
  changed = np.flatnonzero(plain != exact)
  assert 0 < len(changed) < 200 and (changed % 101 < 24).all()


def test_with_and_without_a_table(monkeypatch):
  schedule, slots = Schedule((1, 4), 0), np.arange(7, 900)
  with_table = Order(100, 3, schedule, True).items(slots)
  monkeypatch.setattr(order, '_MAX_TABLE', 10)
  assert (Order(100, 3, schedule, True).items(slots) == with_table).all()


def test_few_items_are_not_exact():
  assert not Order(11, 0, Schedule(3, 0), True).is_exact
  assert not Order(100, 0, Schedule(3, 0), False).is_exact


def test_spread():
  at, which, rank = order.spread(np.array([5, 9, 0]), np.array([2, 0, 3]))
  assert at.tolist() == [5, 6, 0, 1, 2]
  assert which.tolist() == [0, 0, 2, 2, 2] and rank.tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize('num', [1, 10])
def test_substitutes_are_all_items(num):
  assert sorted(order.substitutes(3, 4, num)) == list(range(num))


def test_labels_differ_within_a_task():
  index, count = np.array([4, 9]), np.array([3, 5])
  _, which, rank = order.spread(np.zeros(2, np.int64), count)
  drawn = order.draw_labels(0, index, which, rank, 5)
  assert len(set(drawn[:3])) == 3 and sorted(drawn[3:]) == [0, 1, 2, 3, 4]
