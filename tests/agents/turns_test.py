"""Blocks of turns, by hand: ids, order, positions, and the budgets that are refused."""

import pytest

from mem1_jax import types
from mem1_jax.agents import turns
from mem1_jax.agents.amem import AMemAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.agents.threshold import ThresholdAgent
from mem1_jax.agents.truncation import TruncationAgent
from mem1_jax.types import Kind
from tests.agents import by_hand
from tests.agents.by_hand import A, B, TOKENIZER

PROMPT = types.Segment((10, 11), (0, 1), (Kind.PROMPT,) * 2)


def segment(*ids, first=0, kind=Kind.STATE):
  return types.Segment(ids, tuple(range(first, first + len(ids))), (kind,) * len(ids))


def record(context, written, kind):
  return types.TurnRecord(context, written, None, types.Action(kind, 'x'), types.Stop.TAG, 0.0)


def episode():
  """Writes 20 21, is told 30 31 behind a gap; fails with 40; writes 50."""
  search, bad = types.ActionKind.SEARCH, types.ActionKind.MALFORMED
  read = [types.Context(segment(11, first=1), 1),
          types.Context(types.Segment((20, 21, 30, 31), (2, 3, 9, 10), (Kind.STATE,) * 4), 2),
          types.Context(types.Segment((20, 21, 30, 31, 32), (2, 3, 9, 10, 11), (Kind.STATE,) * 5), 4)]
  return [record(read[0], segment(20, 21, first=2), search),
          record(read[1], segment(40, first=11), bad), record(read[2], segment(50, first=12), search)]


def test_a_block_is_what_was_written_and_the_reply_as_it_was_read():
  assert turns.valid(episode()) == [0, 2]
  block = turns.block(episode(), 0)
  assert (block.ids, block.positions) == ((20, 21, 30, 31), (2, 3, 9, 10))
  assert turns.tail(block, 3).ids == (31,)


def test_joined_segments_follow_one_another_and_keep_their_own_gaps():
  joined = turns.join([segment(1, 2, first=7), types.Segment((3, 4), (5, 9), (Kind.INFO,) * 2),
                       turns.NOTHING, segment(5, first=1)])
  assert (joined.ids, joined.positions) == ((1, 2, 3, 4, 5), (0, 1, 2, 6, 7))
  assert joined.kinds == (Kind.STATE,) * 2 + (Kind.INFO,) * 2 + (Kind.STATE,)
  assert turns.join([]) == turns.NOTHING


def test_the_last_turn_is_the_last_with_a_valid_action():
  whole, words = episode(), [' Oslo is big.', ' no']
  information = [TOKENIZER.encode(by_hand.told(text)) for text in words]
  for num, kept in ((1, (20, 21)), (2, (20, 21, 30, 31)), (3, (50,))):
    last = turns.last(TOKENIZER, whole[:num], words[0], 60)
    assert (last.kept.ids, last.information, last.num_cut) == (kept, information[0], 0)
    assert len(last) == len(kept) + len(information[0])
  nothing = turns.last(TOKENIZER, whole[1:2], words[1], 60)
  assert (len(nothing.kept), nothing.information) == (0, information[1])


def test_a_long_reply_is_cut_and_a_correction_takes_the_place_of_a_reply():
  whole = episode()
  last = turns.last(TOKENIZER, whole[:1], ' Oslo is big.' * 30, 20)
  assert len(last) == 20 and last.information[-1:] == TOKENIZER.encode('</information>')
  assert last.num_cut == by_hand.size(by_hand.told(' Oslo is big.' * 30)) - 18
  n = by_hand.size(by_hand.told(' no'))
  assert turns.last(TOKENIZER, whole[:2], ' no', n + 4).kept.ids == (20, 21, 30, 31)
  last = turns.last(TOKENIZER, whole[:2], ' no', n + 3)
  assert (last.kept.ids, len(last.information), last.num_cut) == ((20, 21), n, 2)


def test_what_is_read_again_begins_behind_the_question():
  last = turns.Last(segment(50), [60, 61], 7)
  context, keep = turns.read_again(PROMPT, [segment(20, first=30), segment(40)], last, 3)
  assert context.segment.ids == (20, 40, 50, 60, 61)
  assert context.segment.positions == (2, 3, 4, 8, 9)
  assert (keep, context.num_carried, context.num_cut) == (2, 3, 7)


@pytest.mark.parametrize('agent', [TruncationAgent, ThresholdAgent, AMemAgent])
def test_budgets_that_are_none(agent):
  least = by_hand.size('<think></think><search></search><information></information>')
  by_hand.make(agent, 60, budget=least)
  with pytest.raises(ValueError, match=f'memory.budget {least - 1} .* raise it to {least} or more'):
    by_hand.make(agent, 60, budget=least - 1)
  with pytest.raises(ValueError, match='memory.budget 61 is more than the 60 .*context_capacity'):
    by_hand.make(agent, 60, budget=61)


@pytest.mark.parametrize('agent', [TruncationAgent, ThresholdAgent, AMemAgent])
def test_with_no_room_for_more_they_are_the_constant_memory_agent(agent):
  script = [(A, ' Oslo: big.'), ('<think>', ' no'), ('<think>*', ' no no'), (B, ''),
            (A, ' big' * 90), ('<answer>', ' no')]
  tight, memory = by_hand.make(agent, 60, budget=6), by_hand.make(Mem1Agent, 60)
  assert by_hand.play(tight, script) == by_hand.play(memory, script)
