"""Trajectories as one compressed text for the page, each string in it once.

What an agent sees at a turn is what it saw, wrote and was told at the turn before, put together
anew; written out, sixteen turns of that are most of a file. So every text becomes a list of
pieces, and a piece that occurs again is a number:

    {'texts': [string, …],
     'trajectories': [{'key', 'group', 'id', 'questions', 'answer', 'fault', 'score', 'turns'}]}

    turn   'saw': [piece, …], of which the first 'kept' stay and the others are dropped when the
           turn ends; 'dropped': [piece, …] only where it is no end of what was seen

The page reads `encode`'s text: JSON, deflated (zlib), in base64, so that no character in it means
anything to HTML.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
import json
from typing import Any
import zlib

from mem1_jax.report import records

MIN_PIECE = 12  # characters; shorter ones are not worth a number


def encode(packed: Mapping[str, Any]) -> str:
  """The text that the page inflates."""
  text = json.dumps(packed, separators=(',', ':'), ensure_ascii=False)
  # A lone surrogate, as JSON may hold it, has no UTF-8: it is shown as what cannot be read.
  return base64.b64encode(zlib.compress(text.encode('utf-8', 'replace'), 9)).decode()


class Packer:
  """Packs trajectories one after another."""

  def __init__(self):
    self.trajectories: list[dict[str, Any]] = []
    self._numbers: dict[str, int] = {}

  @property
  def packed(self) -> dict[str, Any]:
    """What has been added."""
    return {'texts': list(self._numbers), 'trajectories': self.trajectories}

  def add(self, key: str, group: int, record: Mapping[str, Any]):
    """Adds a record (report/console.py); `key` is its name in links."""
    questions = [
        {'label': str(question.get('label', '')), 'text': question['text'],
         'answers': list(map(str, question['answers'])), 'given': given, 'right': is_right}
        for question, (given, is_right) in zip(record['task']['questions'], records.marks(record))]
    answer = record.get('answer')
    self.trajectories.append({
        'key': key, 'group': group, 'id': str(record['task'].get('id', '')),
        'questions': questions, 'answer': None if answer is None else str(answer),
        'fault': str(record.get('fault') or ''), 'score': _rounded(record['score']),
        'turns': list(self._turns(record['turns'])),
    })

  def _turns(self, turns: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    known: set[str] = set()
    for turn in turns:
      saw, dropped = turn['saw'], turn['dropped']
      is_end = bool(dropped) and saw.endswith(dropped)
      kept = split(saw[:len(saw) - len(dropped)] if is_end else saw, known)
      gone = split(dropped, known)
      action = turn['action']
      yield {
          'saw': self._all([*kept, *gone] if is_end else kept), 'kept': len(kept),
          'wrote': self._number(turn['wrote']), 'information': self._number(turn['information']),
          'kind': str(action.get('kind', '')), 'action': self._number(str(action.get('text', ''))),
          'tokens': turn.get('tokens_in_context'), 'outage': str(turn.get('outage') or ''),
          'dropped': [] if is_end else self._all(gone),
      }
      known = {piece for piece in (*kept, *gone, turn['wrote'], turn['information'])
               if len(piece) >= MIN_PIECE}

  def _all(self, texts: Sequence[str]) -> list[int]:
    return [self._number(text) for text in texts]

  def _number(self, text: str) -> int:
    return self._numbers.setdefault(text, len(self._numbers))


def split(text: str, known: Iterable[str]) -> list[str]:
  """Pieces that make up `text`, as many of them from `known` as are found in it, longest first."""
  if not text:
    return []
  for piece in sorted(known, key=lambda piece: (-len(piece), piece)):
    before, found, after = text.partition(piece)
    if found:
      return [*split(before, known), piece, *split(after, known)]
  return [text]


def _rounded(score: Mapping[str, Any]) -> dict[str, float]:
  return {name: float(f'{value:.6g}') for name, value in records.numbers(score).items()}
