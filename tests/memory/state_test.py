"""Carries, cuts and the batch of contexts, by hand."""

import pytest

from mem1_jax import types
from mem1_jax.memory import state
from mem1_jax.types import Kind

WRITTEN = types.Segment((20, 21, 22), (90, 91, 92), (Kind.STATE, Kind.ACTION, Kind.ACTION))
EMPTY = types.Segment((), (), ())


def test_a_carry_copies_and_moves_the_turn():
  context = state.carry(WRITTEN, [30, 31], first_position=7, gap=0, num_cut=5)
  assert context.segment.ids == (20, 21, 22, 30, 31)
  assert context.segment.positions == (7, 8, 9, 10, 11)
  assert context.segment.kinds == WRITTEN.kinds + (Kind.INFO, Kind.INFO)
  assert (context.num_carried, context.num_cut) == (3, 5)


def test_a_gap_stands_before_the_information():
  assert state.carry(WRITTEN, [30, 31], 7, gap=4).segment.positions == (7, 8, 9, 14, 15)
  appended = state.carry(EMPTY, [30, 31], 7, gap=4)
  assert appended.segment.positions == (11, 12)
  assert appended.num_carried == 0


def test_the_first_turn_reads_the_last_token_of_the_question():
  prompt = types.Segment((1, 2, 3), (0, 1, 9), (Kind.PROMPT,) * 3)
  context = state.first_context(prompt)
  assert context == types.Context(types.Segment((3,), (9,), (Kind.PROMPT,)), 1, 0)


def test_batch():
  first = types.Context(types.Segment((5, 6), (3, 8), (Kind.STATE, Kind.INFO)))
  full = types.Context(types.Segment((1, 2, 3), (0, 1, 2), (Kind.STATE,) * 3))
  memory = state.batch([first, None, full], [4, 0, 7], capacity=3, pad_id=9)
  assert memory.tokens.tolist() == [[5, 6, 9], [9, 9, 9], [1, 2, 3]]
  assert memory.position[:, :2].tolist() == [[3, 8], [0, 0], [0, 1]]
  assert memory.length.tolist() == [2, 0, 3]
  assert memory.keep.tolist() == [4, 0, 7]
  assert {str(x.dtype) for x in (memory.tokens, memory.position, memory.length, memory.keep)} == {
      'int32'}


def test_a_context_beyond_the_capacity():
  context = types.Context(types.Segment((1, 2), (0, 1), (Kind.INFO,) * 2))
  with pytest.raises(ValueError, match='2 tokens does not fit its capacity of 1; raise'):
    state.batch([context], [0], capacity=1, pad_id=0)
