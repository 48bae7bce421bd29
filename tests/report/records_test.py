"""report/records.py: good lines are read, bad ones named and counted."""

import json

import pytest

from mem1_jax.report import records
from tests.report import synthetic


def write(path, *lines):
  path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line)
                            for line in lines) + '\n', encoding='utf-8')
  return path


def test_bad_lines_are_named_by_number_and_the_others_read(tmp_path):
  good = synthetic.trajectories(2)
  path = write(tmp_path / 'x.jsonl', good[0], '{"task": ', '', {'turns': []}, '[1]', good[1],
               {'q': 'Who?', 'Golden_answer': 3})
  reading = records.read(path)
  assert [r['task']['id'] for r in reading.records] == [r['task']['id'] for r in good]
  assert [problem.split(': ')[0] for problem in reading.problems] == [
      f'x.jsonl, line {n}' for n in (2, 4, 5, 7)]
  assert 'cut short' in reading.problems[0] and "lacks ['task'" in reading.problems[1]
  assert 'Golden_answer is 3' in reading.problems[3]


def test_both_kinds_of_lines_in_one_file_and_line_separators_inside(tmp_path):
  row = synthetic.release_row(t0='<think>a\u2028b\u0085c</think>')
  path = tmp_path / 'x_mem1.jsonl'
  path.write_text(json.dumps(row, ensure_ascii=False) + '\r\n' +
                  json.dumps(synthetic.trajectories(1)[0]), encoding='utf-8', newline='')
  reading = records.read(path)
  assert len(reading.records) == 2 and not reading.problems
  assert '\u2028' in reading.records[0]['turns'][0]['wrote']


@pytest.mark.parametrize('lines, message', [
    ((), 'is empty'), (('nothing',), 'line 1: no JSON')])
def test_a_file_without_a_trajectory_is_refused(tmp_path, lines, message):
  with pytest.raises(ValueError, match=message):
    records.read(write(tmp_path / 'x.jsonl', *lines))


def test_one_line_is_read_alone(tmp_path):
  good = synthetic.trajectories(2)
  path = write(tmp_path / 'x.jsonl', good[0], '', good[1], 'broken')
  assert records.read_one(path, 1) == good[1]
  with pytest.raises(ValueError, match='line 4: no JSON'):
    records.read_one(path, 2)
  for index in (3, -1):
    with pytest.raises(ValueError, match=f'trajectories 0 to 2, not {index}'):
      records.read_one(path, index)


@pytest.mark.parametrize('path, value, message', [
    ('turns', None, r'the record.turns is None; make it a list'),
    ('turns/0/wrote', 3, r'turns\[0\].wrote is 3; make it a str'),
    ('turns/0/action', 'search', r'turns\[0\].action'),
    ('turns/0/tokens_in_context', 'many', 'tokens_in_context'),
    ('turns/1', [], r'turns\[1\] is \[\]'),
    ('task/questions', {}, 'task.questions is'),
    ('task/questions/0/answers', 'Lima', r'questions\[0\].answers'),
])
def test_a_malformed_record_is_named(path, value, message):
  record = synthetic.trajectories(1)[0]
  *folders, last = (int(key) if key.isdigit() else key for key in path.split('/'))
  node = record
  for key in folders:
    node = node[key]
  node[last] = value
  with pytest.raises(ValueError, match=message):
    records.check(record)


def test_marks_follow_the_rule_of_the_reward():
  record = {'task': {'questions': [{'label': '[a]', 'text': '', 'answers': ['Lima']},
                                   {'label': '[b]', 'text': '', 'answers': ['Oslo', 'the Oslo']}]}}
  assert records.marks(record | {'answer': '*>[a]: lima!;>[b]: Bergen;>.'}) == [
      ('lima!', True), ('Bergen', False)]
  assert records.marks(record | {'answer': 'Lima'}) == [('Lima', False), ('', False)]  # the count
  assert records.marks(record | {'answer': None}) == [('', False), ('', False)]


def test_files_of_other_lines_are_told_apart(tmp_path):
  assert not records.is_file_of(write(tmp_path / 'a.jsonl', {'contents': 'text'}))
  assert not records.is_file_of(tmp_path / 'missing.jsonl')
  assert records.is_file_of(write(tmp_path / 'b.jsonl', 'broken', synthetic.trajectories(1)[0]))
