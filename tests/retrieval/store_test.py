"""Shards on disk: what is written is found again, and nothing that is not whole."""

import json

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.retrieval import store
from mem1_jax.retrieval.documents import Place

PASSAGES = [types.Passage(f'title {i}', f'Zeile\n{i} ü "x"' * i, id='p3' * (i == 3))
            for i in range(5)]
VECTORS = np.arange(15, dtype=np.float16).reshape(5, 3)


def write(folder):
  store.write_manifest(folder, {'kind': 'flat'})
  for number, (begin, end) in enumerate(((0, 3), (3, 5))):
    store.write_shard(folder, number, PASSAGES[begin:end], VECTORS[begin:end], num_bad=number,
                      num_cut=2, after=Place(0, 10 * end, end))
  return folder


def test_what_was_written_is_found_again(tmp_path):
  folder = write(tmp_path / 'index')
  first, second = store.shards(folder)
  assert (first.num_passages, second.num_passages, second.num_bad, second.num_cut) == (3, 2, 1, 2)
  assert second.after == Place(0, 50, 5)
  assert second.max_norm == pytest.approx((12**2 + 13**2 + 14**2)**0.5)
  vectors, passages = store.open_vectors(folder), store.Passages(folder)
  np.testing.assert_array_equal(vectors.rows(np.arange(5)), VECTORS)
  assert vectors.dtype == np.float16 and vectors.max_norm == second.max_norm
  assert len(passages) == 5 and [passages[i] for i in range(5)] == PASSAGES
  assert list(passages) == PASSAGES
  for index in (-1, 5):
    with pytest.raises(IndexError, match=f'passage {index} is outside 0 to 4'):
      passages[index]


def test_a_shard_may_have_no_vectors(tmp_path):
  store.write_manifest(tmp_path, {})
  shard = store.write_shard(tmp_path, 0, PASSAGES, None, 0, 0, Place())
  assert store.shards(tmp_path) == [shard] and shard.max_norm == 0
  assert list(store.Passages(tmp_path)) == PASSAGES
  assert not (tmp_path / 'shards' / '00000.npy').exists()


def test_a_shard_without_its_last_file_is_not_there(tmp_path):
  folder = write(tmp_path)
  (folder / 'shards' / '00001.json').unlink()
  assert len(store.shards(folder)) == 1
  assert len(store.open_vectors(folder)) == len(store.Passages(folder)) == 3


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path):
  file = tmp_path / 'x'
  store.write_whole(file, lambda new: new.write_text('whole'))

  def killed(new):
    new.write_text('ha')
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    store.write_whole(file, killed)
  assert file.read_text() == 'whole'


def test_manifests_that_cannot_be_read(tmp_path):
  with pytest.raises(FileNotFoundError, match='is no index: .*make one with `main index`'):
    store.read_manifest(tmp_path)
  store.write_manifest(tmp_path, {'kind': 'flat'})
  assert store.read_manifest(tmp_path) == {'format': store.FORMAT, 'kind': 'flat'}
  for text, message in (('{', 'is damaged'), (json.dumps({'format': 0}), 'has the format 0')):
    (tmp_path / 'manifest.json').write_text(text)
    with pytest.raises(ValueError, match=message):
      store.read_manifest(tmp_path)
