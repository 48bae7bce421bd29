"""Renders an entity's facts as one short document, always in the same words for the same entity.

The beginnings and the order of the sentences vary from entity to entity (by a hash
of its name), so that reading a document needs the relation's word, not a place.
Every fact reads ` RELATION is VALUE.`, which is how an agent notes it (types.read_off).
The text does not repeat its title: a passage is read as `title: text`. A value
always follows a space and is followed by punctuation, so that it is cut into the
same tokens wherever it stands.
"""

import hashlib

from mem1_jax.types import Passage, read_off

INTRO = {'country': 'A country.', 'city': 'A city.', 'airport': 'An airport.',
         'element': 'An element.'}
BEGINNINGS = ('Its', 'The', 'And its')


def draw(key: str, bound: int) -> int:
  """A number in [0, bound) that depends on the key alone."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') % bound


def _sentence(name: str, relation: str, value: str) -> str:
  beginning = BEGINNINGS[draw(f'{name}/{relation}/sentence', len(BEGINNINGS))]
  return beginning + read_off(relation, value)


def render(entity: dict) -> Passage:
  """The document of one line of facts.jsonl; its title is the entity's name."""
  name, facts = entity['name'], entity['facts']
  relations = sorted(facts, key=lambda relation: draw(f'{name}/{relation}/order', 2**32))
  sentences = [_sentence(name, relation, facts[relation][0]) for relation in relations]
  return Passage(title=name, text=' '.join([INTRO[entity['kind']], *sentences]))
