"""The stop automaton: over bytes, lifted to the vocabulary.

A turn ends with the first of a set of strings, by default `</search>`, `</click>` or `</answer>`
(`memory/segments.py` says the same about text that is complete). The device follows it with one
gather a token, `state = table[state, token]`, and stops when the state is `stop`, which is
absorbing.

A state is the longest suffix of what was read that begins a stop string (Aho and Corasick 1975):
tokens may straddle a string's ends, or hold several.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from mem1_jax.memory import segments


class StopTable(NamedTuple):
  """`table[state, token]` is the state after the token."""

  table: np.ndarray  # [states, V] int16
  start: int  # before a turn's first token
  stop: int  # a turn has ended; absorbing


def build_stop_table(token_bytes: Sequence[bytes],
                     stops: Collection[bytes] = tuple(segments.ACTION_CLOSE)) -> StopTable:
  """Lifts the byte automaton to the tokens of a vocabulary.

  Args:
    token_bytes: what each id adds to the text; an id without bytes keeps the state.
    stops: strings that end a turn.

  Returns:
    The table, its start and its stop state.

  Raises:
    ValueError: no string, or an empty one.
  """
  step, start, stop = _byte_automaton(stops)
  num_states, V = len(step), len(token_bytes)
  length_V = np.array([len(token) for token in token_bytes], np.int64)
  order_V = np.argsort(-length_V, kind='stable')  # so that those of ≥ j bytes are a prefix
  data = np.frombuffer(b''.join(token_bytes), np.uint8)
  offset_V = (np.cumsum(length_V) - length_V)[order_V]
  table = np.repeat(np.arange(num_states, dtype=np.int16)[:, None], V, axis=1)
  for j in range(int(length_V.max(initial=0))):
    count = int((length_V > j).sum())
    byte = data[offset_V[:count] + j]
    table[:, :count] = step[table[:, :count], byte]
  lifted = np.empty_like(table)
  lifted[:, order_V] = table
  return StopTable(lifted, start, stop)


def _byte_automaton(stops: Collection[bytes]) -> tuple[np.ndarray, int, int]:
  """`step[state, byte]` int16 [states, 256], the start and the stop state."""
  if not stops or not all(stops):
    raise ValueError(f'stop strings {list(stops)!r} must be at least one, none of them empty')
  begun = sorted({text[:size] for text in stops for size in range(len(text))})
  begun = [read for read in begun if not any(text in read for text in stops)]
  state_of = {read: state for state, read in enumerate(begun)}
  stop = len(begun)
  step = np.full((stop + 1, 256), stop, np.int16)
  for read, state in state_of.items():
    for byte in range(256):
      word = read + bytes([byte])
      if not any(word.endswith(text) for text in stops):
        step[state, byte] = next(state_of[word[i:]] for i in range(len(word) + 1)
                                 if word[i:] in state_of)
  return step, state_of[b''], stop
