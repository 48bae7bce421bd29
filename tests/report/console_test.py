"""report/console.py: everything is shown, and text from outside stays text."""

import io

import pytest
from rich import console as rich_console

from mem1_jax.report import console


def record(**changes):
  turn = {
      'saw': 'Q a: capital of Peru?',
      'wrote': '<think>look it up</think><search>Peru</search>',
      'information': '<information>Peru: capital Lima</information>',
      'action': {'kind': 'search', 'text': 'Peru'},
      'tokens_in_context': 42,
      'dropped': '',
  } | changes
  last = turn | {
      'wrote': '<think>Lima</think><answer>Lima</answer>', 'information': '',
      'action': {'kind': 'answer', 'text': 'Lima'}, 'dropped': 'the first turn',
  }  # fmt: skip
  return {
      'task': {
          'id': 'test/7',
          'questions': [{'label': 'a', 'text': 'capital of Peru?', 'answers': ['Lima', 'Ciudad']}],
      },
      'turns': [turn, last],
      'score': {'em': 1.0, 'turns': 2},
  }


def shown(value, **kwargs):
  out = io.StringIO()
  to = rich_console.Console(file=out, width=100, force_terminal=False)
  console.show(value, to=to, **kwargs)
  return out.getvalue()


def test_saw_wrote_told_and_dropped_are_shown_in_order():
  text = shown(record())
  places = [
      text.index(part)
      for part in (
          'test/7', 'Lima | Ciudad', 'turn 1 · search · 42 tokens in context', 'saw',
          'Q a: capital of Peru?', 'wrote', '<search>Peru</search>', 'was told',
          'Peru: capital Lima', 'turn 2 · answer', 'dropped', 'the first turn', 'em 1 · turns 2',
      )
  ]  # fmt: skip
  assert places == sorted(places)
  assert text.count('dropped') == 1  # nothing was dropped in the first turn


@pytest.mark.parametrize('key', ['saw', 'wrote', 'information', 'dropped'])
def test_markup_is_text(key):
  markup = '[bold red]x[/] [/nothing] [link=http://a]'
  assert markup in shown(record(**{key: markup}))


def test_markup_in_names_is_text():
  value = record(action={'kind': '[red]odd[/red]', 'text': ''})
  value['task']['id'] = '[/]'
  value['task']['questions'][0]['answers'] = ['[blue]']
  value['score'] = {'[em]': '[x]'}
  text = shown(value)
  for part in ('[red]odd[/red]', 'task [/]', '[blue]', '[em] [x]'):
    assert part in text


def test_terminal_escapes_are_made_visible():
  text = shown(record(information='a\x1b[2Jb\x07c\x9bd\u202ee\tf'))
  assert 'a\\x1b[2Jb\\x07c\\x9bd\\u202ee' in text
  assert not any(char in text for char in '\x1b\x07\x9b\u202e')


def test_spans_are_coloured_even_when_unclosed():
  styled = console._tagged('x<think>a</think><search>b')
  spans = {(span.start, span.end, str(span.style)) for span in styled.spans}
  assert spans == {(1, 17, 'cyan'), (17, 26, 'bold yellow')}


def test_what_is_cut_is_said():
  text = shown(record(information='x' * 50), max_chars=45)
  assert 'x' * 45 + '… (5 more characters)' in text


def test_a_missing_key_is_named():
  value = record()
  del value['turns'][1]['dropped']
  with pytest.raises(ValueError, match=r"turns\[1\] lacks \['dropped'\]"):
    shown(value)
