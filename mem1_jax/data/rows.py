"""Rows of files, good and bad: JSON lines, JSON arrays and Parquet, whatever their fields.

A bad row never ends the reading of its file. It is counted, the first ones are kept as
`file:line: reason` (Parquet: the row's number), and a file without one good row is an error.
"""

from collections.abc import Callable, Iterator
import dataclasses
import json
import os
import pathlib
import re
from typing import Any

from mem1_jax.data.chains import Chain
from mem1_jax.types import Passage, Question

MAX_ROW_BYTES = 1 << 25  # 32 MiB; a longer row is taken for damage
MAX_PROBLEMS = 10  # bad rows that are told one by one
_BATCH_ROWS = 1024

Row = tuple[int, Any]  # line, from 1; the record, or a ValueError that says what is wrong


@dataclasses.dataclass(frozen=True)
class Parsed:
  """What one row holds; no question: it is whole, but asks nothing that has an answer."""

  questions: tuple[Question, ...] = ()
  passages: tuple[Passage, ...] = ()
  chain: Chain | None = None


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a file's rows.

  Attributes:
    num_good: rows with a question that is kept.
    num_bad: rows that could not be read.
    num_repeated: rows all of whose questions have ids that came before.
    num_left_out: whole rows without an answer, such as MuSiQue's unanswerable ones.
    num_unsuitable: questions that a choice (`sources.Choice`) left out.
    problems: the first bad rows, `file:line: reason`.
  """

  path: str
  num_good: int
  num_bad: int
  num_repeated: int = 0
  num_left_out: int = 0
  num_unsuitable: int = 0
  problems: tuple[str, ...] = ()

  def __str__(self) -> str:
    counts = [f'{self.path}: {self.num_good} good rows', f'{self.num_bad} bad',
              f'{self.num_repeated} repeated', f'{self.num_left_out} without an answer',
              f'{self.num_unsuitable} questions not chosen']
    hidden = self.num_bad - len(self.problems)
    more = (f'  … and {hidden} more',) if hidden > 0 else ()
    return '\n'.join([', '.join(counts), *(f'  {problem}' for problem in self.problems), *more])


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Questions with different ids, the documents and chains beside them, and what was skipped."""

  questions: tuple[Question, ...]
  passages: tuple[Passage, ...]
  chains: tuple[Chain, ...]
  report: Report


def gather(path: str, rows: Iterator[Row], parse: Callable[[Any], Parsed]) -> Loaded:
  """Every row parsed; of questions with the same id, and of equal passages, the first one.

  Args:
    path: for messages.
    rows: of the file.
    parse: raises ValueError, with the reason, for a record that it cannot read.

  Raises:
    ValueError: no row is good.
  """
  questions, passages, chains = {}, {}, {}
  num_good = num_bad = num_repeated = num_left_out = 0
  problems = []
  for line, record in rows:
    try:
      parsed = parse(_checked(record))
    except ValueError as error:
      num_bad += 1
      if len(problems) < MAX_PROBLEMS:
        problems.append(f'{path}:{line}: {error}')
      continue
    fresh = {q.id: q for q in parsed.questions if q.id not in questions}
    num_good += bool(fresh)
    num_repeated += bool(parsed.questions) and not fresh
    num_left_out += not parsed.questions
    if fresh:
      questions |= fresh
      passages.update(dict.fromkeys(parsed.passages))
      if parsed.chain:
        chains[parsed.chain.id] = parsed.chain
  report = Report(path, num_good, num_bad, num_repeated, num_left_out, problems=tuple(problems))
  if not questions:
    raise ValueError(_nothing(report))
  return Loaded(tuple(questions.values()), tuple(passages), tuple(chains.values()), report)


def _nothing(report: Report) -> str:
  num_rows = report.num_bad + report.num_left_out
  if not num_rows:
    return f'{report.path} has no rows; give a file that has some'
  reasons = ''.join(f'\n  {problem}' for problem in report.problems)
  return (f'{report.path}: none of its {num_rows} rows is a question with an answer '
          f'({report.num_bad} bad, {report.num_left_out} without an answer); give another file, or '
          f'say which format it has.{reasons}')


def _checked(record: Any) -> dict:
  if isinstance(record, ValueError):
    raise record
  if not isinstance(record, dict):
    raise ValueError(f'the row is {shown(record)}, not an object with fields')
  return record


