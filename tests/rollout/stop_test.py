"""The stop automaton ends a turn at the very token where the parser does."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np

from mem1_jax.memory import segments
from mem1_jax.rollout import stop

VOCABULARY = [
    b'', b'<', b'>', b'/', b'</', b'><', b'>.', b'</think', b'</search', b'</answer',
    b'think', b'search', b'answer', b'<think>', b'</think>', b'<search>', b'</search>', b'<answer>',
    b'</answer>', b'a', b' ', b's', b'an', b'swer>',
    b'</think><', b'><search>q</', b'</answer><think>', b'<<', b'</s', b'earch>', b'\xff',
    b'<think></search></think>', b'</think></search', b't', b'hink>', b'</information>',
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
  unfinished = ('no action', 'search not closed', 'answer not closed')
  if count is None:
    assert turn.end == len(ids) and turn.action.text in (*unfinished, 'think not closed')
  else:
    assert turn.end == count
    assert turn.action.kind != 'malformed' or turn.action.text not in unfinished
    before = re.split(b'</search>|</answer>', b''.join(VOCABULARY[i] for i in ids))[0]
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
  assert run(table, b'<think></answer></think>') == 16
  assert run(table, b'</Search></information>') is None


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
