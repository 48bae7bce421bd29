"""Invented worlds have the atlas's structure, and none of its names and numbers."""

import itertools
import re

import pytest

from mem1_jax.data import fiction, sources
from mem1_jax.data.atlas.questions import RELATIONS
from mem1_jax.text.tokenizer import SentencePieceTokenizer

ENTITIES = sources.atlas_entities('train')
TOKENIZER = SentencePieceTokenizer(sources.tokenizer_path())
PIECES = fiction.word_pieces(TOKENIZER.token_bytes)
INVENTED = fiction.invented(ENTITIES, 3, PIECES)
NAMES = {entity['name'] for entity in ENTITIES}


def pairs(relation):
  return [(real['facts'][relation][0], made['facts'][relation][0])
          for real, made in zip(ENTITIES, INVENTED) if relation in real['facts']]


def test_a_function_of_the_seed():
  assert fiction.invented(ENTITIES, 3, PIECES) == INVENTED
  other = fiction.invented(ENTITIES, 4, PIECES)
  same = sum(a['name'] == b['name'] for a, b in zip(other, INVENTED))
  assert same < len(INVENTED) / 50


def test_names_are_new_different_and_of_the_same_kind():
  names = [entity['name'] for entity in INVENTED]
  assert len(set(names)) == len(names)
  assert len(NAMES.intersection(names)) < len(names) / 50
  for real, made in zip(ENTITIES, INVENTED):
    assert made['kind'] == real['kind'] and made['split'] == real['split']
    assert len(made['name'].split()) == len(real['name'].split())
    assert real['name'].endswith(' Airport') == made['name'].endswith(' Airport')


def test_pieces_are_words_and_parts_of_words():
  assert fiction.word_pieces([b'', b' New', b"'", b'x-', b';', b' ', b' is.', b'\xc3', b'7']) == (
      ' New', 'x-', '7')


def test_names_are_written_in_every_token_that_a_name_may_have():
  names = {e['name'] for seed in range(12) for e in fiction.invented(ENTITIES, seed, PIECES)}
  used = {i for name in names for i in TOKENIZER.encode(' ' + name)}
  known = {i for e in ENTITIES for i in TOKENIZER.encode(' ' + e['name'])}
  # Words in small letters stand in documents and questions.
  pieces = [piece for piece in PIECES if not piece[0].isspace() or piece[1].isupper()]
  words = {i for piece in pieces for i in TOKENIZER.encode(piece)}
  assert len(words - used) < 0.02 * len(words) < 0.1 * len(words) < len(words - known)


def test_links_between_entities_are_kept():
  renamed = dict(zip([e['name'] for e in ENTITIES], [e['name'] for e in INVENTED]))
  links = [relation for kinds in RELATIONS.values() for relation, kind in kinds.items() if kind]
  checked = 0
  for relation in links:
    for real, made in pairs(relation):
      if real in renamed:
        assert made == renamed[real]
        checked += 1
  assert checked > 1000


@pytest.mark.parametrize('relation, form', [
    ('population', r'\d[\d.]* (thousand|million)'), ('elevation', r'-?\d+ feet'),
    ('code', r'[A-Z]{3}'), ('calling code', r'\+\d[\d-]*'), ('independence year', r'\d{4}')])
def test_numbers_and_codes_are_drawn_anew_in_their_form(relation, form):
  found = pairs(relation)
  bare = sum(not re.fullmatch(form, made) for _, made in found)
  assert all(re.fullmatch(rf'{form}|\d{{1,3}}', made) for _, made in found)
  assert bare < len(found) / 3 and bool(bare) == (relation != 'code')
  assert sum(real == made for real, made in found) < len(found) / 3


def test_every_question_of_an_invented_world_is_answered_by_its_documents():
  world = fiction.make_world(INVENTED)
  texts = {passage.title: passage.text for passage in world.documents}
  assert len(world.questions) > 10_000
  for question in world.questions[:500]:
    for title, found in zip(question.chain, question.found):
      assert found in texts[title]


def test_blocks_mix_the_real_world_and_invented_ones():
  real = fiction.World((), ())
  few = [entity for entity in ENTITIES if entity['kind'] == 'element']
  worlds = fiction.Worlds(real, few, 0, 0.5, 10)
  blocks = list(itertools.islice(worlds.blocks(), 8))
  assert [indices for indices, _ in blocks] == [range(10 * i, 10 * i + 10) for i in range(8)]
  made = [world for _, world in blocks if world is not real]
  assert 0 < len(made) < 8 and len({world.documents for world in made}) == len(made)
  again = list(itertools.islice(worlds.blocks(), 8))
  assert again == blocks


@pytest.mark.parametrize('share, block', [(-0.1, 10), (1.1, 10), (0.5, 0)])
def test_a_bad_share_or_block_is_refused(share, block):
  with pytest.raises(ValueError, match=rf'share {share} .* block {block} '):
    fiction.Worlds(fiction.World((), ()), ENTITIES, 0, share, block)
