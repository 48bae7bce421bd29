"""Notes found by likeness: the question, the notes most like the last turn, and that turn.

    turn 4 reads   q q q │ note of turn 0 │ note of turn 2 │ turn 3
    note           <search> Cusco</search><information> … Its country is Peru.</information>

After each turn a note is made of it: its action and the reply to it, in their own ids, without what
was thought. The note is linked to the one before it that is most like it. The next turns see the
notes most like what the last turn wrote, each with the one that it is linked to, in the order of
their turns; whole notes only, as many as fit a budget of tokens.

After A-MEM (arXiv 2502.12110), with two differences: there a language model writes a note's
keywords and revises older notes, here notes are what was said; and where the baseline in the
release of arXiv 2506.15841 never saw the question again, here it always stands first.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import ClassVar
import zlib

import numpy as np

from mem1_jax.agents import turns as turns_lib
from mem1_jax.retrieval.bm25 import words
from mem1_jax.text.prompts import TAGS
from mem1_jax.types import Kind, Segment, TurnRecord

# (text, whether it is what notes are compared with) → [D], the same for the same text.
Embed = Callable[[str, bool], np.ndarray]
_HASHED_DIM = 1024


@dataclasses.dataclass(frozen=True)
class AMemAgent(turns_lib.ReadingAgent):
  """Every turn reads `[question | notes | last well-formed turn]`.

  Raises:
    ValueError: no notes, or a budget that is no budget (`turns.check_budget`).
  """

  budget: int  # tokens beside the question that notes may fill, behind them the last turn
  num_notes: int  # k, at most so many in view
  embed: Embed
  name: ClassVar[str] = 'amem'

  def __post_init__(self):
    turns_lib.check_budget(self.tokenizer, self.budget, self.context_capacity)
    if self.num_notes < 1:
      raise ValueError(f'memory.notes {self.num_notes} leaves no note to see; raise it to 1 or '
                       'more, or set agent=mem1')

  def read(self, turns: Sequence[TurnRecord], latest: turns_lib.Last
           ) -> tuple[Sequence[Segment], turns_lib.Last]:
    return self._recalled(turns, self.budget - len(latest)), latest

  def _recalled(self, turns: Sequence[TurnRecord], room: int) -> list[Segment]:
    """The notes in view, of at most `room` tokens together."""
    *earlier, now = turns_lib.valid(turns) or [None]
    if not earlier:
      return []
    notes = [_note(turns, number) for number in earlier]
    notes_ND = np.stack([self._vector(note, False) for note in notes])
    found = []
    for i in ranked(self._vector(turns[now].written, True), notes_ND):
      if len(found) < self.num_notes and len(notes[i]) <= room:
        found.append(i)
        room -= len(notes[i])
    return [notes[i] for i in sorted(found)]

  def _vector(self, segment: Segment, is_query: bool) -> np.ndarray:
    """[D] of what it says, its tags aside, of length 1; all 0 where that says nothing."""
    text = functools.reduce(lambda text, tag: text.replace(tag, ' '), TAGS,
                            self.tokenizer.decode(segment.ids))
    vector_D = self.embed(text, is_query)
    length = np.linalg.norm(vector_D)
    return vector_D / length if length else vector_D


def _note(turns: Sequence[TurnRecord], number: int) -> Segment:
  """A turn's action and the reply to it: its block without what was thought first."""
  return turns_lib.tail(turns_lib.block(turns, number),
                        turns[number].written.kinds.count(Kind.STATE))


def ranked(asked_D: np.ndarray, notes_ND: np.ndarray) -> list[int]:
  """Notes by likeness, each followed by the earlier one that it is linked to.

  A note is linked to the most similar of those before it, if any is similar at all. Of equals
  the earlier comes first.

  Args:
    asked_D: what they are compared with; it and the notes are of length 1 (or all 0).
    notes_ND: oldest first.
  """
  likeness_NN, found = notes_ND @ notes_ND.T, []
  for i in np.argsort(-(notes_ND @ asked_D), kind='stable').tolist():
    before = likeness_NN[i, :i]
    found += [i, int(before.argmax())] if i and before.max() > 0 else [i]
  return list(dict.fromkeys(found))


@functools.lru_cache(maxsize=65536)
def hashed_words(text: str, is_query: bool = False) -> np.ndarray:
  """[1024] float32: how often the text has words, each at the place and sign that its hash says.

  Texts are alike as far as they share words; it knows nothing of meaning. Feature hashing
  (arXiv 0902.2206), which needs no vocabulary: a text's vector depends on no other text.
  """
  del is_query
  vector_D = np.zeros(_HASHED_DIM, np.float32)
  for word in words(text):
    code = zlib.crc32(word.encode())
    vector_D[code % _HASHED_DIM] += 1 if code >> 31 else -1
  vector_D.flags.writeable = False  # it is kept
  return vector_D
