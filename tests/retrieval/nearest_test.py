"""The nearest vectors: all exact ways agree to the last bit, approximate ones nearly."""

import sys

import numpy as np
import pytest

from mem1_jax.retrieval import nearest

ENGINES = ['numpy', pytest.param('faiss', marks=pytest.mark.skipif(
    not nearest.has_faiss(), reason='FAISS is not installed'))]


def finder(engine, vectors):
  return nearest.FaissFlat(vectors) if engine == 'faiss' else nearest.Flat(vectors)


def random(*shape, seed=0, dtype=np.float32):
  found = np.random.default_rng(seed).standard_normal(shape)
  return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(dtype)


def brute(matrix, query, top_k):
  """By definition: products in float64, ties by index."""
  scores = (matrix.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
  order = np.lexsort((np.arange(len(scores)), -scores))[:top_k]
  return [(int(i), float(scores[i])) for i in order]


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('dtype', [np.float16, np.float32])
def test_exact_search_is_its_definition(engine, dtype, monkeypatch):
  monkeypatch.setattr(nearest, '_BLOCK', 64)
  matrix, queries = random(300, 24, dtype=dtype), random(5, 24, seed=1)
  found = finder(engine, nearest.Vectors([matrix[:200], matrix[200:]])).search(queries, 7)
  assert found == [brute(matrix, query, 7) for query in queries]


@pytest.mark.parametrize('engine', ENGINES)
def test_what_float32_cannot_tell_apart_is_told_apart(engine, monkeypatch):
  """Scores that differ by less than a float32 product's error, in every order."""
  monkeypatch.setattr(nearest, '_BLOCK', 50)
  query, rng = random(64, seed=3), np.random.default_rng(4)
  matrix = (query[None] + 1e-7 * rng.standard_normal([200, 64])).astype(np.float32)
  matrix[[20, 150]] = matrix[90]
  found = finder(engine, nearest.Vectors([matrix])).search(query[None], 9)[0]
  assert found == brute(matrix, query, 9)


@pytest.mark.parametrize('engine', ENGINES)
def test_ties_go_to_the_first_and_limits_hold(engine):
  matrix = np.tile(np.eye(8, dtype=np.float32)[0], (100, 1))
  same = finder(engine, nearest.Vectors([matrix]))
  assert [i for i, _ in same.search(np.eye(8, dtype=np.float32)[:1], 3)[0]] == [0, 1, 2]
  assert len(same.search(np.eye(8, dtype=np.float32)[:2], 999)[1]) == 100
  assert same.search(np.zeros([0, 8], np.float32), 3) == []


def test_rows_and_blocks_and_norms(monkeypatch):
  monkeypatch.setattr(nearest, '_BLOCK', 4)
  matrix = np.arange(22, dtype=np.float16).reshape(11, 2)
  vectors = nearest.Vectors([matrix[:5], matrix[5:6], matrix[6:]])
  assert len(vectors) == 11 and vectors.dim == 2 and vectors.dtype == np.float16
  np.testing.assert_array_equal(vectors.rows(np.array([10, 0, 5, 4])), matrix[[10, 0, 5, 4]])
  assert [(begin, len(block)) for begin, block in vectors.blocks()] == [
      (0, 4), (4, 1), (5, 1), (6, 4), (10, 1)]
  assert vectors.max_norm == pytest.approx((20**2 + 21**2)**0.5)
  assert nearest.Vectors([matrix], max_norm=3.0).max_norm == 3.0
  with pytest.raises(ValueError, match='there are 0 vectors'):
    nearest.Vectors([matrix[:0]])


def test_scores_do_not_depend_on_company():
  matrix, queries = random(2000, 40), random(40, 40, seed=1)
  flat = nearest.Flat(nearest.Vectors([matrix]))
  together = flat.search(queries, 5)
  assert together == [flat.search(query[None], 5)[0] for query in queries]


@pytest.fixture
def one_thread():
  """FAISS on one core: its threads wait for each other, while other tests have the cores."""
  faiss = pytest.importorskip('faiss')
  before = faiss.omp_get_max_threads()
  faiss.omp_set_num_threads(1)
  yield
  faiss.omp_set_num_threads(before)


@pytest.mark.parametrize('kind, num', [('hnsw', 600), ('ivfpq', 2000)])
def test_approximate_search(kind, num, one_thread, tmp_path, monkeypatch):
  monkeypatch.setattr(nearest, '_MIN_IVFPQ', 2000)  # enough for a test, not for FAISS's taste
  # Clusters: vectors without structure have no near neighbours.
  matrix = random(num, 16, dtype=np.float16)
  matrix = (matrix * 0.5 + random(20, 16, seed=5)[np.arange(num) % 20]).astype(np.float16)
  vectors, queries, done = nearest.Vectors([matrix]), random(30, 16, seed=1), []
  nearest.save(nearest.build(kind, vectors, done.append), tmp_path / 'x.faiss')
  assert sum(done) == num
  ann = nearest.FaissANN(vectors, nearest.load(kind, tmp_path / 'x.faiss'), 50, effort=32)
  found, exact = ann.search(queries, 5), nearest.Flat(vectors).search(queries, 5)
  share = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, exact)])  # scores, too
  assert share >= 0.9
  assert found == [ann.search(query[None], 5)[0] for query in queries]
  other = nearest.Vectors([matrix[:-1]])
  with pytest.raises(ValueError, match=f'the index has {num} vectors of 16 .*build the index'):
    nearest.FaissANN(other, nearest.load(kind, tmp_path / 'x.faiss'), 50, 32)
  with pytest.raises(ValueError, match='num_candidates=0'):
    nearest.FaissANN(vectors, nearest.load(kind, tmp_path / 'x.faiss'), 0, 32)


def test_what_cannot_be_built():
  pytest.importorskip('faiss')
  few = nearest.Vectors([random(20, 16)])
  with pytest.raises(ValueError, match='ivfpq needs 9984 vectors or more.*got 20 of 16; use flat'):
    nearest.build('ivfpq', few)
  with pytest.raises(ValueError, match="kind 'lsh' is unknown"):
    nearest.build('lsh', few)


def test_without_faiss(monkeypatch):
  monkeypatch.setitem(sys.modules, 'faiss', None)
  assert not nearest.has_faiss()
  vectors = nearest.Vectors([random(20, 16)])
  assert len(nearest.Flat(vectors).search(random(1, 16), 3)[0]) == 3
  for make in (nearest.FaissFlat, lambda x: nearest.build('hnsw', x)):
    with pytest.raises(ValueError, match=r'not installed; pip install mem1_jax\[retriever\]'):
      make(vectors)
