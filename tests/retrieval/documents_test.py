"""Corpora in files: every kind of line, bad ones, and going on from a place."""

import gzip
import json

import pytest

from mem1_jax import types
from mem1_jax.retrieval import documents

LINES = ['{"id": "0", "contents": "\\"Oslo\\"\\nA city.\\nBy a fjord."}',
         '{"title": "Reykjavík", "text": " A city. ", "id": 7}',
         '', '{"title": "x"', '["a"]', '{"contents": 5}', '{"title": "y", "text": 3}',
         '{"title": "z"}', '{"title": "e", "text": " "}', '{"title": "s", "text": "\\ud800"}',
         '{"contents": "Bare\\ntext"}', '{"title": "last", "text": "no line break behind"}']
PASSAGES = [types.Passage('Oslo', 'A city.\nBy a fjord.', id='0'),
            types.Passage('Reykjavík', 'A city.', id='7'),
            types.Passage('Bare', 'text'), types.Passage('last', 'no line break behind')]


def write(folder, name='x.jsonl'):
  text, file = '\n'.join(LINES).encode(), folder / name
  file.write_bytes(gzip.compress(text) if name.endswith('.gz') else text)
  return file


@pytest.mark.parametrize('name', ['x.jsonl', 'x.jsonl.gz'])
def test_lines(name, tmp_path):
  file = write(tmp_path, name)
  found = list(documents.read([file]))
  assert [document.passage for document in found if document.passage] == PASSAGES
  problems = [document.problem for document in found if not document.passage]
  assert [problem.split(': ')[0] for problem in problems] == [f'{file}:{i}' for i in range(4, 11)]
  for problem, reason in zip(problems[1:], (
      'is no document', 'needs contents, or title', 'needs contents, or title',
      'needs contents, or title', 'its text is empty', 'surrogates')):
    assert reason in problem
  assert documents.count([file]) == len(LINES)


def test_hotpotqas_corpus(tmp_path):
  file = tmp_path / 'corpus.json'
  file.write_text(json.dumps({'Oslo': ['A city.', ' By a fjord.'], 'x': 'text', 'bad': [1]}))
  found = list(documents.read([file]))
  assert [d.passage for d in found[:2]] == [types.Passage('Oslo', 'A city. By a fjord.'),
                                            types.Passage('x', 'text')]
  assert found[2].problem.startswith(f"{file}: entry 3, 'bad': ")
  assert documents.count([file]) == 3


@pytest.mark.parametrize('name', ['x.jsonl', 'x.jsonl.gz'])
def test_reading_goes_on_from_any_place(name, tmp_path):
  (tmp_path / 'y.json').write_text(json.dumps({'a': 'b', 'c': 'd'}))
  files = [write(tmp_path, name), tmp_path / 'y.json', write(tmp_path, 'z.jsonl')]
  whole = list(documents.read(files))
  assert len(whole) == 2 * 11 + 2
  for i, document in enumerate(whole):
    assert list(documents.read(files, document.after)) == whole[i + 1:]


def test_parts_have_so_many_passages_and_say_where_the_next_begins():
  good, bad = types.Passage('a', 'b'), None
  found = [documents.Document(passage, documents.Place(0, 10 * i, i))
           for i, passage in enumerate([bad, good, good, bad, good, good, bad, bad], 1)]
  assert [(len(part.passages), part.num_bad, part.after.line)
          for part in documents.parts(found, 2)] == [(2, 1, 3), (2, 1, 6), (0, 2, 8)]
  assert [len(part.passages) for part in documents.parts(found[1:3], 2)] == [2]
  assert list(documents.parts([], 2)) == []


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(FileNotFoundError, match='a.jsonl is not there'):
    list(documents.read([tmp_path / 'a.jsonl']))
  (tmp_path / 'a.txt').write_text('a')
  with pytest.raises(ValueError, match='a.txt is no corpus that can be read; give a .jsonl'):
    documents.count([tmp_path / 'a.txt'])
  for text, message in (('{"a": 1}\n{', 'is not JSON .* a .jsonl'), ('[]', 'no object of titles')):
    (tmp_path / 'b.json').write_text(text)
    with pytest.raises(ValueError, match=message):
      documents.count([tmp_path / 'b.json'])
