"""report/tables.py: the numbers land in the right cells and fit a terminal."""

import io

import pytest
from rich import console

from mem1_jax.report import tables

CELL = {
    'em': 1.25, 'em_per_question': 0.625, 'f1': 1.5, 'answered': 0.98, 'peak_tokens': 311.6,
    'peak_tokens_with_question': 350.2, 'dependency': 123456.0, 'turns': 5.25, 'seconds': 0.0512,
    'episodes': 100,
}  # fmt: skip
AGENTS = {'full_context': {'16': CELL, '2': CELL}, 'mem1_sft': {'2': CELL}}


def test_markdown_line_by_line():
  lines = tables.markdown(AGENTS).splitlines()
  assert lines[0].startswith('| agent | N | EM | EM/N | F1 | answered | peak | peak+q | dep. |')
  assert lines[2] == (
      '| constant memory, before PPO | 2 | 1.250 | 0.625 | 1.500 | 98% | 312 | 350 | 123k | 5.2 |'
      ' 0.0512 | 100 |'
  )
  assert [line.split('|')[2].strip() for line in lines[3:]] == ['2', '16']  # a number's order
  assert len({line.count('|') for line in lines}) == 1


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0.0, '0'), (0.01234, '0.0123'), (999.0, '999'), (1500.0, '1.5k'), (2.5e9, '2.5G')],
)
def test_three_digits_with_units(value, text):
  assert tables.formatted(value, '.3g') == text


def test_terminal_table_fits_80_columns():
  out = io.StringIO()
  console.Console(file=out, width=80).print(tables.terminal(AGENTS))
  text = out.getvalue()
  assert max(len(line) for line in text.splitlines()) <= 80
  assert '…' not in text  # nothing cut
  assert 'full context' in text
  assert '123k' in text
  assert 'after PPO' not in text  # an agent without cells is left out
