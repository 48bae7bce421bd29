"""Renders an entity's facts as one short document, always in the same words for the same entity.

The wording and the order of the sentences vary from entity to entity (by a hash
of its name), so that reading a document needs the relation's word, not a place.
A value always follows a space and is followed by punctuation: it is cut into the
same tokens wherever it appears.
"""

import hashlib

from mem1_jax.types import Passage

INTRO = {
    'country': ('{name} is a country in {continent}.', '{name}, a country in {continent}.'),
    'city': ('{name} is a city in {country}.', 'The city of {name} lies in {country}.',
             '{name}, a city in {country}.'),
    'airport': ('{name} serves the city of {city}.', '{name} is an airport of the city of {city}.',
                '{name}, airport. City: {city}.'),
    'element': ('{name} is an element.', 'The element {name}.', '{name}, an element.'),
}
IN_INTRO = {'continent', 'country', 'city'}
SENTENCES = ('Its {relation} is {value}.', '{Relation}: {value}.', "{name}'s {relation} is {value}.")
SENTENCE_WEIGHTS = (4, 4, 1)  # the name again costs tokens, so seldom


def draw(key: str, bound: int) -> int:
  """A number in [0, bound) that depends on the key alone."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') % bound


def _sentence(name: str, relation: str, value: str) -> str:
  pick = draw(f'{name}/{relation}/sentence', sum(SENTENCE_WEIGHTS))
  index = 0
  while pick >= SENTENCE_WEIGHTS[index]:
    pick -= SENTENCE_WEIGHTS[index]
    index += 1
  return SENTENCES[index].format(name=name, relation=relation, value=value,
                                 Relation=relation[0].upper() + relation[1:])


def _is_hub(entity: dict) -> bool:
  """Whether many documents name it: its own must say the name more often, to be found by it."""
  return entity['kind'] == 'country' or 'million' in entity['facts'].get('population', [''])[0]


def render(entity: dict) -> Passage:
  """The document of one line of facts.jsonl; its title is the entity's name."""
  kind, name, facts = entity['kind'], entity['name'], entity['facts']
  intros = INTRO[kind]
  intro = intros[draw(f'{name}/intro', len(intros))]
  values = {relation: value[0] for relation, value in facts.items() if relation in IN_INTRO}
  relations = [relation for relation in facts if relation not in IN_INTRO]
  relations.sort(key=lambda relation: draw(f'{name}/{relation}/order', 2**32))
  sentences = [_sentence(name, relation, facts[relation][0]) for relation in relations]
  if _is_hub(entity):
    sentences[0] = f"{name}'s {relations[0]} is {facts[relations[0]][0]}."
  return Passage(title=name, text=' '.join([intro.format(name=name, **values), *sentences]))
