"""Rows of every container: what is bad is counted with its line, and never ends the file."""

import builtins
import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.data import formats, rows


def row(number, **fields):
  return {'id': f'r{number}', 'question': f'Who is {number}?', 'golden_answers': ['me']} | fields


def load(path):
  return rows.gather(path.name, rows.read_rows(path), formats.flashrag)


def lines_file(folder, *lines):
  path = folder / 'data.jsonl'
  path.write_bytes(b''.join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b'\n'
                            for line in lines))
  return path


BAD = {
    b'{"question": "Who?", "golden_answers": [': 'not JSON',
    b'nonsense': 'not JSON: Expecting value at column 1',
    b'[1, 2]': r'the row is \[1, 2\], not an object',
    b'null': 'the row is None',
    b'"text"': "the row is 'text'",
    b'\xff\xfe{}': 'not UTF-8 at byte 0',
    b'{"question": "caf\xe9", "answer": "x"}': 'not UTF-8 at byte 17',
    b'{"question": "\\ud800", "answer": "x"}': 'question is not valid Unicode at character 0',
    b'{"question": "Who?", "answer": "\\udfff"}': 'answer is not valid Unicode',
    b'[' * 100_000: 'not JSON that can be read',
    b'{"question": "Who?", "answer": ' + b'1' * 5000 + b'}': 'not JSON that can be read',
    b'{}': 'question is missing',
    b'{"question": null, "answer": "x"}': 'question is None, not text',
    b'{"question": 5, "answer": "x"}': 'question is 5, not text',
    b'{"question": "", "answer": "x"}': 'question is empty',
    b'{"question": " \\n", "answer": "x"}': 'question is empty',
    b'{"question": "Who?"}': 'golden_answers is missing',
    b'{"question": "Who?", "answer": null}': 'golden_answers is missing',
    b'{"question": "Who?", "golden_answers": []}': 'golden_answers has no answer',
    b'{"question": "Who?", "answer": ["", "  "]}': 'answer has no answer',
    b'{"question": "Who?", "answer": [null]}': 'answer has None, which is not text',
    b'{"question": "Who?", "answer": 1923}': 'answer is 1923, not text',
    b'{"question": "Who?", "answer": {"x": 1}}': 'answer has no answer',
    b'{"id": true, "question": "Who?", "answer": "x"}': 'id is True',
    b'{"id": [], "question": "Who?", "answer": "x"}': r'id is \[\]',
    b'{"question": "Who?", "answer": "x", "hops": 0}': 'hops is 0',
    b'{"question": "Who?", "answer": "x", "hops": "2"}': "hops is '2'",
    b'{"question": "Who?", "answer": "x", "chain": "Oslo"}': "chain is 'Oslo'",
    b'{"question": "Who?", "answer": "x", "chain": ["", "a"]}': 'chain has an empty text',
}


@pytest.mark.parametrize('bad', BAD, ids=[str(k) for k in range(len(BAD))])
def test_a_bad_line_is_counted_with_its_place(tmp_path, bad):
  loaded = load(lines_file(tmp_path, row(1), b'', bad, row(2)))
  assert [q.id for q in loaded.questions] == ['r1', 'r2']
  assert (loaded.report.num_good, loaded.report.num_bad) == (2, 1)
  problem, = loaded.report.problems
  assert problem.startswith('data.jsonl:3: ')
  assert re.search(BAD[bad], problem), problem


def test_a_huge_line_is_skipped_without_keeping_it(tmp_path):
  path = lines_file(tmp_path, row(1), row(2, x='x' * 5000), row(3, x='y' * 700), row(4))
  found = list(rows.line_rows(path, 1000))
  assert [number for number, _ in found] == [1, 2, 3, 4]
  assert isinstance(found[1][1], ValueError) and 'longer than 1000 bytes' in str(found[1][1])
  assert found[3][1] == row(4)


