"""Invented worlds: the atlas's structure under made-up names, with other numbers.

A small model that reads the same documents thousands of times learns their facts and
spellings by heart and stops reading; in a world that it has never seen before it has
to read. Every name becomes another one, the same wherever it stands; every number is
drawn anew. Some words are pieces of the vocabulary strung together: a token that training
texts never hold could not be copied. A world makes its names of a few words and pieces, and
its numbers of a few digits, so that many begin alike and repeat themselves, as Landstrasse
and Kryvyy do, or Sunshine Coast and Sunshine Coast Airport: whoever copies by the last token
alone goes astray there.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import questions as atlas_questions
from mem1_jax.types import Passage, Question

_COMMON = 20  # a word of that many names says what kind of thing it is: Airport, Saint, New
_PIECED = 0.3  # share of words that are strung together from pieces
_POOL = 80  # words, and as many pieces, that a world makes its names of
_DIGITS = 5  # digits that a world makes its numbers of
_BARE = 0.15  # share of numbers that are bare ones of few digits, as an element's
_LED = 0.2  # share of names that begin as one of the last few, as an airport's by its city
_LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'


@dataclasses.dataclass(frozen=True)
class World:
  """Documents, and questions that they answer."""

  documents: tuple[Passage, ...]
  questions: tuple[Question, ...]


def make_world(entities: Sequence[dict]) -> World:
  """The world of these entities, all of one split."""
  split, = {entity['split'] for entity in entities}
  return World(tuple(map(documents.render, entities)),
               tuple(atlas_questions.make_questions(entities, split)))


def word_pieces(token_bytes: Sequence[bytes]) -> tuple[str, ...]:
  """A vocabulary's texts that may stand in a name, those that begin a word with a space."""
  texts = [piece.decode(errors='replace') for piece in token_bytes]
  return tuple(text for text in texts if (word := text.removeprefix(' ')) and all(
      character.isalnum() or character == '-' for character in word))


def invented(entities: Sequence[dict], seed: int, pieces: Sequence[str] = ()) -> list[dict]:
  """The entities under other names, with other facts: a pure function of its arguments.

  Some words are made of `pieces` (`word_pieces`), if any.
  """
  names = [entity['name'] for entity in entities]
  namer = _Namer(names, pieces, np.random.default_rng(seed))
  return [entity | {
      'name': namer.name(entity['name']), 'aliases': [],
      'facts': {relation: [namer.value(relation, values[0])]
                for relation, values in entity['facts'].items()}} for entity in entities]


class _Namer:
  """Other names and numbers, each name the same wherever it stands."""

  def __init__(self, names: Sequence[str], pieces: Sequence[str], rng: np.random.Generator):
    self._rng, self._names, self._taken = rng, {}, set()
    self._heads = self._pool([piece[1:] for piece in pieces if piece[0] == ' '])
    self._tails = self._pool([piece for piece in pieces if piece[0] != ' '])
    counts = collections.Counter(word for name in names for word in name.split())
    self._common = {word for word, count in counts.items() if count >= _COMMON or word.islower()}
    self._words = self._pool(sorted(word for word in counts if word.isalpha() and len(word) > 3))
    self._digits = rng.permutation(10)[:_DIGITS]

  def _pool(self, items: Sequence[str]) -> list[str]:
    """A few of the items."""
    return [items[i] for i in self._rng.permutation(len(items))[:_POOL]]

  def name(self, name: str) -> str:
    """Another name of as many words; common words such as Airport and of stay.

    Some begin as one of the last few did.
    """
    while name not in self._names:
      words = [word if word in self._common else self._word(word) for word in name.split()]
      if self._names and self._rng.random() < _LED:
        last = list(itertools.islice(reversed(self._names.values()), 4))
        lead = last[self._rng.integers(len(last))].split()[:len(words) - 1]
        words[:len(lead)] = lead
      found = ' '.join(words)
      if found == name in self._taken:  # of common words alone, and another's: nothing would change
        found = ' '.join(map(self._word, words))
      if found not in self._taken:
        self._taken.add(found)
        self._names[name] = found
    return self._names[name]

  def value(self, relation: str, value: str) -> str:
    """Another value of the same form; but some numbers are bare ones of one to three digits."""
    if any(character.isdigit() for character in value):
      if self._rng.random() < _BARE:
        value = '1' * self._rng.integers(1, 4)  # its form; the digits are drawn below
      first, *rest = re.split(r'(\d)', value, maxsplit=1)
      digit, tail = rest
      leading = self._digits if digit == '0' else self._digits[self._digits > 0]
      return first + str(self._rng.choice(leading)) + re.sub(
          r'\d', lambda _: str(self._rng.choice(self._digits)), tail)
    if relation in ('code', 'symbol'):
      letters = ''.join(_LETTERS[i] for i in self._rng.integers(len(_LETTERS), size=len(value)))
      return letters if value.isupper() else letters.capitalize()
    return self.name(value)

  def _word(self, word: str) -> str:
    """The head of one word and the tail of another, upper or lower case as the given one.

    Or pieces of the vocabulary, as they are but for the first letter.
    """
    if self._heads and self._tails and self._rng.random() < _PIECED:
      some = self._rng.choice(self._tails, 2)  # of two pieces: they come again in a word
      made = self._rng.choice(self._heads) + ''.join(
          self._rng.choice(some, self._rng.integers(1, 4)))
      return made[0].upper() + made[1:] if word[0].isupper() else made.lower()
    head, tail = (self._words[i] for i in self._rng.integers(len(self._words), size=2))
    made = head[:self._rng.integers(1, 5)] + tail[-self._rng.integers(2, 6):].lower()
    return made.capitalize() if word[0].isupper() else made.lower()


@dataclasses.dataclass(frozen=True)
class Worlds:
  """The real world and invented ones, drawn anew for every block of examples.

  Attributes:
    real: the real world, of one split.
    entities: its entities (data/sources.py).
    share: of blocks that are invented, in [0, 1].
    block: examples per world, ≥ 1.
    pieces: of the vocabulary, to make names of (`word_pieces`).
  """

  real: World
  entities: tuple[dict, ...]
  seed: int
  share: float
  block: int
  pieces: tuple[str, ...] = ()

  def __post_init__(self):
    if not 0 <= self.share <= 1 or self.block < 1:
      raise ValueError(f'share {self.share} must lie in [0, 1] and block {self.block} be ≥ 1')

  def blocks(self) -> Iterator[tuple[range, World]]:
    """Endless: the numbers of the next examples, and the world that they are set in."""
    for block in itertools.count():
      rng, world = np.random.default_rng([self.seed, block]), self.real
      if rng.random() < self.share:
        world = make_world(invented(self.entities, int(rng.integers(2**62)), self.pieces))
      yield range(block * self.block, (block + 1) * self.block), world
