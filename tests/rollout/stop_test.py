"""The stop automaton ends a turn at the very token where the parser does."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax.data import sources
from mem1_jax.memory import segments
from mem1_jax.rollout import stop
from mem1_jax.text.tokenizer import SentencePieceTokenizer

VOCABULARY = [
    b'', b'<', b'>', b'/', b'</', b'><', b'>.', b'</think', b'</search', b'</answer',
    b'think', b'search', b'answer', b'<think>', b'</think>', b'<search>', b'</search>', b'<answer>',
    b'</answer>', b'a', b' ', b's', b'an', b'swer>',
    b'</think><', b'><search>q</', b'</answer><think>', b'<<', b'</s', b'earch>', b'\xff',
    b'<think></search></think>', b'</think></search', b't', b'hink>', b'</information>',
    b'</click', b'<click>', b'</click>', b'</cl', b'ick>',
]


def run(table, ids):
  """Number of tokens up to the stop, None where it never comes."""
  state = table.start
  for count, token in enumerate(ids, start=1):
    state = table.table[state, token]
    if state == table.stop:
      return count
  return None


TABLE = stop.build_stop_table(VOCABULARY)


@given(ids=st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=30))
@settings(max_examples=1000, deadline=None)
def test_stops_where_the_parser_ends(ids):
  turn = segments.parse_turn(ids, VOCABULARY)
  count = run(TABLE, ids)
  unfinished = ('no action', 'search not closed', 'click not closed', 'answer not closed')
  if count is None:
    assert turn.end == len(ids) and turn.action.text in (*unfinished, 'think not closed')
  else:
    assert turn.end == count
    assert turn.action.kind != 'malformed' or turn.action.text not in unfinished
    before = re.split(b'</search>|</click>|</answer>', b''.join(VOCABULARY[i] for i in ids))[0]
    is_open = before.rfind(b'<think>') > before.rfind(b'</think>')
    assert is_open or turn.action.text != 'think not closed'
    # One token less and nothing is completed.
    assert run(TABLE, ids[:count - 1]) is None


def test_stop_is_absorbing_and_tokens_without_bytes_keep_the_state():
  assert (TABLE.table[TABLE.stop] == TABLE.stop).all()
  assert TABLE.table[:, 0].tolist() == list(range(len(TABLE.table)))
  assert TABLE.table.dtype == np.int16
  assert TABLE.table.shape == (TABLE.stop + 1, len(VOCABULARY))


def test_literal_stops():
  table = stop.build_stop_table([bytes([i]) for i in range(256)])
  assert run(table, b'<think></think><</search>x') == 25
  assert run(table, b'</</answer>') == 11
  assert run(table, b'<click>buy now</click>.') == 22
  assert run(table, b'<think></answer></think>') == 16
  assert run(table, b'</Search></information>') is None


def first_end(text, stops):
  """Bytes up to the end of the first stop string to be complete, None where there is none."""
  ends = [text.find(each) + len(each) for each in stops if each in text]
  return min(ends, default=None)


def check_against_search(token_bytes, ids, stops):
  count = run(stop.build_stop_table(token_bytes, stops), ids)
  end = first_end(b''.join(token_bytes[i] for i in ids), stops)
  if end is None:
    assert count is None
  else:  # the token that completes it, and none before
    before, after = (len(b''.join(token_bytes[i] for i in ids[:n])) for n in (count - 1, count))
    assert before < end <= after


pieces = st.lists(st.binary(max_size=4).map(lambda b: bytes(x % 3 for x in b)), min_size=1,
                  max_size=8)
some_stops = st.lists(st.binary(min_size=1, max_size=5).map(lambda b: bytes(x % 3 for x in b)),
                      min_size=1, max_size=4)


@given(token_bytes=pieces, stops=some_stops, data=st.data())
@settings(max_examples=500, deadline=None)
def test_any_strings_over_any_vocabulary(token_bytes, stops, data):
  """Three letters alone: strings overlap, contain and repeat one another all the time."""
  ids = data.draw(st.lists(st.integers(0, len(token_bytes) - 1), max_size=20))
  check_against_search(token_bytes, ids, stops)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_strings_over_a_sentencepiece_vocabulary(data):
  token_bytes = SentencePieceTokenizer(sources.tokenizer_path()).token_bytes
  ids = data.draw(st.lists(st.integers(0, len(token_bytes) - 1), min_size=1, max_size=40))
  text = b''.join(token_bytes[i] for i in ids)
  cuts = data.draw(st.lists(st.tuples(st.integers(0, max(len(text) - 1, 0)), st.integers(1, 9)),
                            min_size=1, max_size=3))
  stops = [text[begin:begin + size] or b'.' for begin, size in cuts]
  check_against_search(token_bytes, ids, stops + ['nähe'.encode()])


@pytest.mark.parametrize('stops', [(), (b'a', b'')])
def test_strings_that_stop_nothing_or_everything_are_refused(stops):
  with pytest.raises(ValueError, match='stop strings'):
    stop.build_stop_table(VOCABULARY, stops)


def test_a_real_sized_vocabulary_takes_seconds():
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, 13, 152_000)
  lengths[:3] = 128
  token_bytes = [rng.bytes(int(n)) for n in lengths]
  token_bytes[77] = b'</search>'
  begin = time.monotonic()
  table = stop.build_stop_table(token_bytes)
  assert time.monotonic() - begin < 10
  assert table.table[table.start, 77] == table.stop
