"""Files of trajectories, read line by line: ours (report/console.py) or the MEM1 release's.

A line that cannot be read ends nothing: it is named with its file and number, and counted.
"""

import collections
from collections.abc import Iterator, Mapping
import dataclasses
import itertools
import json
import math
from typing import Any

from mem1_jax import storage, types
from mem1_jax.env import rewards
from mem1_jax.report import release

_RECORD = {'task': dict, 'turns': list, 'score': dict}
_TURN = {'saw': str, 'wrote': str, 'information': str, 'action': dict, 'dropped': str}
_QUESTION = {'text': str, 'answers': list}
_SNIFFED = 10  # lines; the first may be broken


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a file holds.

  Attributes:
    path: of the file.
    records: the trajectories, in order.
    problems: a line of text for each line that could not be read.
  """

  path: storage.Path
  records: tuple[dict[str, Any], ...]
  problems: tuple[str, ...] = ()


def read(path: storage.Path) -> Reading:
  """All trajectories of a .jsonl.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it has no trajectory, or none that can be read.
  """
  records, problems = [], []
  for number, line in _lines(path):
    try:
      records.append(parse(line, path.stem))
    except ValueError as error:
      problems.append(f'{path.name}, line {number}: {error}')
  if not records:
    raise ValueError(f'{path} has no trajectory that can be read' + (
        f'; {problems[0]}' if problems else ': it is empty; evaluate at least one task'))
  return Reading(path, tuple(records), tuple(problems))


def read_one(path: storage.Path, index: int) -> dict[str, Any]:
  """The trajectory on line `index`, from 0; blank lines are not counted.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it has no such line, or that line is no trajectory.
  """
  count = 0
  for number, line in _lines(path):
    if count == index:
      try:
        return parse(line, path.stem)
      except ValueError as error:
        raise ValueError(f'{path.name}, line {number}: {error}') from error
    count += 1
  raise ValueError(f'{path} has trajectories 0 to {count - 1}, not {index}.' if count else
                   f'{path} has no trajectory: it is empty; evaluate at least one task')


def is_file_of(path: storage.Path) -> bool:
  """Whether a file looks like one of trajectories, from its first lines; False where it is not."""
  if not path.is_file():
    return False
  for _, line in itertools.islice(_lines(path), _SNIFFED):
    try:
      found = json.loads(line)
    except ValueError:
      continue
    if isinstance(found, Mapping) and ('turns' in found or release.is_row(found)):
      return True
  return False


def _lines(path: storage.Path) -> Iterator[tuple[int, str]]:
  """(number from 1, line) of the lines that are not blank. Only line feeds end a line: JSON may
  hold U+2028, where str.splitlines would cut."""
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      if line.strip():
        yield number, line.decode('utf-8', errors='replace')


def parse(line: str, name: str = '') -> dict[str, Any]:
  """The record of one line; `name` of its file tells the release's kinds of inference apart.

  Raises:
    ValueError: says what is wrong with the line.
  """
  try:
    found = json.loads(line)
  except ValueError as error:
    raise ValueError(f'no JSON ({error}); was it cut short?') from error
  if isinstance(found, Mapping) and release.is_row(found):
    return release.record(found, name)
  check(found)
  return found


def check(record: Any):
  """Refuses what is no record.

  Raises:
    ValueError: names the entry and what it should be.
  """
  _check('the record', record, _RECORD)
  questions = record['task'].get('questions')
  if not isinstance(questions, list):
    raise ValueError(f'task.questions is {_shown(questions)}; make it a list')
  for i, question in enumerate(questions):
    _check(f'task.questions[{i}]', question, _QUESTION)
  for i, turn in enumerate(record['turns']):
    _check(f'turns[{i}]', turn, _TURN)
    tokens = turn.get('tokens_in_context')
    if tokens is not None and not is_number(tokens):
      raise ValueError(f'turns[{i}].tokens_in_context is {_shown(tokens)}; make it a number')


def _check(where: str, found: Any, wanted: Mapping[str, type]):
  if not isinstance(found, Mapping):
    raise ValueError(f'{where} is {_shown(found)}; make it an object with {list(wanted)}')
  missing = [key for key in wanted if key not in found]
  if missing:
    raise ValueError(f'{where} lacks {missing}; a record is described in report/console.py')
  for key, kind in wanted.items():
    if not isinstance(found[key], kind):
      raise ValueError(f'{where}.{key} is {_shown(found[key])}; make it a {kind.__name__}')


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:60]}…'


def is_number(value: Any) -> bool:
  """Whether it is a finite number; True and False are none."""
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def numbers(score: Mapping[str, Any]) -> dict[str, float]:
  """The finite numbers of a record's score, or of a cell."""
  return {name: float(value) for name, value in score.items() if is_number(value)}


def objectives(record: Mapping[str, Any]) -> int:
  """How many questions the trajectory was asked."""
  return len(record['task']['questions'])


def is_one_size(found: tuple[dict[str, Any], ...], size: int) -> bool:
  """Whether every trajectory was asked `size` questions."""
  return collections.Counter(map(objectives, found)) == {size: len(found)}


def marks(record: Mapping[str, Any]) -> list[tuple[str, bool]]:
  """(answer given, whether it is right) for each question, by the rule of env/rewards.py."""
  asked = record['task']['questions']
  questions = tuple(types.Question('', q['text'], tuple(map(str, q['answers']))) for q in asked)
  labels = tuple(str(q.get('label', '')) for q in asked)
  score = rewards.score_answer(str(record.get('answer') or ''),
                               types.Task('', questions, labels, ''))
  return [(one.answer, one.em > 0) for one in score.per_question]
