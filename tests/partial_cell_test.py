"""Files of cells that are not whole: what is read back, what is dropped, what is refused."""

import json

import pytest

from mem1_jax import partial_cell
from mem1_jax.partial_cell import PartialCell

KNOBS = {'seed': 0, 'eval.tasks': 3, 'shares': (0.5, 0.5)}


def begin(path, *indices, knobs=KNOBS):
  partial = PartialCell(path, knobs)
  partial.open()
  for i in indices:
    partial.add(i, {'em': 0.1 * i}, {'counts': {'queries': i}})
  partial.close()
  return partial


def test_what_was_written_is_read_and_added_to(tmp_path):
  path = tmp_path / 'mem1-2.partial'
  assert begin(path, 2, 0).records == PartialCell(path, KNOBS).records == {
      2: {'em': 0.2}, 0: {'em': 0.0}}
  begin(path, 1)
  again = PartialCell(path, KNOBS)
  assert set(again.records) == {0, 1, 2} and again.told == {'counts': {'queries': 3}}
  assert len(path.read_text().splitlines()) == 4  # one head
  again.remove()
  assert not path.exists()


@pytest.mark.parametrize('rest', ['{"index": 1, "rec', '{"index": 1, "record": {}, "told": {}}', '{'])
def test_a_line_that_was_cut_short_is_dropped(tmp_path, rest):
  path = tmp_path / 'mem1-2.partial'
  begin(path, 0)
  with path.open('a') as file:
    file.write(rest)  # no line feed
  assert set(PartialCell(path, KNOBS).records) == {0}
  begin(path, 1)
  assert set(PartialCell(path, KNOBS).records) == {0, 1}


def test_a_head_that_was_cut_short_is_written_anew(tmp_path):
  path = tmp_path / 'mem1-2.partial'
  path.write_text('{"made_by": {"se')
  begin(path, 0)
  assert set(PartialCell(path, KNOBS).records) == {0}


def test_another_run_is_refused_and_a_knob_that_is_new_is_not(tmp_path):
  path = tmp_path / 'mem1-2.partial'
  begin(path, 0)
  with pytest.raises(ValueError, match='eval.tasks 3 there, 4 here; seed 0 there, 1 here.*workdir'):
    PartialCell(path, KNOBS | {'seed': 1, 'eval.tasks': 4})
  assert PartialCell(path, KNOBS | {'new': 1}).records
  many = {f'knob{i:02}': i for i in range(20)}
  with pytest.raises(ValueError, match='knob07 7 there, None here and 12 more'):
    partial_cell.check(path, many, dict.fromkeys(many))


@pytest.mark.parametrize('line', ['{}', '7', '{"index"}', '\xff', '{"index": 1, "record": {}}'])
def test_a_damaged_line_is_named(tmp_path, line):
  path = tmp_path / 'mem1-2.partial'
  begin(path, 0)
  lines = path.read_bytes().splitlines()
  path.write_bytes(b'\n'.join([lines[0], line.encode('latin-1'), lines[1], b'']))
  with pytest.raises(ValueError, match='line 2 is damaged'):
    PartialCell(path, KNOBS)


def test_counts_are_merged():
  first = {'counts': {'a': 1}, 'names': ['x'], 'usage': {'replies': 2}}
  assert partial_cell.merged(first, {'counts': {'a': 2, 'b': 1}, 'names': ['w', 'x'], 'n': 1}) == {
      'counts': {'a': 3, 'b': 1}, 'names': ['w', 'x'], 'usage': {'replies': 2}, 'n': 1}
  assert json.dumps(first) == '{"counts": {"a": 1}, "names": ["x"], "usage": {"replies": 2}}'
