"""Small checkpoints of transformers, written without torch."""

import json

import numpy as np
import safetensors.numpy

from mem1_jax.model import hf, hf_config, hf_files
from tests.goldens import make_hf


def stored(family):
  """(weights, tokens, logits) of a golden model."""
  arrays = dict(np.load(make_hf.FOLDER / f'hf_{family}.npz'))
  return arrays, arrays.pop('tokens'), arrays.pop('logits')


def write(folder, family, weights=None, **overrides):
  """A golden model as a folder with one safetensors file; `overrides` change its config.json."""
  folder.mkdir(parents=True, exist_ok=True)
  weights = stored(family)[0] if weights is None else weights
  safetensors.numpy.save_file(
      {name: np.ascontiguousarray(x) for name, x in weights.items()},
      folder / 'model.safetensors', metadata={'format': 'pt'})
  (folder / 'config.json').write_text(json.dumps(make_hf.raw_config(family, **overrides)))
  return folder


def config_of(folder, **overrides):
  overrides = dict(param_dtype='float32', dtype='float32') | overrides
  return hf_config.from_hf(
      hf_config.read_config(folder), folder / 'config.json', **overrides)


def load(folder, shardings=None, **overrides):
  """(config, params) of a folder."""
  config = config_of(folder, **overrides)
  return config, hf.load(hf_files.SafetensorsFolder(folder), config, shardings)


def tensors_of(folder):
  """All tensors of a folder, by name, and how many files they came from."""
  files = sorted(folder.glob('*.safetensors'))
  tensors = {}
  for file in files:
    tensors |= safetensors.numpy.load_file(file)
  return tensors, len(files)
