"""BM25 on disk: what bm25s saves, and the passages, neither read before it is asked for.

    manifest.json   k1, b, title_weight, documents and, once all is there, counts
    shards/         the passages (retrieval/store.py), which have no vectors here
    bm25/           scores by word, as bm25s saves them; but for its vocabulary memory-mapped
    titles.npy      uint64 [2, N]: a hash of the words of each title, rising, and whose it is

It finds what `BM25Retriever` over the same documents finds, to the last bit of a score.
"""

import array
from collections.abc import Iterable, Sequence
import hashlib
import pathlib

import numpy as np

from mem1_jax.retrieval import bm25
from mem1_jax.retrieval import documents
from mem1_jax.retrieval import store

KIND = 'bm25'  # in the manifest
_SCORES, _TITLES = 'bm25', 'titles.npy'


def build(found: Iterable[documents.Document], folder: pathlib.Path, *, k1: float, b: float,
          title_weight: int, shard_size: int) -> dict[str, int]:
  """Writes all but the manifest; returns how many passages there are, and bad documents.

  The words of all passages are in memory, 4 bytes each, and then what bm25s makes of them.

  Args:
    found: the documents; those with a problem are counted.
    folder: a manifest lies there already, and says that the index is not whole.
    k1, b, title_weight: see `BM25Retriever`.
    shard_size: passages of a shard.

  Raises:
    ValueError: no passage has a word.
  """
  builder, hashes = bm25.Builder(k1=k1, b=b, title_weight=title_weight), array.array('Q')
  num_bad = 0
  for number, part in enumerate(documents.parts(found, shard_size)):
    num_bad += part.num_bad
    hashes.extend(_hash(builder.add(passage)) for passage in part.passages)
    if part.passages:
      store.write_shard(folder, number, part.passages, None, part.num_bad, 0, part.after)
  builder.scores().save(folder / _SCORES)
  hashes_N = np.frombuffer(hashes, np.uint64)
  order_N = np.argsort(hashes_N, kind='stable')
  store.write_array(folder / _TITLES, np.stack([hashes_N[order_N], order_N.astype(np.uint64)]))
  return {'num_passages': len(hashes), 'num_bad': num_bad}


def open_retriever(folder: pathlib.Path, *, k1: float, b: float, title_weight: int,
                   cache_size: int = 65536) -> bm25.BM25Retriever:
  """The retriever over an index; passages and scores stay on disk.

  Args:
    folder: of `main index --kind bm25`.
    k1, b, title_weight: as it was made: scores are made of them once.
    cache_size: queries whose results are kept.

  Raises:
    FileNotFoundError: the folder is no index, or a file of it is missing.
    ValueError: it is another kind of index, not whole, or was made with other settings.
  """
  manifest, asked = store.read_manifest(folder), {'k1': k1, 'b': b, 'title_weight': title_weight}
  if manifest.get('kind') != KIND:
    raise ValueError(f'{folder} is no index of kind {KIND}; open it with index.open_retriever')
  if not manifest.get('is_whole'):
    raise ValueError(f'{folder} is not whole; begin again with `main index --kind {KIND} --resume`')
  if differing := [name for name, value in asked.items() if manifest[name] != value]:
    made, wanted = (', '.join(f'{name}={values[name]}' for name in differing)
                    for values in (manifest, asked))
    raise ValueError(f'{folder} was made with {made}, and {wanted} is asked for; ask with its own '
                     '(env.bm25_k1, env.bm25_b, env.title_weight), or make another index')
  scores = bm25.import_bm25s().BM25.load(folder / _SCORES, mmap=True)
  passages = store.Passages(folder)
  if not len(passages) == manifest['num_passages'] == scores.scores['num_docs']:
    raise ValueError(f'{folder} is damaged: it has {len(passages)} of {manifest["num_passages"]} '
                     f'passages, and scores of {scores.scores["num_docs"]}; make it anew')
  titled = _Titles(np.load(folder / _TITLES, mmap_mode='r'), passages)
  return bm25.BM25Retriever.over(passages, scores, titled.of, cache_size)


class _Titles:
  """Which passages have a title, on disk."""

  def __init__(self, table_2N: np.ndarray, passages: Sequence):
    (self._hashes, self._indices), self._passages = table_2N, passages

  def of(self, title: tuple[str, ...]) -> list[int]:
    """The passages whose title has exactly these words, in their order."""
    key = np.uint64(_hash(title))  # of another type, NumPy would convert, and so read, them all
    begin, end = (np.searchsorted(self._hashes, key, side) for side in ('left', 'right'))
    return [i for i in map(int, self._indices[begin:end])
            if bm25.words(self._passages[i].title) == title]


def _hash(title: tuple[str, ...]) -> int:
  """64 bits; no word has a space in it."""
  return int.from_bytes(hashlib.blake2b(' '.join(title).encode(), digest_size=8).digest(), 'big')
