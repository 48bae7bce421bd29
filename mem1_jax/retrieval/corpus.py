"""Documents of a file, as Search-R1's corpora have them: a JSON object on each line."""

from collections.abc import Callable
import json
import logging
import os
import pathlib

from mem1_jax import types
from mem1_jax.retrieval import wire

_MAX_TOLD = 10  # bad lines that the log names


def read(path: str | os.PathLike, on_read: Callable[[int], None] = lambda num_bytes: None,
         ) -> tuple[list[types.Passage], int]:
  """The passages of a .jsonl file, and how many lines were no document; blank ones are neither.

  Args:
    on_read: hears the size of each line, bytes.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no line of it is a document.
  """
  path, passages, num_bad = pathlib.Path(path), [], 0
  if not path.is_file():
    raise FileNotFoundError(f'{path} is no file; give one with a JSON document on each line')
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      on_read(len(line))
      if not line.strip():
        continue
      try:
        passages.append(wire.read_document(json.loads(line)))
      except (ValueError, RecursionError) as error:
        num_bad += 1
        if num_bad <= _MAX_TOLD:
          logging.warning('%s:%d is skipped: %s', path, number, error)
  if num_bad > _MAX_TOLD:
    logging.warning('%s: %d more lines are skipped', path, num_bad - _MAX_TOLD)
  if not passages:
    raise ValueError(f'{path} has no document ({num_bad} other lines); each line is like '
                     '{"id": "7", "contents": "\\"Title\\"\\nText"} or {"title": "…", "text": "…"}')
  return passages, num_bad
