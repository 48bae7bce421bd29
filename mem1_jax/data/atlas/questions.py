"""Single questions of one to three look-ups, rendered from the facts: a pure function of them.

A question is a frame around a noun phrase, `What is {the capital of {the country of {Bergen}}}?`.
Its path is the relations in the order in which they are looked up (`country.capital`). Every
document on its chain belongs to the same split. The noun phrases and frames of the training
split return in the other two; a second set is used by half of the test split only.
"""

import collections
from collections.abc import Iterator

from mem1_jax.data.atlas import documents
from mem1_jax.types import Question

# {kind: {relation: kind of the entity that it leads to, None for a plain value}}
RELATIONS = {
    'country': {'continent': None, 'capital': 'city', 'currency': None, 'calling code': None,
                'highest point': None, 'independence year': None},
    'city': {'country': 'country', 'population': None, 'airport': 'airport',
             'larger neighbor': 'city'},
    'airport': {'city': 'city', 'code': None, 'elevation': None},
    'element': {'symbol': None, 'atomic number': None, 'atomic weight': None,
                'next element': 'element'},
}
# Looked up one after the other these lead back to where they came from.
_CIRCLES = {('capital', 'country'), ('airport', 'city'), ('larger neighbor', 'country'),
            ('city', 'airport')}

FRAMES = ('What is {}?', 'Name {}.', 'Find {}.', 'Give {}.', 'Look up {}.')
PHRASE = 'the {relation} of {inner}'
TEST_FRAMES = ('Tell me {}.', 'Which is {}?', 'Do you know {}?', 'Please state {}.')
TEST_PHRASE = "{inner}'s {relation}"  # around the name; `PHRASE` around it

MAX_HOPS = 3
# Questions per path and split: no relation rules a split, and three look-ups stay the exception.
MAX_PER_PATH = {'train': {1: 2000, 2: 600, 3: 200}, 'validation': {1: 160, 2: 48, 3: 16},
                'test': {1: 400, 2: 120, 3: 40}}


def _chains(entity: dict, index: dict[str, dict], path: tuple[str, ...] = (),
            titles: tuple[str, ...] = (), found: tuple[str, ...] = ()) -> Iterator[tuple]:
  """Every (path, titles, found, aliases) that starts at an entity and stays in its split."""
  name, facts = entity['name'], entity['facts']
  for relation, target in RELATIONS[entity['kind']].items():
    if relation not in facts or (path and (path[-1], relation) in _CIRCLES):
      continue
    value, *aliases = facts[relation]
    following = index.get(value) if target else None
    if following is not None and not _is_link(entity, relation, following, target):
      following = None
    if following is not None and not aliases:
      aliases = following['aliases']
    if value in (*titles, name) or (*path, relation).count('larger neighbor') > 2:
      continue  # the capital of Monaco is Monaco; a long row of neighbors reads badly
    here = (*path, relation), (*titles, name), (*found, value)
    yield *here, tuple(aliases)
    if following is not None and len(path) + 1 < MAX_HOPS and following['split'] == entity['split']:
      yield from _chains(following, index, *here)


def _is_link(entity: dict, relation: str, other: dict, kind: str) -> bool:
  """Whether the entity of that title is the one meant: a capital is a city of its own country."""
  if other['kind'] != kind:
    return False
  if relation == 'capital':
    return other['facts']['country'][0] == entity['name']
  if relation == 'larger neighbor':
    return other['facts']['country'] == entity['facts']['country']
  return True


def _wording(key: str, path: tuple[str, ...], name: str, is_held_out: bool) -> str:
  """The question's text; a held-out wording changes the frame, the phrase, or both."""
  change = documents.draw(f'{key}/change', 3) if is_held_out else None  # 0 frame, 1 phrase, 2 both
  frames = TEST_FRAMES if change in (0, 2) else FRAMES
  phrase = name
  for depth, relation in enumerate(path):
    template = TEST_PHRASE if change in (1, 2) and depth == 0 else PHRASE
    phrase = template.format(relation=relation, inner=phrase)
  return frames[documents.draw(f'{key}/frame', len(frames))].format(phrase)


def make_questions(entities: list[dict], split: str) -> list[Question]:
  """All questions of a split, in an order that mixes kinds and hops and never changes.

  Ids are `atlas/{split}/{wording}/{path}/{name}`, wording `seen` or `heldout`.
  """
  index = {entity['name']: entity for entity in entities}
  by_path = collections.defaultdict(list)
  for entity in entities:
    if entity['split'] == split:
      for chain in _chains(entity, index):
        by_path[chain[0]].append(chain)
  questions = []
  for path, chains in by_path.items():
    limit = MAX_PER_PATH[split][len(path)]
    keyed = sorted((documents.draw(f"{'.'.join(path)}/{chain[1][0]}", 2**64), chain)
                   for chain in chains)
    for draw, (path, titles, found, aliases) in keyed[:limit]:
      key = f"{'.'.join(path)}/{titles[0]}"
      is_held_out = split == 'test' and draw % 2 == 1
      wording = 'heldout' if is_held_out else 'seen'
      questions.append(Question(
          id=f'atlas/{split}/{wording}/{key}', text=_wording(key, path, titles[0], is_held_out),
          answers=(found[-1], *aliases), hops=len(path), chain=titles, found=found,
          relations=path))
  return sorted(questions, key=lambda question: documents.draw(f'order/{question.id}', 2**64))
