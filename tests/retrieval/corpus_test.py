"""Files of documents, whole and broken."""

import json

import pytest

from mem1_jax import types
from mem1_jax.retrieval import corpus


def write(tmp_path, *lines):
  path = tmp_path / 'corpus.jsonl'
  path.write_bytes(b''.join(line if isinstance(line, bytes) else line.encode() for line in lines))
  return path


def test_both_formats_are_read_and_bad_lines_are_named(tmp_path, caplog):
  path = write(
      tmp_path, json.dumps({'id': '0', 'contents': '"Oslo"\nA city.'}), '\n', '{"id": 1}\n', '\n',
      json.dumps({'title': 'Moss', 'text': 'A town.'}), '\n', b'\xff\n', '{"contents": "cut off')
  sizes = []
  passages, num_bad = corpus.read(path, sizes.append)
  assert passages == [types.Passage('Oslo', 'A city.', id='0'), types.Passage('Moss', 'A town.')]
  assert num_bad == 3 and sum(sizes) == path.stat().st_size and len(sizes) == 6
  assert [record.getMessage().partition(' ')[0] for record in caplog.records] == [
      f'{path}:{number}' for number in (2, 5, 6)]


def test_the_log_names_some_of_many_bad_lines(tmp_path, caplog):
  path = write(tmp_path, '7\n' * 25, '{"text": "a"}')
  assert corpus.read(path) == ([types.Passage('', 'a')], 25)
  assert len(caplog.records) == 11 and '15 more lines' in caplog.text


def test_files_without_a_document(tmp_path):
  with pytest.raises(ValueError, match=r'has no document \(2 other lines\)'):
    corpus.read(write(tmp_path, 'a\nb\n'))
  with pytest.raises(ValueError, match=r'has no document \(0 other lines\)'):
    corpus.read(write(tmp_path, '\n'))
  with pytest.raises(FileNotFoundError, match='is no file'):
    corpus.read(tmp_path)
