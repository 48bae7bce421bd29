"""Renders an entity's facts as one short document, always in the same words for the same entity.

The wording and the order of the sentences vary from entity to entity (by a hash
of its name), so that reading a document needs the relation's word, not a place.
The text does not repeat its title: a passage is read as `title: text`. A value
always follows a space and is followed by punctuation, so that it is cut into the
same tokens wherever it stands.
"""

import hashlib

from mem1_jax.types import Passage

INTRO = {
    'country': ('A country in {continent}.', "One of {continent}'s countries.",
                'Its continent is {continent}.'),
    'city': ('A city in {country}.', 'Its country is {country}.', "One of {country}'s cities."),
    'airport': ('Serves the city of {city}.', 'Its city is {city}.', "One of {city}'s airports."),
    'element': ('An element.',),
}
IN_INTRO = {'continent', 'country', 'city'}
SENTENCES = ('Its {relation} is {value}.', 'The {relation} is {value}.', 'Has {relation} {value}.')


def draw(key: str, bound: int) -> int:
  """A number in [0, bound) that depends on the key alone."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') % bound


def _sentence(name: str, relation: str, value: str) -> str:
  template = SENTENCES[draw(f'{name}/{relation}/sentence', len(SENTENCES))]
  return template.format(relation=relation, value=value)


def render(entity: dict) -> Passage:
  """The document of one line of facts.jsonl; its title is the entity's name."""
  name, facts = entity['name'], entity['facts']
  intros = INTRO[entity['kind']]
  intro = intros[draw(f'{name}/intro', len(intros))]
  values = {relation: value[0] for relation, value in facts.items() if relation in IN_INTRO}
  relations = [relation for relation in facts if relation not in IN_INTRO]
  relations.sort(key=lambda relation: draw(f'{name}/{relation}/order', 2**32))
  sentences = [_sentence(name, relation, facts[relation][0]) for relation in relations]
  return Passage(title=name, text=' '.join([intro.format(**values), *sentences]))
