"""Tag spans on ids: what one turn of generated tokens says and where it ends.

Tags are found in bytes, since real vocabularies have tokens such as `><` or `>.`
that straddle a tag:

    token   <think>  Oslo   </think  ><      search  >       Norway  </search  >.      tail
    kind    STATE    STATE  STATE    ACTION  ACTION  ACTION  ACTION  ACTION    ACTION  (not read)
    number  1        2      3        4       5       6       7       8         9 = end

A token belongs to the span that its last byte belongs to. The first closing
action tag ends the turn, wherever it stands, as a stop string of an inference
server does; `rollout/stop.py` finds the same end on the device. Within an open
`<think>` no tag opens an action, and one that closes there makes the turn malformed.
"""

from collections.abc import Sequence
import dataclasses
import re

import numpy as np

from mem1_jax import types

THINK_OPEN, THINK_CLOSE = b'<think>', b'</think>'
ACTION_OPEN = {b'<%s>' % kind.value.encode(): kind
               for kind in types.ActionKind if kind is not types.ActionKind.MALFORMED}
ACTION_CLOSE = {b'</%s>' % kind.value.encode(): kind for kind in ACTION_OPEN.values()}

_TAG = re.compile(b'|'.join([THINK_OPEN, THINK_CLOSE, *ACTION_OPEN, *ACTION_CLOSE]))


@dataclasses.dataclass(frozen=True)
class ParsedTurn:
  """What a turn's generated ids mean.

  Attributes:
    action: what the agent did; `MALFORMED` with the reason where no action was
      completed, or one was completed wrongly.
    kind: [end] int32, `types.Kind.STATE` or `ACTION` of each token.
    think: what `<think>` blocks hold, stripped; an unclosed one counts to the end.
    end: ids up to and with the token that completes the closing action tag; all
      of them where none does.
  """

  action: types.Action
  kind: np.ndarray  # [end] int32
  think: str
  end: int


@dataclasses.dataclass(frozen=True)
class _Spans:
  """Byte spans of a turn: where it ends, its action and what was thought."""

  action: types.Action
  action_start: int | None  # of the opening tag; None without a completed action
  stop: int | None  # one past the closing action tag; None where none ends the turn
  think: str


def parse_turn(ids: Sequence[int], token_bytes: Sequence[bytes]) -> ParsedTurn:
  """Reads the ids that one turn generated, the end-of-sequence id included if sampled.

  Args:
    ids: the turn's ids, without padding.
    token_bytes: of the vocabulary (`text.tokenizer.Tokenizer.token_bytes`).
  """
  pieces = [token_bytes[i] for i in ids]
  data = b''.join(pieces)
  spans = _find_spans(data)
  offset = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)  # one past each token
  # The first token that reaches the stop completes the tag.
  end = len(pieces) if spans.stop is None else int(np.searchsorted(offset, spans.stop)) + 1
  start = len(data) if spans.action_start is None else spans.action_start
  # Control tokens have no bytes: they go with what stands before them.
  kind = np.where(offset[:end] > start, types.Kind.ACTION, types.Kind.STATE).astype(np.int32)
  return ParsedTurn(action=spans.action, kind=kind, think=spans.think, end=end)


def _find_spans(data: bytes) -> _Spans:
  thoughts, think_start = [], None
  opened = None  # the latest opening action tag outside <think>: (kind, start, content start)
  for match in _TAG.finditer(data):
    tag = match.group()
    if think_start is not None:
      if tag == THINK_CLOSE:
        thoughts.append(_text(data[think_start:match.start()]))
        think_start = None
      elif tag in ACTION_CLOSE:
        thoughts.append(_text(data[think_start:match.start()]))
        return _Spans(_malformed('think not closed'), None, match.end(), '\n'.join(thoughts))
    elif tag == THINK_OPEN:
      think_start, opened = match.end(), None  # an action holds no thought
    elif tag in ACTION_OPEN:
      opened = (ACTION_OPEN[tag], match.start(), match.end())
    elif tag in ACTION_CLOSE:
      return _closed(data, match, opened, '\n'.join(thoughts))
  if think_start is not None:
    thoughts.append(_text(data[think_start:]))
  reason = ('think not closed' if think_start is not None
            else f'{opened[0].value} not closed' if opened else 'no action')
  return _Spans(_malformed(reason), None, None, '\n'.join(thoughts))


def _closed(data, match, opened, think: str) -> _Spans:
  """The turn that ends with `match`, a closing action tag."""
  kind = ACTION_CLOSE[match.group()]
  if opened is None or opened[0] != kind:
    return _Spans(_malformed(f'{kind.value} not opened'), None, match.end(), think)
  content = _text(data[opened[2]:match.start()])
  action = types.Action(kind, content) if content else _malformed(f'empty {kind.value}')
  return _Spans(action, opened[1], match.end(), think)


def _malformed(reason: str) -> types.Action:
  return types.Action(types.ActionKind.MALFORMED, reason)


def _text(data: bytes) -> str:
  return data.decode('utf-8', errors='replace').strip()
