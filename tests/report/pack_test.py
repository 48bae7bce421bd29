"""report/pack.py: everything comes back, once."""

import base64
import json
import random
import zlib

import pytest

from mem1_jax.report import pack
from tests.report import synthetic


def decoded(packer):
  return json.loads(zlib.decompress(base64.b64decode(pack.encode(packer.packed))))


def packed(*records):
  packer = pack.Packer()
  for i, record in enumerate(records):
    packer.add(f'x/{i}', 0, record)
  return decoded(packer)


@pytest.mark.parametrize('is_append_only', [False, True])
def test_turns_come_back_as_they_were(is_append_only):
  record = synthetic.trajectory(random.Random(0), 4, is_append_only=is_append_only)
  found = packed(record)
  text = found['texts']

  def joined(pieces):
    return ''.join(text[piece] for piece in pieces)

  for turn, was in zip(found['trajectories'][0]['turns'], record['turns'], strict=True):
    assert joined(turn['saw']) == was['saw']
    assert joined(turn['saw'][turn['kept']:]) + joined(turn['dropped']) == was['dropped']
    assert text[turn['wrote']] == was['wrote'] and text[turn['information']] == was['information']
    assert (turn['kind'], text[turn['action']]) == (was['action']['kind'], was['action']['text'])
    assert turn['tokens'] == was['tokens_in_context']


def test_what_was_written_and_seen_again_is_stored_once():
  record = synthetic.trajectory(random.Random(0), 8, is_append_only=True)
  found = packed(record)
  said = sum(len(t['wrote']) + len(t['information']) + len(t['action']['text'])
             for t in record['turns'])
  assert sum(map(len, found['texts'])) <= len(record['turns'][0]['saw']) + said
  assert len(set(found['texts'])) == len(found['texts'])
  # The question is one and the same piece of all turns, which the page folds.
  assert {turn['saw'][0] for turn in found['trajectories'][0]['turns']} == {
      found['trajectories'][0]['turns'][0]['saw'][0]}


def test_dropped_text_that_was_not_seen_last_stands_alone():
  record = synthetic.trajectory(random.Random(0), 1)
  record['turns'][1]['dropped'] = 'something else altogether'
  turn = packed(record)['trajectories'][0]['turns'][1]
  assert turn['kept'] == len(turn['saw']) and turn['dropped']


def test_split_puts_known_pieces_first_and_loses_nothing():
  assert pack.split('abcXdefX', {'X', 'def'}) == ['abc', 'X', 'def', 'X']
  assert pack.split('', {'x'}) == [] and pack.split('ab', set()) == ['ab']
  assert pack.split('aaaa', {'aa', 'aaa'}) == ['aaa', 'a']


def test_questions_have_what_was_answered_and_whether_it_is_right():
  record = synthetic.trajectory(random.Random(3), 2)
  record['answer'] = f'{record["task"]["questions"][0]["answers"][0]}; nowhere'
  questions = packed(record)['trajectories'][0]['questions']
  assert [(q['given'], q['right']) for q in questions] == [
      (record['task']['questions'][0]['answers'][0], True), ('nowhere', False)]


def test_nothing_in_the_text_means_anything_to_html():
  record = synthetic.trajectory(random.Random(0), 1)
  record['turns'][0]['wrote'] = '</script><!-- \u2028 \ud800 <script>'
  packer = pack.Packer()
  packer.add('<x>', 0, record)
  text = pack.encode(packer.packed)
  assert set(text) <= set('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=')
  assert '</script><!-- \u2028 ? <script>' in decoded(packer)['texts']


def test_numbers_that_are_none_are_left_out():
  record = synthetic.trajectory(random.Random(0), 1)
  record['score'] |= {'odd': 'x', 'nan': float('nan'), 'third': 1 / 3}
  score = packed(record)['trajectories'][0]['score']
  assert score['third'] == 0.333333 and not {'odd', 'nan'} & score.keys()
