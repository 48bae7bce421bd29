"""Texts → rows of ids → batches of a few fixed shapes.

A batch takes the longest rows that are left, and as many as fill `batch_tokens`:

    lengths 90 70 33 30 12, batch_tokens 192     [2, 96]: 90 70    [4, 48]: 33 30 12 –
"""

import bisect
from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
import string

import numpy as np
import tokenizers

from mem1_jax import types

TOKENIZER = 'tokenizer.json'
TEMPLATE = '{title} {text}'
# Lengths to which rows are padded: one program each. Queries are few, so that a run which must not
# compile after its start has few programs to make.
LENGTHS = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
QUERY_LENGTHS = (32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Texts in ids.

  Attributes:
    rows: of each text, int32 [2, length]: ids, and which text of a pair each is of.
    num_cut: texts that were too long and lost their end.
  """

  rows: list[np.ndarray]
  num_cut: int


@dataclasses.dataclass(frozen=True)
class Batch:
  """Rows of one shape; where there are too few, the last ones hold one token of padding."""

  indices: np.ndarray  # [≤ B], which texts they are
  tokens: np.ndarray  # [B, S]
  types: np.ndarray  # [B, S]
  lengths: np.ndarray  # [B]


class Tokenizer:
  """A tokenizer.json that cuts texts at `max_length` tokens, special ones included.

  Raises:
    FileNotFoundError: the folder has none.
    ValueError: it cannot be read.
  """

  def __init__(self, folder: pathlib.Path, max_length: int):
    file = folder / TOKENIZER
    if not file.is_file():
      raise FileNotFoundError(f'{file} is missing; write it with transformers: '
                              'AutoTokenizer.from_pretrained(folder).save_pretrained(folder)')
    try:
      self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower class
      raise ValueError(f'{file} is no tokenizer ({error}); fetch it again') from error
    self._tokenizer.no_padding()
    self._tokenizer.enable_truncation(max_length)

  def __call__(self, texts: Sequence[str | tuple[str, str]]) -> Tokens:
    """The ids of texts, or of pairs of them."""
    found = self._tokenizer.encode_batch(list(texts))
    rows = [np.array([text.ids, text.type_ids], np.int32) for text in found]
    return Tokens(rows, sum(bool(text.overflowing) for text in found))


def batches(rows: Sequence[np.ndarray], lengths: Sequence[int], max_length: int,
            batch_tokens: int, multiple: int = 1) -> Iterator[Batch]:
  """All rows, long ones first, in shapes [B, S] of which S alone tells B.

  Args:
    rows: see `Tokens`.
    lengths: to choose S from, rising.
    max_length: the largest S.
    batch_tokens: B * S is at most this, unless B is `multiple`.
    multiple: what divides B.
  """
  order = np.argsort([-row.shape[1] for row in rows], kind='stable')
  begin = 0
  while begin < len(order):
    S = padded(rows[order[begin]].shape[1], lengths, max_length)
    B = max(1, batch_tokens // S // multiple) * multiple
    yield lay_out(rows, order[begin:begin + B], B, S)
    begin += B


def padded(length: int, lengths: Sequence[int], max_length: int) -> int:
  """The smallest of `lengths`, none of them above `max_length`, that is not below `length`."""
  at = bisect.bisect_left(lengths, length)
  return min(lengths[at], max_length) if at < len(lengths) else max_length


def lay_out(rows: Sequence[np.ndarray], indices: np.ndarray, B: int, S: int) -> Batch:
  both_2BS, length_B = np.zeros([2, B, S], np.int32), np.ones([B], np.int32)
  for i, index in enumerate(indices):
    length_B[i] = rows[index].shape[1]
    both_2BS[:, i, :length_B[i]] = rows[index]
  return Batch(indices, *both_2BS, length_B)


def fill(template: str, passage: types.Passage) -> str:
  """A passage as an encoder reads it."""
  return template.format(title=passage.title, text=passage.text)


def check_template(template: str) -> str:
  """The template itself.

  Raises:
    ValueError: it has other fields than {title} and {text}, or no {text}.
  """
  try:
    fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
  except ValueError as error:
    fields = {str(error)}
  if not {'text'} <= fields <= {'title', 'text'}:
    raise ValueError(f'template {template!r} has the fields {sorted(fields)}; it needs {{text}}, '
                     f'and may have {{title}}, as {TEMPLATE!r}')
  return template
