"""What each knob of a config is, read from the comments of configs/base.py.

`main knobs` shows them with a config's values; docs/configs.md is all of them (a test holds it up
to date). A knob is an assignment to `c.NAME` in `get_config`, a comment behind it what it is.
"""

import ast
import dataclasses
import io
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

_CONFIG = 'c'  # base.py's name of it


@dataclasses.dataclass(frozen=True)
class Knob:
  """A knob, or a group of them.

  Attributes:
    name: with dots: `ppo.clip`.
    text: what it is, unit and range; '' where its name says it.
    default: its value in base.py, as Python text; '' for a group.
  """

  name: str
  text: str
  default: str = ''


def read(source: str) -> list[Knob]:
  """The knobs and groups of base.py's text, in its order."""
  comments = {token.start[0]: token.string.removeprefix('#').strip()
              for token in tokenize.generate_tokens(io.StringIO(source).readline)
              if token.type == tokenize.COMMENT}
  knobs = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Assign):
      continue
    name = ast.unparse(node.targets[0]).partition('.')
    if name[0] != _CONFIG or not name[2]:
      continue
    is_group = isinstance(node.value, ast.Call)
    knobs.append(Knob(name[2], comments.get(node.lineno, ''),
                      '' if is_group else ast.get_source_segment(source, node.value)))
  return knobs


def values(config: Mapping[str, Any], before: str = '') -> dict[str, str]:
  """{name: value as Python text} of every knob of a config."""
  found = {}
  for name, value in config.items():
    inner = isinstance(value, Mapping)
    found |= values(value, f'{before}{name}.') if inner else {before + name: repr(value)}
  return found


def matching(knobs: Sequence[Knob], text: str) -> list[Knob]:
  """The knobs whose name or description has the text; groups that have such knobs, too.

  Raises:
    ValueError: none has.
  """
  found = [knob for knob in knobs if knob.default
           and text.lower() in f'{knob.name} {knob.text}'.lower()]
  if not found:
    raise ValueError(f'no knob has {text!r} in its name or description; `mem1 knobs` lists all')
  groups = {knob.name.rpartition('.')[0] for knob in found}
  return [knob for knob in knobs if knob in found or (not knob.default and knob.name in groups)]


def lines(knobs: Sequence[Knob], config: Mapping[str, str]) -> list[str]:
  """A line for each; a value that is not base.py's is marked with a star."""
  shown = []
  for knob in knobs:
    if not knob.default:
      shown += ['', f'{knob.name}: {knob.text}' if knob.text else knob.name]
      continue
    value = config[knob.name]
    mark = ' ' if value == repr(ast.literal_eval(knob.default)) else '*'
    shown.append(f'{mark} {knob.name:32} {value:22} {knob.text}')
  return shown


def markdown(knobs: Sequence[Knob]) -> str:
  """docs/configs.md."""
  parts = [
      '# Knobs\n\nEvery knob of a config, its default and what it is; made from `configs/base.py` by '
      '`main knobs --markdown`. `main knobs --config=NAME TEXT` shows those with TEXT in their '
      'name or description, with the values of that config. Override one by '
      '`--config.ppo.clip=0.1`; values are Python, words need no quotes. Other configs are '
      '`base.get_config()` and differences.\n']
  head = '| knob | default | |\n|---|---|---|'
  parts.append(head)
  for knob in knobs:
    text = knob.text.replace('|', '\\|')
    if knob.default:
      parts.append(f'| `{knob.name}` | `{knob.default}` | {text} |')
    else:
      parts.append(f'\n## {knob.name}\n\n{f"{text}{chr(10)}{chr(10)}" if text else ""}{head}')
  return '\n'.join(parts) + '\n'
