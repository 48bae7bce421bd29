"""Corpora in files: what a passage looks like there, and from where to go on reading.

    .jsonl, .jsonl.gz   a passage a line: {"id": …, "contents": "\\"Title\\"\\nText"}, as Search-R1
                        and FlashRAG have it, or {"title": …, "text": …}; other keys are not read
    .json               {title: text, or its sentences}, as HotpotQA has it

What cannot be used is a document with a `problem` instead of a passage.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import gzip
import json
import pathlib
from typing import Any, NamedTuple

from mem1_jax import types
from mem1_jax.retrieval import wire


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a document begins.

  Attributes:
    file: which of the files.
    at: byte of a .jsonl, uncompressed; entry of a .json.
    line: its number there, from 0.
  """

  file: int = 0
  at: int = 0
  line: int = 0


@dataclasses.dataclass(frozen=True)
class Document:
  """A passage, or why there is none.

  Attributes:
    after: where the next one begins.
    problem: names file and line; '' for none.
  """

  passage: types.Passage | None
  after: Place
  problem: str = ''


class Part(NamedTuple):
  """Some documents in a row."""

  passages: list[types.Passage]
  num_bad: int  # documents without one
  after: Place  # where the next one begins


def read(files: Sequence[pathlib.Path], begin: Place = Place()) -> Iterator[Document]:
  """All documents from `begin` on.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a file of another kind, or a .json that holds no object.
  """
  for number in range(begin.file, len(files)):
    place = begin if number == begin.file else Place(number)
    yield from (_entries if _is_json(files[number]) else _lines)(files[number], place)


def parts(found: Iterable[Document], size: int) -> Iterator[Part]:
  """All documents in parts of `size` passages; in the last are the rest, maybe bad ones alone."""
  passages, num_bad, after = [], 0, None
  for document in found:
    after = document.after
    if document.passage:
      passages.append(document.passage)
    else:
      num_bad += 1
    if len(passages) == size:
      yield Part(passages, num_bad, after)
      passages, num_bad, after = [], 0, None
  if after:
    yield Part(passages, num_bad, after)


def count(files: Sequence[pathlib.Path]) -> int:
  """Documents of all files, bad ones included."""
  return sum(len(_load(file)) if _is_json(file) else _count_lines(file) for file in files)


def parse(value: Any) -> types.Passage:
  """The passage of one line.

  Raises:
    ValueError: why it is none.
  """
  passage = wire.read_document(value)
  title, text = passage.title.strip(), passage.text.strip()
  if not text:
    raise ValueError('its text is empty')
  (title + text).encode()  # raises for half a surrogate pair, which JSON can spell
  return dataclasses.replace(passage, title=title, text=text)


def _is_json(file: pathlib.Path) -> bool:
  if file.name.endswith(('.jsonl', '.jsonl.gz')):
    return False
  if file.suffix == '.json':
    return True
  raise ValueError(f'{file} is no corpus that can be read; give a .jsonl, .jsonl.gz or .json')


def _lines(file: pathlib.Path, begin: Place) -> Iterator[Document]:
  with _open(file) as stream:
    stream.seek(begin.at)
    at, line = begin.at, begin.line
    for text in stream:
      at, line = at + len(text), line + 1
      after = Place(begin.file, at, line)
      if not text.strip():
        continue
      try:
        yield Document(parse(json.loads(text)), after)
      except (ValueError, RecursionError) as error:  # a text that is not UTF-8 is the first, too
        yield Document(None, after, f'{file}:{line}: {error}')


def _entries(file: pathlib.Path, begin: Place) -> Iterator[Document]:
  for line, (title, text) in enumerate(_load(file).items()):
    if line < begin.at:
      continue
    after = Place(begin.file, line + 1, line + 1)
    try:
      if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = ''.join(text)
      yield Document(parse({'title': title, 'text': text}), after)
    except ValueError as error:
      yield Document(None, after, f'{file}: entry {line + 1}, {title!r}: {error}')


def _load(file: pathlib.Path) -> dict[str, Any]:
  with _open(file) as stream:
    try:
      value = json.load(stream)
    except ValueError as error:
      raise ValueError(f'{file} is not JSON ({error}); a file of lines is a .jsonl') from error
  if not isinstance(value, dict):
    raise ValueError(f'{file} holds no object of titles and texts; write a .jsonl instead')
  return value


def _count_lines(file: pathlib.Path) -> int:
  found, last = 0, b'\n'
  with _open(file) as stream:
    while block := stream.read(1 << 20):
      found, last = found + block.count(b'\n'), block[-1:]
  return found + (last != b'\n')


def _open(file: pathlib.Path):
  if not file.is_file():
    raise FileNotFoundError(f'{file} is not there; give a file of documents')
  return gzip.open(file, 'rb') if file.suffix == '.gz' else file.open('rb')
