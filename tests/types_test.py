"""types.py: what the host-side types promise."""

import pathlib
import subprocess
import sys

from mem1_jax import types


def test_a_tasks_hops_are_the_sum_of_its_questions():
  questions = tuple(
      types.Question(id=str(hops), text='?', answers=('a',), hops=hops) for hops in (1, 3, 2)
  )
  task = types.Task(id='t', questions=questions, labels=('a', 'b', 'c'), source='test')
  assert task.hops == 6
  assert task.domain == 'qa'


def test_kinds_are_the_numbers_that_packed_rows_hold():
  assert [int(kind) for kind in types.Kind] == [0, 1, 2, 3, 4]
  assert types.Kind.PAD == 0  # rows are padded with zeros


def test_types_import_without_jax():
  code = 'import sys, mem1_jax.types; sys.exit("jax" in sys.modules)'
  root = pathlib.Path(__file__).resolve().parents[1]
  assert subprocess.run([sys.executable, '-c', code], check=False, cwd=root).returncode == 0


def test_a_value_is_read_as_it_is_noted():
  text = 'A city. Its population is 1.2 million. And its larger neighbor is St Mary.'
  assert types.value_in(text, 'population') == '1.2 million'
  assert types.value_in(text, 'larger neighbor') == 'St Mary'
  assert types.value_in(text, 'capital') is None and types.value_in('', 'capital') is None
  assert types.value_in('Its' + types.read_off('code', '(x'), 'code') == '(x'
  assert types.value_in(' a.b is c.', 'axb') is None


def test_what_is_sought_names_the_last_relation_first():
  assert types.sought(('country', 'capital')) == 'capital of country @'


def test_answers_so_far_end_where_the_next_label_is_to_stand():
  assert types.so_far([]) == '*>'
  assert types.so_far([('[kf]', 'Oslo'), ('[zb]', '51')]) == '*>[kf]: Oslo;>[zb]: 51;>'
