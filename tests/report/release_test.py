"""report/release.py: lines as the release writes them, and what they become."""

import pytest

from mem1_jax.report import records, release
from tests.report.synthetic import RELEASE_PROMPT, release_row


def test_a_row_becomes_a_record_scored_by_our_rule():
  found = release.record(release_row())
  records.check(found)
  assert [q['text'] for q in found['task']['questions']] == [
      'capital of Peru?', 'capital of Norway?']
  assert found['task']['questions'][1]['answers'] == ['Oslo', 'Christiania']
  assert found['answer'] == 'Lima; Oslo' and found['task']['id'] == '7'
  assert found['score'] == {'em': 2.0, 'em_per_question': 1.0, 'f1': 2.0, 'answered': 1.0,
                            'turns': 2, 'searches': 1, 'release_match': 2.0}
  assert [turn['action'] for turn in found['turns']] == [
      {'kind': 'search', 'text': 'capital of Peru'}, {'kind': 'answer', 'text': 'Lima; Oslo'}]
  assert all(turn['tokens_in_context'] is None for turn in found['turns'])


def three_turns():
  row = release_row()
  return row | {'t2': row['t1'], 'r2': row['r1'], 't1': row['t0'], 'r1': row['r0'],
                'i1': '<information>second</information>'}


@pytest.mark.parametrize('name, saw, dropped', [
    ('x_mem1', 'q+1', '0'), ('x', 'q+1', '0'), ('x_normal', 'q+0+1', '')])
def test_what_was_seen_follows_the_kind_of_inference(name, saw, dropped):
  row = three_turns()
  parts = {'q': RELEASE_PROMPT, '0': row['r0'] + row['i0'], '1': row['r1'] + row['i1'], '': ''}
  turns = release.record(row, name)['turns']
  assert turns[0]['saw'] == RELEASE_PROMPT and turns[0]['dropped'] == ''
  assert turns[2]['saw'] == ''.join(parts[part] for part in saw.split('+'))
  assert turns[1]['dropped'] == parts[dropped]


def test_amem_sees_memories_and_the_prompt_only_once():
  turns = release.record(three_turns() | {'memories': ['', '- Peru', '- Norway']})['turns']
  assert turns[0]['saw'].endswith(RELEASE_PROMPT) and turns[0]['dropped'] == RELEASE_PROMPT
  assert turns[1]['saw'].startswith('- Peru\n<think>') and RELEASE_PROMPT not in turns[1]['saw']


def test_single_questions_and_missing_replies():
  row = {'q': 'Think.\n\nQuestion: Who?', 't0': '<think>hm</think>', 'Golden_answer': ['A', 'B'],
         'time_taken': 2.5}
  found = release.record(row)
  assert found['task']['questions'] == [{'label': '', 'text': 'Who?', 'answers': ['A', 'B']}]
  assert found['turns'][0]['wrote'] == '<think>hm</think>'
  assert found['turns'][0]['action'] == {'kind': 'malformed', 'text': 'no action'}
  assert found['answer'] is None and found['score']['em'] == 0 and found['score']['seconds'] == 2.5


def test_a_reply_without_its_think_is_put_together():
  found = release.record(release_row(r0='<search>Peru</search>'))
  assert found['turns'][0]['wrote'] == '<think>Look up Peru.</think><search>Peru</search>'


def test_a_failed_task_is_a_trajectory_without_turns():
  row = {'index': 3, 'hash': 'x', 'error': 'timed out', 'question': 'Who?', 'Golden_answer': ['A'],
         'Exact_match': False}
  assert release.is_row(row)
  found = release.record(row)
  assert found['turns'] == [] and found['fault'] == 'timed out' and found['score']['answered'] == 0


def test_a_prompt_that_cannot_be_divided_stands_whole():
  found = release.record(release_row(q='Two things, please'))
  assert [q['text'] for q in found['task']['questions']] == ['Two things, please', '']


@pytest.mark.parametrize('changes, message', [
    ({'Golden_answer': None}, 'Golden_answer is None'), ({'Golden_answer': []}, 'Golden_answer'),
    ({'q': 5}, 'q is 5; make it text'), ({'r0': ['x']}, 'r0 is .* make it text')])
def test_what_is_wrong_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    release.record(release_row(**changes))