def test_a_huge_last_line_and_lines_of_the_very_limit(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_bytes(b'"' + b'x' * 8 + b'"\n' + b'"' + b'y' * 9 + b'"\n' + b'"' + b'z' * 50)
  assert [type(record) for _, record in rows.line_rows(path, 10)] == [str, ValueError, ValueError]


def test_other_line_ends_and_marks(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_bytes(b'\xef\xbb\xbf' + b'\r\n'.join(json.dumps(row(k)).encode() for k in range(3)))
  assert load(path).report.num_good == 3


@given(st.lists(st.one_of(st.integers(0, 50), st.sampled_from(sorted(BAD))), max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_line_is_accounted_for(tmp_path_factory, items):
  lines = [row(item) if isinstance(item, int) else item for item in items]
  path = lines_file(tmp_path_factory.mktemp('rows'), *lines)
  ids = {item for item in items if isinstance(item, int)}
  if not ids:
    with pytest.raises(ValueError, match='data.jsonl'):
      load(path)
    return
  loaded = load(path)
  report = loaded.report
  assert {q.id for q in loaded.questions} == {f'r{i}' for i in ids}
  assert report.num_good == len(ids)
  assert report.num_good + report.num_bad + report.num_repeated == len(items)
  where = [k for k, item in enumerate(items, 1) if isinstance(item, bytes)]
  assert [int(p.split(':')[1]) for p in report.problems] == where[:rows.MAX_PROBLEMS]


def test_only_bad_rows_are_an_error(tmp_path):
  with pytest.raises(ValueError, match=r'(?s)data.jsonl: none of its 12 rows .*12 bad.*:1: .*:10:'):
    load(lines_file(tmp_path, *[{'question': 'Who?'}] * 12))
  with pytest.raises(ValueError, match='data.jsonl has no rows'):
    load(lines_file(tmp_path))
  with pytest.raises(FileNotFoundError):
    load(tmp_path / 'absent.jsonl')


def array_file(folder, text):
  path = folder / 'data.json'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def test_an_array_is_read_element_by_element(tmp_path):
  text = json.dumps([row(1), 5, row(2, question=''), None, row(3), row(1)], indent=2)
  loaded = load(array_file(tmp_path, text))
  assert [q.id for q in loaded.questions] == ['r1', 'r3']
  assert (loaded.report.num_bad, loaded.report.num_repeated) == (3, 1)
  lines = text.splitlines()
  where = [int(p.split(':')[1]) for p in loaded.report.problems]
  assert [lines[number - 1].strip() for number in where] == ['5,', '{', 'null,']
  assert '"r2"' in lines[where[1]]


@pytest.mark.parametrize('broken', [
    '{"question": "Who?" "answer": "x"}', '{"question": "Who?", "answer": }',
    '{"question": "unterminated, "answer": "x"}', "{'question': 'Who?'}"])
def test_reading_goes_on_behind_a_broken_element(tmp_path, broken):
  good = json.dumps(row(1)), json.dumps(row(2))
  loaded = load(array_file(tmp_path, f'[{good[0]},\n{broken},\n{good[1]}]'))
  assert [q.id for q in loaded.questions] == ['r1', 'r2']
  problem, = loaded.report.problems
  assert problem.startswith('data.json:2: not JSON: ')


def test_an_array_that_breaks_off(tmp_path):
  whole = json.dumps([row(1), row(2), row(3)], indent=1)
  loaded = load(array_file(tmp_path, whole[:-30]))
  assert [q.id for q in loaded.questions] == ['r1', 'r2'] and loaded.report.num_bad == 1
  loaded = load(array_file(tmp_path, f'[\n{json.dumps(row(1))},\n'))
  assert loaded.report.problems == ('data.json:3: the file ends within its array',)
  loaded = load(array_file(tmp_path, whole + ' [1]'))
  assert loaded.report.num_good == 3 and 'text behind the array' in loaded.report.problems[0]


def test_an_array_with_bytes_that_are_no_text(tmp_path):
  first, second = json.dumps(row(1)).encode(), json.dumps(row(2, x='Q')).encode()
  loaded = load(array_file(tmp_path, b'[' + first + b',' + second.replace(b'Q', b'\xff') + b']'))
  assert loaded.report.num_good == 1 and loaded.report.problems == ('data.json:1: not UTF-8',)


def test_a_huge_element(tmp_path):
  path = array_file(tmp_path, json.dumps([row(1), row(2, x='x' * 500)]))
  assert [type(record) for _, record in rows.array_rows(path, 200)] == [dict, ValueError]


@given(st.binary(max_size=60), st.sampled_from(['data.json', 'data.jsonl']))
@settings(max_examples=150, deadline=None)
def test_no_bytes_raise_anything_else(tmp_path_factory, content, name):
  path = tmp_path_factory.mktemp('any') / name
  for start in (b'', b'[', b'[' + json.dumps(row(1)).encode() + b','):
    path.write_bytes(start + content)
    for number, record in rows.read_rows(path):
      assert number >= 1
      del record


def write_parquet(path, records, **columns):
  pyarrow = pytest.importorskip('pyarrow')
  import pyarrow.parquet
  table = pyarrow.Table.from_pylist(records)
  for name, column in columns.items():
    table = table.set_column(table.schema.get_field_index(name), name, column(pyarrow))
  pyarrow.parquet.write_table(table, path)
  return path


def test_parquet_rows_and_their_numbers(tmp_path):
  records = [row(k) for k in range(2500)]
  records[1999] |= {'question': None}
  records[3] |= {'golden_answers': []}
  loaded = load(write_parquet(tmp_path / 'data.parquet', records))
  assert len(loaded.questions) == 2498
  assert loaded.report.problems == ('data.parquet:4: golden_answers has no answer',
                                    'data.parquet:2000: question is None, not text')


def test_parquet_with_bytes_that_are_no_text(tmp_path):
  def texts(pyarrow):
    raw = pyarrow.array([b'Who?', b'caf\xe9', b'What?'], pyarrow.binary())
    return pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())

  path = write_parquet(tmp_path / 'data.parquet', [row(k) for k in range(3)], question=texts)
  loaded = load(path)
  assert [q.id for q in loaded.questions] == ['r0', 'r2']
  assert loaded.report.problems[0].startswith('data.parquet:2: not UTF-8')


def test_what_is_no_parquet(tmp_path):
  pytest.importorskip('pyarrow')
  path = tmp_path / 'data.parquet'
  path.write_bytes(b'PAR1 but not really')
  with pytest.raises(ValueError, match='data.parquet cannot be read as Parquet'):
    load(path)
  with pytest.raises(FileNotFoundError):
    load(tmp_path / 'absent.parquet')


def test_a_damaged_parquet_file_counts_as_bad_from_there_on(tmp_path):
  path = write_parquet(tmp_path / 'data.parquet', [row(k) for k in range(20_000)])
  content = bytearray(path.read_bytes())
  content[200:400] = bytes(200)
  path.write_bytes(content)
  with pytest.raises(ValueError, match='data.parquet'):
    load(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
  real = builtins.__import__

  def without(name, *arguments, **keywords):
    if name.startswith('pyarrow'):
      raise ImportError(name)
    return real(name, *arguments, **keywords)

  monkeypatch.setattr(builtins, '__import__', without)
  with pytest.raises(ImportError, match=r'pip install "mem1_jax\[parquet\]"'):
    rows.read_rows(tmp_path / 'data.parquet')


def test_a_report_in_words():
  report = rows.Report('f.json', 5, 12, 1, 2, problems=('f.json:3: question is empty',))
  assert str(report).splitlines() == [
      'f.json: 5 good rows, 12 bad, 1 repeated, 2 without an answer, 0 questions not chosen',
      '  f.json:3: question is empty', '  … and 11 more']
