"""An index on disk: passages and their vectors in shards, neither read before it is asked for.

    manifest.json              what every shard was made with and, once all are there, their counts
    shards/00000.npy           vectors, float16 or float32 [n, D], of a dense index
    shards/00000.jsonl         the passages, one a line: [title, text], and an id if it has one
    shards/00000.offsets.npy   where each line begins, and the end: int64 [n + 1]
    shards/00000.json          written last, so that the shard is whole: counts, and where the next
                               one begins in the documents
    ivfpq.faiss, hnsw.faiss    approximate indices, if any

Files appear under their name when they are whole.
"""

from collections.abc import Callable, Sequence
import dataclasses
import json
import mmap
import os
import pathlib
from typing import Any

import numpy as np

from mem1_jax import types
from mem1_jax.retrieval.documents import Place
from mem1_jax.retrieval.nearest import Vectors, largest_norm

FORMAT = 1
_MANIFEST, _SHARDS = 'manifest.json', 'shards'


@dataclasses.dataclass(frozen=True)
class Shard:
  """What `NNNNN.json` says.

  Attributes:
    num_passages: in it.
    num_bad: documents that were skipped on the way.
    num_cut: passages whose end the encoder did not read.
    max_norm: the largest length of its vectors, as they are stored.
    after: where the next shard begins.
  """

  num_passages: int
  num_bad: int
  num_cut: int
  max_norm: float
  after: Place


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """What manifest.json holds.

  Raises:
    FileNotFoundError: the folder is no index.
    ValueError: its manifest cannot be read, or is of another version.
  """
  file = folder / _MANIFEST
  if not file.is_file():
    raise FileNotFoundError(f'{folder} is no index: it has no {_MANIFEST}; make one with '
                            '`main index`')
  try:
    manifest = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{file} is damaged ({error}); make the index anew') from error
  if manifest.get('format') != FORMAT:
    raise ValueError(f'{file} has the format {manifest.get("format")}, this program reads '
                     f'{FORMAT}; make the index anew')
  return manifest


def write_manifest(folder: pathlib.Path, manifest: dict[str, Any]) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps({'format': FORMAT} | manifest, indent=1, ensure_ascii=False) + '\n'
  write_whole(folder / _MANIFEST, lambda file: file.write_text(text, encoding='utf-8'))


def write_whole(file: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
  """Has a file written beside its name, then renamed: a kill leaves all of it or none."""
  new = file.with_name(f'new-{file.name}')
  write(new)
  os.replace(new, file)


def shards(folder: pathlib.Path) -> list[Shard]:
  """The whole shards, from the first on."""
  found = []
  while (file := _named(folder, len(found), 'json')).is_file():
    raw = json.loads(file.read_text())
    found.append(Shard(**(raw | {'after': Place(**raw['after'])})))
  return found


def write_shard(folder: pathlib.Path, number: int, passages: Sequence[types.Passage],
                vectors_ND: np.ndarray | None, num_bad: int, num_cut: int, after: Place) -> Shard:
  """Adds a shard; its vectors, if it has any, are stored in their dtype."""
  (folder / _SHARDS).mkdir(exist_ok=True)
  lines = [_line(passage) for passage in passages]
  offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
  max_norm = 0.0 if vectors_ND is None else largest_norm(vectors_ND)
  shard = Shard(len(passages), num_bad, num_cut, max_norm, after)
  if vectors_ND is not None:
    write_array(_named(folder, number, 'npy'), vectors_ND)
  write_whole(_named(folder, number, 'jsonl'), lambda file: file.write_bytes(b''.join(lines)))
  write_array(_named(folder, number, 'offsets.npy'), offsets)
  write_whole(_named(folder, number, 'json'),
              lambda file: file.write_text(json.dumps(dataclasses.asdict(shard))))
  return shard


def _line(passage: types.Passage) -> bytes:
  parts = [passage.title, passage.text, *([passage.id] if passage.id else [])]
  return json.dumps(parts, ensure_ascii=False).encode() + b'\n'


def write_array(file: pathlib.Path, array: np.ndarray) -> None:
  """Has all of it there, or nothing."""
  def save(new):
    with new.open('wb') as stream:  # by its name, NumPy would add a suffix
      np.save(stream, array)

  write_whole(file, save)


def _named(folder: pathlib.Path, number: int, suffix: str) -> pathlib.Path:
  return folder / _SHARDS / f'{number:05d}.{suffix}'


def ann_file(folder: pathlib.Path, kind: str) -> pathlib.Path:
  return folder / f'{kind}.faiss'


def open_vectors(folder: pathlib.Path) -> Vectors:
  """The vectors of all whole shards, memory-mapped."""
  found = shards(folder)
  return Vectors([np.load(_named(folder, i, 'npy'), mmap_mode='r') for i in range(len(found))],
                 max(shard.max_norm for shard in found))


class Passages:
  """The passages of all whole shards, read from disk when they are asked for."""

  def __init__(self, folder: pathlib.Path):
    sizes = [shard.num_passages for shard in shards(folder)]
    self._begins = np.cumsum([0, *sizes])
    self._offsets = [np.load(_named(folder, i, 'offsets.npy'), mmap_mode='r')
                     for i in range(len(sizes))]
    self._texts = [_map(_named(folder, i, 'jsonl')) for i in range(len(sizes))]

  def __len__(self) -> int:
    return int(self._begins[-1])

  def __getitem__(self, index: int) -> types.Passage:
    if not 0 <= index < len(self):
      raise IndexError(f'passage {index} is outside 0 to {len(self) - 1}')
    shard = int(np.searchsorted(self._begins, index, 'right')) - 1
    begin, end = self._offsets[shard][index - self._begins[shard]:][:2]
    title, text, *ids = json.loads(self._texts[shard][begin:end])
    return types.Passage(title, text, id=ids[0] if ids else '')


def _map(file: pathlib.Path) -> mmap.mmap:
  with file.open('rb') as stream:
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
