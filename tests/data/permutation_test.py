"""Permutations of arrays are those of single numbers, bit for bit."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax.data import permutation

KEYS = st.integers(0, 2**64 - 1)


@given(values=st.lists(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=5),
       seed=st.integers(-2**70, 2**70))
@settings(max_examples=50, deadline=None)
def test_hashes_of_arrays_are_those_of_their_numbers(values, seed):
  expected = [permutation.hash64(seed, value, 7) for value in values]
  assert permutation.hashes(seed, np.array(values), 7).tolist() == expected


@given(size=st.integers(1, 20_000), keys=st.lists(KEYS, min_size=1, max_size=3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_permuted_arrays_are_permuted_numbers(size, keys, data):
  count = data.draw(st.sampled_from([0, 1, 32, 33, 120]))  # a few are done one by one
  rng = np.random.default_rng(size)
  position, which = rng.integers(size, size=count), rng.integers(len(keys), size=count)
  found = permutation.permuted(position, size, np.array(keys, np.uint64), which)
  assert found.dtype == np.int64
  assert found.tolist() == [permutation.permute(int(at), size, keys[k])
                            for at, k in zip(position, which)]


def test_a_literal_permutation():
  # by the definition alone, one number at a time: it must never change, runs are resumed on it
  assert [permutation.permute(i, 10, 5) for i in range(10)] == [1, 8, 3, 9, 2, 5, 0, 6, 4, 7]


@pytest.mark.parametrize('count', [1, 40])
def test_positions_outside_are_refused(count):
  position = np.full(count, 8)
  with pytest.raises(ValueError, match='position=8'):
    permutation.permuted(position, 8, np.zeros(1, np.uint64), np.zeros(count, np.int64))
