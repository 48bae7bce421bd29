"""A web of documents: its addresses, its results, its pages."""

import pytest

from mem1_jax import types
from mem1_jax.data import sources
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.retrieval.web_small import SmallWeb, beginning

DOCUMENTS = [types.Passage('Oslo', 'A city. Its country is Norway. Its population is 700.'),
             types.Passage("Oslo's", 'An airport.'), types.Passage('Sao  Tomé', 'x'),
             types.Passage('?!', 'y'), types.Passage('Oslo', 'Another.')]


def web(documents=DOCUMENTS, chars=25):
  return SmallWeb(documents, BM25Retriever(documents, k1=1.2, b=0.75, title_weight=2), chars)


def test_results_show_where_pages_begin_and_lead_to_them():
  made = web()
  found, nothing = made.search(['country of oslo', 'zzz'], 3)
  assert nothing == []
  assert {(p.title, p.text, p.id) for p in found} == {
      ('Oslo', 'A city. Its country is …', 'https://atlas.invalid/oslo'),
      ("Oslo's", 'An airport.', 'https://atlas.invalid/oslo-2'),
      ('Oslo', 'Another.', 'https://atlas.invalid/oslo-3')}
  page, lost = made.open(['https://atlas.invalid/oslo', 'https://atlas.invalid/bergen'])
  assert (page.title, page.text) == ('Oslo', DOCUMENTS[0].text)
  assert lost == types.Unavailable('bad_status: no such page', True)
  assert [p.title for p in made.open([f'https://atlas.invalid/{x}' for x in ('sao-tome', 'page')])
          ] == ['Sao  Tomé', '?!']


@pytest.mark.parametrize('text, chars, expected', [
    ('one two', 7, 'one two'), ('one two', 6, 'one …'), ('one two', 3, 'one …'),
    ('onetwo', 3, 'one …')])
def test_beginnings(text, chars, expected):
  assert beginning(text, chars) == expected


def test_documents_that_are_alike_are_one_page():
  found, = web(DOCUMENTS + DOCUMENTS[:1]).search(['oslo norway'], 9)
  assert [p.id for p in found].count('https://atlas.invalid/oslo') == 2


def test_bad_arguments():
  with pytest.raises(ValueError, match='snippet_chars=0'):
    web(chars=0)


def test_the_whole_atlas_is_on_it():
  documents = sources.atlas_documents()
  made = SmallWeb(documents, BM25Retriever(documents, k1=1.2, b=0.75, title_weight=2), 60)
  (first, *_), = made.search(['Norway'], 3)
  assert first.title == 'Norway' and first.id == 'https://atlas.invalid/norway'
  page, = made.open([first.id])
  assert page.text.startswith(first.text.removesuffix(' …')) and len(page.text) > 60
