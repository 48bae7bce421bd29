"""Rows token by token, against the drawings of memory/layout.py and by hand."""

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.memory import layout, state
from mem1_jax.types import Kind

PROMPT = types.Segment((10, 11, 12), (0, 1, 2), (Kind.PROMPT,) * 3)
TASK = types.Task('t', (types.Question('q', 'Who?', ('x',)),), ('[bc]',), 'test')
SEARCH = types.Action(types.ActionKind.SEARCH, 'x')
EMPTY = types.Segment((), (), ())


def written(ids, first):
  kinds = (Kind.STATE,) + (Kind.ACTION,) * (len(ids) - 1)
  return types.Segment(ids, tuple(range(first, first + len(ids))), kinds)


def record(context, ids, reward=0.0):
  first = context.segment.positions[-1] + 1
  logprobs = tuple(-i / 8 for i in ids)
  return types.TurnRecord(context, written(ids, first), logprobs, SEARCH, types.Stop.TAG, reward)


def episode(is_append_only=False, gap=0):
  """Three turns that write 20 21, 40 41, 50 51 and are told 30 and 31."""
  turns = [record(state.first_context(PROMPT), (20, 21))]
  for info, ids, reward in ((30, (40, 41), 0.5), (31, (50, 51), 2.0)):
    last = turns[-1].written
    copied, first = (EMPTY, last.positions[-1] + 1) if is_append_only else (last, 3)
    context = state.carry(copied, (info,), first, gap if info == 30 else 0)
    turns.append(record(context, ids, reward))
  return types.Trajectory(TASK, PROMPT, tuple(turns), is_append_only)


def drawing(name):
  """Columns of the first drawing that has a line `name`."""
  line = next(s for s in layout.__doc__.splitlines() if s.startswith(f'    {name} '))
  return [cell for cell in line.split()[1:] if cell not in ('|', '…')]


def test_the_drawing_of_the_exact_layout():
  row = layout.lay_out(episode())
  names = {'q': PROMPT.ids, 'g0': (20, 21), 'c1': (20, 21, 30), 'g1': (40, 41),
           'c2': (40, 41, 31), 'g2': (50, 51)}
  drawn = {name: iter(ids) for name, ids in names.items()}
  position = [int(cell) for cell in drawing('position')[:15]]
  generated = [cell == '1' for cell in drawing('generated')[:15]]
  assert row['tokens'].tolist() == [next(drawn[cell]) for cell in drawing('tokens')]
  assert row['position'].tolist() == position
  assert row['is_generated'].tolist() == generated


def test_exact():
  row = layout.lay_out(episode())
  assert row['tokens'].tolist() == [10, 11, 12, 20, 21, 20, 21, 30, 40, 41, 40, 41, 31, 50, 51]
  assert row['position'].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7]
  assert row['key_end'].tolist() == [15] * 3 + [5] * 2 + [10] * 5 + [15] * 5
  assert row['turn'].tolist() == [-1] * 3 + [0] * 2 + [1] * 5 + [2] * 5
  assert row['is_generated'].nonzero()[0].tolist() == [3, 4, 8, 9, 13, 14]
  assert row['logprob'].tolist() == [
      0, 0, 0, -2.5, -2.625, 0, 0, 0, -5, -5.125, 0, 0, 0, -6.25, -6.375]
  assert row['reward'].tolist() == [0.0] * 9 + [0.5] + [0.0] * 4 + [2.0]
  p, s, a, i = Kind.PROMPT, Kind.STATE, Kind.ACTION, Kind.INFO
  assert row['kind'].tolist() == [p, p, p, s, a, s, a, i, s, a, s, a, i, s, a]


def test_stitched():
  row = layout.lay_out(episode(), 'stitched')
  assert row['tokens'].tolist() == [10, 11, 12, 20, 21, 30, 40, 41, 31, 50, 51]
  assert row['position'].tolist() == list(range(11))
  assert row['key_end'].tolist() == [11] * 3 + [9] * 3 + [11] * 5
  assert row['turn'].tolist() == [-1] * 3 + [0] * 3 + [1] * 3 + [2] * 2
  assert row['is_generated'].nonzero()[0].tolist() == [3, 4, 6, 7, 9, 10]
  assert row['reward'].nonzero()[0].tolist() == [7, 10]


def test_append_only_is_plain_causal_in_both_layouts():
  row = layout.lay_out(episode(is_append_only=True))
  assert row['tokens'].tolist() == [10, 11, 12, 20, 21, 30, 40, 41, 31, 50, 51]
  assert row['position'].tolist() == list(range(11))
  assert row['key_end'].tolist() == [11] * 11
  assert row['turn'].tolist() == [-1] * 3 + [0] * 2 + [1] * 3 + [2] * 3
  stitched = layout.lay_out(episode(is_append_only=True), 'stitched')
  for name, column in row.items():
    np.testing.assert_array_equal(column, stitched[name], name)


