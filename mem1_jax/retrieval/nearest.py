"""The vectors nearest to a query by inner product: exactly, or by an approximate index of FAISS.

Whoever proposes candidates, what is returned is ranked by one number: the inner product of the
stored vector and the query in float64, ties by index. It depends on nothing else, neither on other
queries nor on the order in which a library adds; and since an exact search proposes every vector
that rounding could have put below the last one, all exact ones return the same.
"""

from collections.abc import Callable, Iterator, Sequence
import pathlib
from types import ModuleType
from typing import Protocol

import numpy as np

KINDS = ('flat', 'ivfpq', 'hnsw')
_BLOCK = 16384  # vectors that are multiplied at once
_SPARE = 16  # candidates beyond those asked for, against rounding
_UNIT = 2.0**-24  # relative error of one float32 operation
_HNSW_LINKS, _HNSW_BUILD = 32, 200  # neighbours of a node; candidates when it is added
_CODES, _TRAIN_PER_CODE = 256, 39  # FAISS asks for 39 vectors per centroid
_MIN_IVFPQ = _CODES * _TRAIN_PER_CODE


class Vectors:
  """Vectors in shards (arrays or memory maps) as one matrix [N, D], float16 or float32.

  Args:
    max_norm: the largest length of a vector; where it is not given, all are read once.
  """

  def __init__(self, shards: Sequence[np.ndarray], max_norm: float | None = None):
    if not sum(map(len, shards)):
      raise ValueError('there are 0 vectors; give at least 1')
    self._shards, self._max_norm = list(shards), max_norm
    self._begins = np.cumsum([0, *map(len, shards)])
    self.dim, self.dtype = shards[0].shape[1], shards[0].dtype

  def __len__(self) -> int:
    return int(self._begins[-1])

  def rows(self, indices: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """[k, D] in that dtype."""
    found = np.empty([len(indices), self.dim], dtype)
    shards = np.searchsorted(self._begins, indices, 'right') - 1
    for shard in np.unique(shards):
      is_here = shards == shard
      found[is_here] = self._shards[shard][indices[is_here] - self._begins[shard]]
    return found

  def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the first, float32 [≤ block, D]) of all vectors, in order."""
    for begin, shard in zip(self._begins, self._shards):
      for at in range(0, len(shard), _BLOCK):
        yield int(begin) + at, np.asarray(shard[at:at + _BLOCK], np.float32)

  @property
  def max_norm(self) -> float:
    """The largest length of a vector."""
    if self._max_norm is None:
      self._max_norm = max(largest_norm(block) for _, block in self.blocks())
    return self._max_norm


def largest_norm(vectors_ND: np.ndarray) -> float:
  return float(np.sqrt(np.einsum('nd,nd->n', vectors_ND, vectors_ND, dtype=np.float64).max()))


class Nearest(Protocol):
  """Finds the nearest of its vectors."""

  vectors: Vectors

  def search(self, query_QD: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """For each query (float32) at most `top_k` pairs of index and score, best first."""


class Flat:
  """Exact, by NumPy, over vectors that may stay on disk."""

  def __init__(self, vectors: Vectors):
    self.vectors = vectors

  def search(self, query_QD: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """See `Nearest`."""
    margin_Q = _margin(query_QD, self.vectors)
    floor_Q = np.full(len(query_QD), -np.inf)
    kept = [[] for _ in query_QD]
    for begin, block in self.vectors.blocks():
      for q, scores_B in enumerate(query_QD @ block.T):
        near = np.flatnonzero(scores_B >= floor_Q[q])
        if len(near) >= top_k:
          floor_Q[q] = max(floor_Q[q], _last_of(top_k, scores_B[near]) - margin_Q[q])
          near = near[scores_B[near] >= floor_Q[q]]
        kept[q].append((begin + near, scores_B[near]))
    return [_rank(self.vectors, query, _above(parts, top_k, margin), top_k)
            for query, parts, margin in zip(query_QD, kept, margin_Q)]


class FaissFlat:
  """Exact, by FAISS's IndexFlatIP, which holds all vectors in memory as float32.

  Raises:
    ValueError: FAISS is not installed.
  """

  def __init__(self, vectors: Vectors):
    self.vectors, self._index = vectors, import_faiss().IndexFlatIP(vectors.dim)
    for _, block in vectors.blocks():
      self._index.add(block)

  def search(self, query_QD: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """See `Nearest`."""
    if not len(query_QD):
      return []
    num, size = len(self.vectors), min(len(self.vectors), top_k + _SPARE)
    margin_Q, top_k = _margin(query_QD, self.vectors), min(top_k, num)
    while True:
      score_Qk, index_Qk = self._index.search(np.ascontiguousarray(query_QD), size)
      # All that rounding could have misplaced are there once the last is clearly below.
      if size == num or (score_Qk[:, -1] < score_Qk[:, top_k - 1] - margin_Q).all():
        return [_rank(self.vectors, query, index, top_k)
                for query, index in zip(query_QD, index_Qk)]
      size = min(num, 2 * size)


class FaissANN:
  """Approximate, by an index that `build` made: ranks the candidates that it proposes.

  Args:
    vectors: those that the index was built from.
    index: of FAISS.
    num_candidates: how many are proposed, or as many as asked for.
    effort: cells that are looked into (ivfpq), or candidates on the way (hnsw).
  """

  def __init__(self, vectors: Vectors, index, num_candidates: int, effort: int):
    if index.ntotal != len(vectors) or index.d != vectors.dim:
      raise ValueError(f'the index has {index.ntotal} vectors of {index.d} numbers, the shards '
                       f'{len(vectors)} of {vectors.dim}; build the index anew')
    if num_candidates < 1 or effort < 1:
      raise ValueError(f'num_candidates={num_candidates}, effort={effort}: need at least 1')
    self.vectors, self._index, self._num_candidates = vectors, index, num_candidates
    faiss = import_faiss()
    if isinstance(index, faiss.IndexHNSW):
      self._index.hnsw.efSearch = max(effort, num_candidates)
    else:
      faiss.extract_index_ivf(index).nprobe = effort

  def search(self, query_QD: np.ndarray, top_k: int) -> list[list[tuple[int, float]]]:
    """See `Nearest`."""
    found, size = [], min(max(top_k, self._num_candidates), len(self.vectors))
    for query in query_QD:
      # One by one: FAISS rounds batches of 20 and more in another way.
      _, index_1k = self._index.search(np.ascontiguousarray(query[None]), size)
      found.append(_rank(self.vectors, query, index_1k[0][index_1k[0] >= 0], top_k))
    return found


def build(kind: str, vectors: Vectors, on_done: Callable[[int], None] = lambda count: None):
  """A FAISS index of kind 'ivfpq' or 'hnsw', by inner product.

  `on_done` hears how many more vectors are in it.

  ivfpq: about 4 sqrt(N) cells, and a byte for each 8 numbers of a vector. hnsw: 32 links a node,
  vectors in the type in which they are stored.

  Raises:
    ValueError: another kind, FAISS is not installed, or there are too few vectors to train on.
  """
  faiss = import_faiss()
  if kind == 'hnsw':
    store = 'SQfp16' if vectors.dtype == np.float16 else 'Flat'
    index = faiss.index_factory(vectors.dim, f'HNSW{_HNSW_LINKS}_{store}',
                                faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _HNSW_BUILD
    sample = _sample(vectors, 1)  # its quantizer has nothing to learn, but wants to be trained
  elif kind == 'ivfpq':
    if len(vectors) < _MIN_IVFPQ or vectors.dim % 8:
      raise ValueError(f'ivfpq needs {_MIN_IVFPQ} vectors or more, of a multiple of 8 numbers, '
                       f'and got {len(vectors)} of {vectors.dim}; use flat or hnsw')
    num_cells = min(round(4 * len(vectors)**0.5), len(vectors) // _TRAIN_PER_CODE)
    index = faiss.index_factory(vectors.dim, f'IVF{num_cells},PQ{vectors.dim // 8}',
                                faiss.METRIC_INNER_PRODUCT)
    sample = _sample(vectors, max(_CODES, num_cells) * 2 * _TRAIN_PER_CODE)
  else:
    raise ValueError(f'kind {kind!r} is unknown; choose one of {KINDS[1:]}')
  index.train(sample)
  for _, block in vectors.blocks():
    index.add(block)
    on_done(len(block))
  return index


def save(index, file: pathlib.Path) -> None:
  import_faiss().write_index(index, str(file))


def load(kind: str, file: pathlib.Path):
  """An index that `save` wrote; the lists of ivfpq stay on disk."""
  faiss = import_faiss()
  return faiss.read_index(str(file), faiss.IO_FLAG_MMAP if kind == 'ivfpq' else 0)


def import_faiss() -> ModuleType:
  """FAISS.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import faiss
  except ImportError as error:
    raise ValueError('FAISS is not installed; pip install mem1_jax[retriever], or search a flat '
                     'index with numpy') from error
  return faiss


