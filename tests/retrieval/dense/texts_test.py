"""Ids, cuts and batches of a few shapes."""

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.retrieval.dense import texts
from tests.retrieval.dense import bert_small


def tokenizer(folder, max_length=20):
  return texts.Tokenizer(bert_small.write(folder), max_length)


def rows(*lengths):
  return [np.full([2, n], i + 1, np.int32) for i, n in enumerate(lengths)]


def test_ids_and_types(tmp_path):
  found = tokenizer(tmp_path)(['ab', ('a', 'b')])
  words = [[bert_small.VOCAB[i] for i in row[0]] for row in found.rows]
  assert words == [['[CLS]', 'a', '##b', '[SEP]'], ['[CLS]', 'a', '[SEP]', 'b', '[SEP]']]
  assert [row[1].tolist() for row in found.rows] == [[0] * 4, [0, 0, 0, 1, 1]]
  assert found.num_cut == 0


def test_cut_texts_are_counted(tmp_path):
  found = tokenizer(tmp_path)(['a' * 18, 'a' * 19, 'a' * 99, ('a' * 9, 'b' * 9)])
  assert [row.shape[1] for row in found.rows] == [20] * 4 and found.num_cut == 3
  assert found.rows[2][0, -1] == bert_small.VOCAB.index('[SEP]')


def test_the_drawing():
  found = list(texts.batches(rows(30, 90, 12, 70, 33), (16, 32, 48, 96), 128, 192))
  assert [batch.tokens.shape for batch in found] == [(2, 96), (4, 48)]
  assert [batch.lengths.tolist() for batch in found] == [[90, 70], [33, 30, 12, 1]]
  assert [batch.indices.tolist() for batch in found] == [[1, 3], [4, 0, 2]]
  assert found[1].tokens[2].tolist() == [3] * 12 + [0] * 36  # which text, then padding
  assert found[1].tokens[3].tolist() == [0] * 48


def test_batches_for_several_devices():
  found = list(texts.batches(rows(*[30] * 5), (32,), 32, 32, multiple=4))
  assert [batch.tokens.shape for batch in found] == [(4, 32)] * 2
  assert [batch.tokens.shape for batch in texts.batches(rows(200), (32, 256), 220, 9)] == [(1, 220)]


@pytest.mark.parametrize('length, expected', [(1, 16), (16, 16), (17, 32), (33, 40), (40, 40)])
def test_padded(length, expected):
  assert texts.padded(length, (16, 32, 64), 40) == expected


def test_templates():
  passage = types.Passage('{text}', 'b')
  assert texts.fill(texts.check_template('"{title}" {text}'), passage) == '"{text}" b'
  for template in ('{title}', '{text} {id}', '{text', '{}'):
    with pytest.raises(ValueError, match='it needs {text}'):
      texts.check_template(template)


def test_a_tokenizer_that_is_not_there_or_damaged(tmp_path):
  with pytest.raises(FileNotFoundError, match='tokenizer.json is missing; write it'):
    texts.Tokenizer(tmp_path, 9)
  (tmp_path / 'tokenizer.json').write_text('{}')
  with pytest.raises(ValueError, match='is no tokenizer .*fetch it again'):
    texts.Tokenizer(tmp_path, 9)
