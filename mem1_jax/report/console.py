"""A trajectory turn by turn in the terminal: what the agent saw, wrote and dropped.

The record is plain JSON:

    {'task': {'id', 'questions': [{'label', 'text', 'answers': [...]}]},
     'turns': [{'saw', 'wrote', 'information', 'action', 'tokens_in_context', 'dropped'}],
     'score': {name: number}}

`saw` is all that was in the context when the turn began; `information` is the environment's
reply; `action` is {'kind', 'text'}; `dropped` is the text that left the context when the turn
ended ('' where nothing did); `tokens_in_context` is None where it was not recorded. Other keys,
such as `outage` (why a search could not be done), are for programs and report/page.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from rich import box, console, panel, rule, text

STYLES = {
    'think': 'cyan',
    'search': 'bold yellow',
    'click': 'bold yellow',
    'answer': 'bold green',
    'information': 'magenta',
}
_SPAN = re.compile(r'<(think|search|click|answer|information)>.*?(?:</\1>|\Z)', re.DOTALL)
# Everything that moves a cursor or recolours a terminal; line breaks and tabs stay.
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')


def _plain(value: Any) -> str:
  """Untrusted text with its control characters made visible (ESC → \\x1b)."""
  return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(value).replace('\r\n', '\n'))


def _tagged(value: str, style: str = '') -> text.Text:
  """Text with its tag spans coloured. Never parsed as markup: `[red]` stays `[red]`."""
  plain = _plain(value)
  styled = text.Text(plain, style=style)
  for match in _SPAN.finditer(plain):
    styled.stylize(STYLES[match[1]], *match.span())
  return styled


def _cut(value: str, max_chars: int | None) -> str:
  if max_chars is None or len(value) <= max_chars:
    return value
  return f'{value[:max_chars]}… ({len(value) - max_chars} more characters)'


def _require_keys(where: str, found: Any, wanted: tuple[str, ...]):
  if not isinstance(found, Mapping):
    raise ValueError(f'{where} is {found!r}; make it a dict with {list(wanted)}')
  missing = [key for key in wanted if key not in found]
  if missing:
    raise ValueError(f'{where} lacks {missing}; a record is described in report/console.py')


def _turn(index: int, turn: Mapping[str, Any], max_chars: int | None) -> panel.Panel:
  _require_keys(
      f'turns[{index}]', turn,
      ('saw', 'wrote', 'information', 'action', 'tokens_in_context', 'dropped'),
  )  # fmt: skip
  action = turn['action']
  kind = action['kind'] if isinstance(action, Mapping) else action
  parts = []
  for label, key, style in (
      ('saw', 'saw', 'dim'),
      ('wrote', 'wrote', ''),
      ('was told', 'information', ''),
      ('dropped', 'dropped', 'dim strike'),
  ):
    if turn[key]:
      parts.append(rule.Rule(text.Text(label, style='bold'), align='left', style='dim'))
      value = _cut(turn[key], max_chars)
      # Dropped text keeps one look: its tags do not count any more.
      plain = text.Text(_plain(value), style=style) if key == 'dropped' else _tagged(value, style)
      parts.append(plain)
  tokens = turn['tokens_in_context']
  title = f'turn {index + 1} · {_plain(kind)}' + (
      '' if tokens is None else f' · {tokens} tokens in context')
  return panel.Panel(
      console.Group(*parts), title=text.Text(title), title_align='left', box=box.ROUNDED
  )


def trajectory(record: Mapping[str, Any], *, max_chars: int | None = None) -> console.Group:
  """A record as one renderable; print it with `rich.console.Console().print`.

  Args:
    record: see the module's docstring.
    max_chars: longest text shown per part of a turn; what is cut is said. None: all of it.

  Raises:
    ValueError: the record lacks a key.
  """
  _require_keys('record', record, ('task', 'turns', 'score'))
  _require_keys('record.task', record['task'], ('id', 'questions'))
  lines = [text.Text.assemble(('task ', 'bold'), _plain(record['task']['id']))]
  for question in record['task']['questions']:
    answers = ' | '.join(_plain(answer) for answer in question['answers'])
    lines.append(text.Text.assemble(
        f'  {_plain(question.get("label", ""))}: ', _plain(question['text']), ('  → ', 'dim'),
        (answers, 'green'),
    ))  # fmt: skip
  turns = [_turn(index, turn, max_chars) for index, turn in enumerate(record['turns'])]
  score = record['score']
  if isinstance(score, Mapping):
    score = ' · '.join(
        f'{name} {value:.3g}' if isinstance(value, float) else f'{name} {value}'
        for name, value in score.items()
    )
  score_line = text.Text.assemble(('score ', 'bold'), _plain(score))
  return console.Group(*lines, *turns, score_line)


def show(
    record: Mapping[str, Any],
    *,
    max_chars: int | None = None,
    to: console.Console | None = None,
):
  """Prints a trajectory to `to`, a new console on standard output by default."""
  (to or console.Console()).print(trajectory(record, max_chars=max_chars))