def has_faiss() -> bool:
  try:
    return bool(import_faiss())
  except ValueError:
    return False


def _sample(vectors: Vectors, num: int) -> np.ndarray:
  """At most `num` vectors in float32, evenly spaced."""
  indices = np.linspace(0, len(vectors) - 1, min(num, len(vectors))).astype(np.int64)
  return vectors.rows(indices, np.float32)


def _margin(query_QD: np.ndarray, vectors: Vectors) -> np.ndarray:
  """[Q]: the most by which rounding can swap two float32 scores.

  |fl(x·y) - x·y| ≤ D u |x| |y| to first order, whatever the order of the sum (Higham, Accuracy
  and Stability, section 3.1), for either score; doubled for what is left out.
  """
  length_Q = np.sqrt(np.einsum('qd,qd->q', query_QD, query_QD, dtype=np.float64))
  return 4 * (vectors.dim + 1) * _UNIT * vectors.max_norm * length_Q


def _above(parts: list[tuple[np.ndarray, np.ndarray]], top_k: int, margin: float) -> np.ndarray:
  """Indices of those that could be among the best `top_k`."""
  indices, scores = (np.concatenate(part) for part in zip(*parts))
  if len(scores) <= top_k:
    return indices
  return indices[scores >= _last_of(top_k, scores) - margin]


def _last_of(top_k: int, scores: np.ndarray) -> float:
  return np.partition(scores, -top_k)[-top_k]


def _rank(vectors: Vectors, query_D: np.ndarray, indices: np.ndarray,
          top_k: int) -> list[tuple[int, float]]:
  # Row by row along a contiguous axis: no row's sum depends on another row.
  scores = (vectors.rows(indices) * query_D[None].astype(np.float64)).sum(axis=1)
  best = np.lexsort((indices, -scores))[:top_k]
  return [(int(indices[i]), float(scores[i])) for i in best]
