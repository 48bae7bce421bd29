"""Folders of safetensors: parts of tensors, shards, and what is said of damaged ones."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mem1_jax.model import hf_files

A = np.arange(24, dtype=np.float32).reshape(6, 4)
B = np.arange(5, dtype=ml_dtypes.bfloat16)


def _sharded(folder):
  safetensors.numpy.save_file({'a': A}, folder / 'model-1.safetensors')
  safetensors.numpy.save_file({'b': B}, folder / 'model-2.safetensors')
  (folder / hf_files.INDEX).write_text(json.dumps(
      {'weight_map': {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'}}))


def _single(folder):
  safetensors.numpy.save_file({'a': A, 'b': B}, folder / hf_files.WEIGHTS)


@pytest.mark.parametrize('write', [_single, _sharded])
def test_parts_of_tensors(write, tmp_path):
  write(tmp_path)
  source = hf_files.SafetensorsFolder(tmp_path)
  assert source.shapes == {'a': (6, 4), 'b': (5,)}
  np.testing.assert_array_equal(source.read('a', slice(2, 5), slice(1, 3)), A[2:5, 1:3])
  part = source.read('b', slice(1, 4), slice(0, 1))
  assert part.dtype == ml_dtypes.bfloat16 and part.tolist() == [1, 2, 3]
  assert source.where('b').parent == tmp_path


def test_nothing_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='neither model.safetensors nor'):
    hf_files.SafetensorsFolder(tmp_path)


def test_a_shard_is_missing_or_lacks_its_tensor(tmp_path):
  _sharded(tmp_path)
  safetensors.numpy.save_file({'c': A}, tmp_path / 'model-2.safetensors')
  with pytest.raises(ValueError, match="model-2.safetensors: tensor 'b' is missing.*fetch"):
    hf_files.SafetensorsFolder(tmp_path)
  (tmp_path / 'model-2.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match="model-2.safetensors is missing.*'b'; fetch"):
    hf_files.SafetensorsFolder(tmp_path)


def test_a_broken_index(tmp_path):
  (tmp_path / hf_files.INDEX).write_text('{}')
  with pytest.raises(ValueError, match='index.json has no readable weight_map'):
    hf_files.SafetensorsFolder(tmp_path)


def test_a_file_that_is_cut_short_names_the_first_tensor_it_lost(tmp_path):
  _single(tmp_path)
  file = tmp_path / hf_files.WEIGHTS
  whole = file.read_bytes()
  for size, message in ((-4, "from tensor 'b' on"), (-40, "from tensor 'a' on"), (40, 'damaged')):
    file.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=f'model.safetensors is cut short.*{message}.*fetch'):
      hf_files.SafetensorsFolder(tmp_path)
  file.write_bytes(b'no tensors at all')
  with pytest.raises(ValueError, match='model.safetensors is cut short or damaged .*fetch'):
    hf_files.SafetensorsFolder(tmp_path)


def test_quantised_tensors_are_refused(tmp_path):
  safetensors.numpy.save_file({'a': A.astype(np.int8)}, tmp_path / hf_files.WEIGHTS)
  source = hf_files.SafetensorsFolder(tmp_path)
  with pytest.raises(ValueError, match="model.safetensors: tensor 'a' is stored as I8; use"):
    source.read('a', slice(0, 1), slice(0, 1))
