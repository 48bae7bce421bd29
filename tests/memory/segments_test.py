"""Tag spans on ids: literal turns, straddling tokens, and properties."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.memory import segments

S, A = types.Kind.STATE, types.Kind.ACTION


def parse(*pieces):
  """Parses a turn whose tokens are `pieces`, each its own id."""
  token_bytes = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
  return segments.parse_turn(range(len(pieces)), token_bytes)


def action(kind, text):
  return types.Action(types.ActionKind(kind), text)


def test_a_search_turn():
  turn = parse('<think>', ' Oslo', '</think>', '<search>', ' Norway', ' ', '</search>', 'tail')
  assert turn.action == action('search', 'Norway')
  assert turn.think == 'Oslo'
  assert turn.end == 7
  assert turn.kind.dtype == np.int32
  assert turn.kind.tolist() == [S, S, S, A, A, A, A]


def test_tokens_that_straddle_tags_belong_to_their_last_byte():
  turn = parse('<', 'think', '>Oslo</', 'think', '><', 'answer', '>', 'a;', ' b</', 'answer',
               '>.', 'x')
  assert turn.action == action('answer', 'a; b')
  assert turn.think == 'Oslo'
  assert turn.end == 11  # '>.' counts, its '.' is ignored
  assert turn.kind.tolist() == [S, S, S, S, A, A, A, A, A, A, A]


def test_the_drawing_of_the_module():
  token, kind, number = re.findall(r'^    (?:token|kind|number)(.*)$', segments.__doc__, re.M)
  turn = parse(*token.split())
  assert [types.Kind(k).name for k in turn.kind] == kind.split()[:turn.end]
  assert turn.end == int(number.split()[-3])


def test_whole_turn_in_one_token():
  turn = parse('<think>a</think><search>b</search> junk <answer>c</answer>')
  assert (turn.action, turn.end, turn.kind.tolist()) == (action('search', 'b'), 1, [A])


def test_a_click_turn():
  turn = parse('<think>', 'cheap', '</think>', '<cli', 'ck> buy', ' now</', 'click>.', 'tail')
  assert turn.action == action('click', 'buy now')
  assert (turn.think, turn.end) == ('cheap', 7)
  assert turn.kind.tolist() == [S, S, S, A, A, A, A]


def test_first_completed_action_wins():
  assert parse('<search>q</search><answer>a</answer>').action == action('search', 'q')
  assert parse('<answer>a</answer><search>q</search>').action == action('answer', 'a')
  assert parse('<answer>a<search>q</search>').action == action('search', 'q')
  assert parse('<search>a<search>b</search>').action == action('search', 'b')
  assert parse('<click>a</click><answer>b</answer>').action == action('click', 'a')


def test_a_closing_tag_inside_an_open_think_ends_the_turn():
  turn = parse('<think>', 'x', '<answer>', 'a', '</answer>', '</think>', '<search>q', '</search>')
  assert turn.action == action('malformed', 'think not closed')
  assert turn.think == 'x<answer>a'
  assert turn.kind.tolist() == [S] * 5


def test_an_action_is_not_opened_inside_a_think():
  turn = parse('<think>', 'x', '<search>', 'y', '</think>', '</search>')
  assert turn.action == action('malformed', 'search not opened')


@pytest.mark.parametrize('text, reason, stops', [
    ('', 'no action', False),
    ('<think>a</think>', 'no action', False),
    ('<think>a', 'think not closed', False),
    ('<think>a<search>b</search>', 'think not closed', True),
    ('<search>q', 'search not closed', False),
    ('<answer>a</answer', 'answer not closed', False),
    ('<search> \n</search>', 'empty search', True),
    ('<answer></answer>', 'empty answer', True),
    ('q</search>', 'search not opened', True),
    ('<search>q</answer>', 'answer not opened', True),
    ('<search><think>a</think>q</search>', 'search not opened', True),
    ('<Search>q</Search>', 'no action', False),
    ('<click>a', 'click not closed', False),
    ('<click> </click>', 'empty click', True),
    ('<search>q</click>', 'click not opened', True),
])
def test_malformed(text, reason, stops):
  turn = parse(text, '!')
  assert turn.action == action('malformed', reason)
  assert turn.end == (1 if stops else 2)
  assert len(turn.kind) == turn.end


def test_control_tokens_have_no_bytes():
  turn = parse('<think>a</think>', b'', '<search>', b'', 'q</search>', b'')
  assert turn.kind.tolist() == [S, S, A, A, A]  # those past the end are not the turn's
  assert parse(b'').action == action('malformed', 'no action')
  assert parse(b'').kind.tolist() == [S]
  assert parse().end == 0 and parse().kind.shape == (0,)


def test_characters_split_over_tokens_and_broken_utf8():
  assert parse('<answer>', b'\xc3', b'\xa9', '</answer>').action == action('answer', 'é')
  assert parse('<answer>', b'\xc3', '</answer>').action == action('answer', '�')


TEXT = st.lists(st.sampled_from([
    '<think>', '</think>', '<search>', '</search>', '<answer>', '</answer>', '<click>',
    '</click>', '<', '>', '/',
    'a', ' ',
]), max_size=14).map(lambda parts: ''.join(parts).encode())


@given(data=TEXT, draw=st.data())
@settings(max_examples=300, deadline=None)
def test_cutting_into_tokens_changes_nothing(data, draw):
  """Any tokenisation of the same bytes has the same action, and ends at the same byte."""
  whole = segments.parse_turn(list(data), [bytes([i]) for i in range(256)])
  cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)))))
  pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
  turn = segments.parse_turn(range(len(pieces)), pieces)
  assert (turn.action, turn.think) == (whole.action, whole.think)
  ends = np.cumsum([len(piece) for piece in pieces])
  # Tokens before the last do not reach the end; the last does.
  assert turn.end == 0 or ends[turn.end - 1] >= whole.end
  assert turn.end < 2 or ends[turn.end - 2] < whole.end or whole.end == len(data)
  for end, kind in zip(ends, turn.kind):
    assert kind == (whole.kind[min(end, whole.end) - 1] if end else S)


@given(data=TEXT)
@settings(max_examples=100, deadline=None)
def test_text_past_the_end_changes_nothing(data):
  token_bytes = [bytes([i]) for i in range(256)]
  turn = segments.parse_turn(list(data), token_bytes)
  again = segments.parse_turn(list(data[:turn.end]), token_bytes)
  assert (again.action, again.think, again.end) == (turn.action, turn.think, turn.end)
  assert again.kind.tolist() == turn.kind.tolist()