def shown(value: Any) -> str:
  """A value for a message, short."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}…'


def read_rows(path: str | os.PathLike) -> Iterator[Row]:
  """The rows of a `.parquet` file, of a JSON array, or of JSON lines, as the file begins.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: Parquet without pyarrow.
    ValueError: a file that is no Parquet at all.
  """
  path = pathlib.Path(path)
  if path.suffix == '.parquet':
    return parquet_rows(path)
  if path.suffix not in ('.jsonl', '.ndjson') and _begins_with(path, b'['):
    return array_rows(path)
  return line_rows(path)


def _begins_with(path: pathlib.Path, start: bytes) -> bool:
  with path.open('rb') as file:
    return file.read(4096).removeprefix(b'\xef\xbb\xbf').lstrip().startswith(start)


def line_rows(path: pathlib.Path, max_bytes: int = MAX_ROW_BYTES) -> Iterator[Row]:
  """One record per line; blank lines are none."""
  with path.open('rb') as file:
    number = 0
    while raw := file.readline(max_bytes + 1):
      number += 1
      if len(raw) > max_bytes and not raw.endswith(b'\n'):
        while (rest := file.readline(max_bytes)) and not rest.endswith(b'\n'):
          pass  # not kept in memory
        yield number, ValueError(f'the row is longer than {max_bytes} bytes')
      elif line := (raw.removeprefix(b'\xef\xbb\xbf') if number == 1 else raw).strip():
        yield number, _decoded(line)


def _decoded(line: bytes) -> Any:
  try:
    return json.loads(line.decode())
  except UnicodeDecodeError as error:
    return ValueError(f'not UTF-8 at byte {error.start} of the line')
  except json.JSONDecodeError as error:
    return ValueError(f'not JSON: {error.msg} at column {error.colno}')
  except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a thousand brackets
    return ValueError(f'not JSON that can be read: {str(error)[:100]}')


_BLANK = re.compile(r'[ \t\r\n]*,?[ \t\r\n]*')
_NEXT_OBJECT = re.compile(r'\}\s*,\s*\{')


def array_rows(path: pathlib.Path, max_chars: int = MAX_ROW_BYTES) -> Iterator[Row]:
  """One record per element of the file's array; a row's line is where it begins.

  Behind an element that is no JSON, reading goes on at the next `}, {`: what is skipped so
  counts as one row.
  """
  # What is no UTF-8 becomes lone surrogates, which a row may not have.
  text = path.read_bytes().decode('utf-8-sig', errors='surrogateescape')
  decoder, line, counted = json.JSONDecoder(), 1, 0
  at = text.index('[') + 1
  while True:
    at = _BLANK.match(text, at).end()
    line, counted = line + text.count('\n', counted, at), at
    if text.startswith(']', at):
      if text[at + 1:].strip():
        yield line, ValueError('there is text behind the array, which is not read')
      return
    try:
      record, end = decoder.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
      where = max(getattr(error, 'pos', at), at)
      reason = getattr(error, 'msg', str(error)[:100])
      yield line, ValueError(
          f'not JSON: {reason} in line {line + text.count(chr(10), at, where)}' if at < len(text)
          else 'the file ends within its array')
      following = _NEXT_OBJECT.search(text, where)
      if not following:
        return
      at = following.end() - 1
      continue
    yield line, _element(record, text, at, end, max_chars)
    at = end


def _element(record: Any, text: str, begin: int, end: int, max_chars: int) -> Any:
  if end - begin > max_chars:
    return ValueError(f'the row is longer than {max_chars} characters')
  try:
    text[begin:end].encode()
  except UnicodeEncodeError:
    return ValueError('not UTF-8')
  return record


def pyarrow_parquet() -> Any:
  """The module pyarrow.parquet. Raises ImportError, with the remedy, where it is not installed."""
  try:
    import pyarrow.parquet
  except ImportError as error:
    raise ImportError('Parquet needs pyarrow: pip install "mem1_jax[parquet]" (or pyarrow)'
                      ) from error
  return pyarrow.parquet


def parquet_rows(path: pathlib.Path) -> Iterator[Row]:
  """One record per row, in batches. See `read_rows` for what is raised, at once."""
  parquet = pyarrow_parquet()
  with path.open('rb'):  # a missing file is a FileNotFoundError
    pass
  try:
    file = parquet.ParquetFile(path)
  except (ValueError, OSError) as error:  # pyarrow's errors are such
    raise ValueError(f'{path} cannot be read as Parquet: {error}') from error
  return _batched(file)


def _batched(file: Any) -> Iterator[Row]:
  number = 0
  batches = file.iter_batches(batch_size=_BATCH_ROWS)
  while True:
    try:
      batch = next(batches, None)
    except (ValueError, OSError) as error:
      yield number + 1, ValueError(f'damaged from here on: {str(error)[:200]}')
      return
    if batch is None:
      return
    for record in _records(batch):
      number += 1
      yield number, record


def _records(batch: Any) -> list[Any]:
  try:
    return batch.to_pylist()
  except UnicodeDecodeError:
    pass
  found = []
  for i in range(batch.num_rows):
    try:
      found += batch.slice(i, 1).to_pylist()
    except UnicodeDecodeError as error:
      found.append(ValueError(f'not UTF-8: {error}'))
  return found