def test_gaps_move_information_and_all_that_follows():
  exact = layout.lay_out(episode(gap=4))
  assert exact['position'].tolist() == [0, 1, 2, 3, 4, 3, 4, 9, 10, 11, 3, 4, 5, 6, 7]
  # The copy of g1 that turn 2 read at 3 4 stands at 10 11 in the row: 7 further on.
  stitched = layout.lay_out(episode(gap=4), 'stitched')
  assert stitched['position'].tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14]
  append = layout.lay_out(episode(is_append_only=True, gap=4))
  assert append['position'].tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14]


def test_one_turn_is_the_same_in_every_layout():
  one = types.Trajectory(TASK, PROMPT, episode().turns[:1], False)
  for name in layout.LAYOUTS:
    row = layout.lay_out(one, name)
    assert row['tokens'].tolist() == [10, 11, 12, 20, 21]
    assert row['key_end'].tolist() == [5] * 5


def test_text():
  row = layout.lay_out_text(types.Segment((1, 2), (0, 4), (Kind.PROMPT,) * 2), [3, 4])
  assert row['tokens'].tolist() == [1, 2, 3, 4]
  assert row['position'].tolist() == [0, 4, 5, 6]
  assert row['key_end'].tolist() == [4] * 4
  assert row['is_generated'].tolist() == [False, False, True, True]
  assert row['turn'].tolist() == [-1, -1, 0, 0]


def short(length, first):
  """An episode of `length` ≥ 4 tokens that begin with `first`."""
  prompt = types.Segment((first, 0, 0), (0, 1, 2), (Kind.PROMPT,) * 3)
  turn = record(state.first_context(prompt), (first,) * (length - 3), 1.0)
  return layout.lay_out(types.Trajectory(TASK, prompt, (turn,), False))


def test_two_episodes_share_a_row():
  episodes, stats = layout.pack([short(4, 7), short(5, 8)], 2, 10, pad_id=99)
  assert stats == layout.PackStats(1, 9, 0.9)
  tags = episodes.tags
  assert episodes.tokens.tolist() == [[8, 0, 0, 8, 8, 7, 0, 0, 7, 99], [99] * 10]
  assert tags.episode.tolist() == [[0] * 5 + [1] * 4 + [-1], [-1] * 10]
  assert tags.turn.tolist()[0] == [-1, -1, -1, 0, 0, -1, -1, -1, 0, -1]
  assert tags.key_end.tolist() == [[5] * 5 + [9] * 4 + [0], [0] * 10]
  assert tags.position.tolist()[0] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]
  assert tags.kind.tolist()[0][-1] == Kind.PAD
  assert np.argwhere(episodes.reward).tolist() == [[0, 4], [0, 8]]
  assert episodes.logprob.tolist()[0] == [0, 0, 0, -1, -1, 0, 0, 0, -0.875, 0]
  assert (episodes.tokens.dtype, episodes.logprob.dtype, tags.is_generated.dtype) == (
      np.int32, np.float32, bool)


def test_longest_first_fills_rows():
  # In the order given, first fit would need three rows.
  episodes, stats = layout.pack([short(n, n) for n in (4, 6, 5, 5)], 2, 10, 0)
  assert stats == layout.PackStats(2, 20, 1.0)
  assert episodes.tokens[:, 0].tolist() == [6, 5]


def test_the_packer_streams():
  packer = layout.Packer(2, 10, 0)
  assert [packer.add(short(n, n)) for n in (6, 7, 4)] == [True, True, True]
  assert not packer.add(short(4, 4))  # 0 and 3 tokens are free
  episodes, stats = packer.flush()
  assert episodes.tokens[:, [0, 6]].tolist() == [[6, 4], [7, 7]]
  assert stats == layout.PackStats(2, 17, 0.85)
  assert packer.add(short(4, 4))
  episodes, stats = packer.flush()
  assert stats == layout.PackStats(1, 4, 0.4)
  assert episodes.tags.key_end[1].tolist() == [0] * 10
  assert packer.flush()[1] == layout.PackStats(0, 0, 0.0)


def test_errors():
  with pytest.raises(ValueError, match="layout 'woven' is unknown.*stitched"):
    layout.lay_out(episode(), 'woven')
  silent = types.TurnRecord(state.first_context(PROMPT), EMPTY, (), SEARCH, types.Stop.EOS, 0.0)
  with pytest.raises(ValueError, match="turn 0 of task 't' generated no token"):
    layout.lay_out(types.Trajectory(TASK, PROMPT, (silent,), False))
  with pytest.raises(ValueError, match='11 tokens does not fit a row of 10; raise rows.length'):
    layout.Packer(1, 10, 0).add(short(11, 1))
  with pytest.raises(ValueError, match='2 episodes need more than 1 rows of 10'):
    layout.pack([short(6, 1), short(5, 2)], 1, 10, 0)
