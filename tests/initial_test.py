"""What `config.init` may name, and that each kind gives sizes, parameters and a tokenizer."""

import sys

import huggingface_hub
import jax
import numpy as np
import pytest

from mem1_jax import checkpoint, initial
from mem1_jax.model import build_policy, named_config
from tests.model import gguf_small, hf_small, small

DTYPES = dict(param_dtype='float32', dtype='float32')


def _package(tmp_path, monkeypatch, name, num_files):
  folder = tmp_path / 'site' / name
  (folder / 'models').mkdir(parents=True)
  (folder / '__init__.py').write_text('raise RuntimeError("never imported")')
  for i in range(num_files):
    gguf_small.write(folder / 'models' / f'{i}.gguf', 'llama')
  monkeypatch.setattr(sys, 'path', [str(tmp_path / 'site'), *sys.path])


def test_a_folder_of_transformers_is_known_by_its_config(tmp_path):
  folder = hf_small.write(tmp_path / 'x', 'qwen2')
  config, expected = hf_small.load(folder)
  for init in (str(folder), f'hf:{folder}'):
    assert initial.sizes(init, **DTYPES) == config
    jax.tree.map(np.testing.assert_array_equal, initial.params(init, config), expected)
  assert initial.hf_keys(str(folder))['max_position_embeddings'] == 64
  assert initial.tokenizer(f'hf:{folder}') == initial.tokenizer(str(folder)) == str(folder)


def test_our_own_folders(tmp_path):
  config = small.small_config()
  params = build_policy(config).init(jax.random.key(0))
  checkpoint.save_params(tmp_path, params, {}, 'float32')
  with pytest.raises(ValueError, match='config.json does not tell the sizes.*model.name'):
    initial.sizes(str(tmp_path), **DTYPES)
  jax.tree.map(np.testing.assert_array_equal, initial.params(str(tmp_path), config), params)
  assert initial.hf_keys(str(tmp_path)) == initial.hf_keys('') == {}
  half = initial.params(str(tmp_path), small.small_config(param_dtype='bfloat16'))
  assert half['final_norm']['scale'].dtype == 'bfloat16'


@pytest.mark.parametrize('name', [
    'atlas/mem1', 'atlas/full_context', 'atlas/pretrained', 'atlas/hasty'])
def test_shipped_parameters_tell_their_sizes(name):
  config = initial.sizes(name, **DTYPES)
  assert not config.differences(named_config('atlas')) and not config.copy_heads
  assert initial.params(name, config)['embed']['embedding'].shape == (1024, 128)


@pytest.mark.parametrize('init', ['atlas/mem1', 'hf'])
def test_parameters_of_another_model_are_refused(init, tmp_path):
  if init == 'hf':
    init = str(hf_small.write(tmp_path, 'qwen2'))
  config = initial.sizes(init, **DTYPES)
  other = named_config('tiny') if init.startswith('atlas') else small.small_config(**small.QWEN2)
  names = ', '.join(config.differences(other))
  assert 'rope_theta' in names or 'dim' in names
  with pytest.raises(ValueError, match=f'{names} differ from the model.*set model.name'):
    initial.params(init, other)


def test_gguf_by_file_and_by_package(tmp_path, monkeypatch):
  pytest.importorskip('gguf')
  _package(tmp_path, monkeypatch, 'some_model', 1)
  file = tmp_path / 'site' / 'some_model' / 'models' / '0.gguf'
  config, expected = hf_small.load(hf_small.write(tmp_path / 'hf', 'llama'))
  for init in (f'gguf:{file}', 'gguf:some_model', 'gguf:some-model'):
    assert initial.gguf_file(init) == file
    assert not initial.sizes(init, **DTYPES).differences(config)
    jax.tree.map(np.testing.assert_array_equal, initial.params(init, config), expected)
    assert initial.hf_keys(init) == {'max_position_embeddings': 64}


@pytest.mark.parametrize('num_files', [0, 2])
def test_a_package_with_another_number_of_files(num_files, tmp_path, monkeypatch):
  pytest.importorskip('gguf')
  _package(tmp_path, monkeypatch, f'holds_{num_files}', num_files)
  with pytest.raises(FileNotFoundError, match=f'holds {num_files} GGUF files, not one'):
    initial.gguf_file(f'gguf:holds_{num_files}')


@pytest.mark.parametrize('name', ['no_such_package', './no/such/file.gguf'])
def test_a_gguf_that_is_not_there(name):
  with pytest.raises(FileNotFoundError, match='neither a file nor an installed package'):
    initial.gguf_file(f'gguf:{name}')


def test_the_hub_is_asked_for_what_is_no_folder(tmp_path, monkeypatch):
  folder = hf_small.write(tmp_path / 'cache', 'qwen3')
  asked = []

  def download(name, allow_patterns):
    asked.append(name)
    assert '*.safetensors' in allow_patterns
    return str(folder)

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
  assert initial.sizes('hf:Qwen/Qwen3-0.6B', **DTYPES).qk_norm
  assert initial.tokenizer('hf:Qwen/Qwen3-0.6B') == str(folder)
  assert set(asked) == {'Qwen/Qwen3-0.6B'}
  # Without the prefix nothing is fetched.
  with pytest.raises(FileNotFoundError, match='config.json is missing'):
    initial.sizes('Qwen/Qwen3-0.6B', **DTYPES)


def test_a_hub_that_fails_is_one_line(monkeypatch):
  def download(name, allow_patterns):
    del name, allow_patterns
    raise OSError('no route\nto host')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
  with pytest.raises(FileNotFoundError) as error:
    initial.folder('hf:Qwen/Nothing')
  assert 'hf:Qwen/Nothing is neither a folder nor' in str(error.value)
  assert '\n' not in str(error.value)


def test_sizes_without_init():
  with pytest.raises(ValueError, match='takes the sizes from init'):
    initial.sizes('', **DTYPES)


def test_shardings_are_passed_on(tmp_path):
  ours = tmp_path / 'ours'
  config = small.small_config()
  checkpoint.save_params(ours, build_policy(config).init(jax.random.key(0)), {}, 'float32')
  theirs = hf_small.write(tmp_path / 'theirs', 'qwen3')
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  for init, its_config in ((ours, config), (theirs, hf_small.config_of(theirs))):
    shapes = jax.eval_shape(build_policy(its_config).init, jax.random.key(0))
    shardings = jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, jax.P()), shapes)
    params = initial.params(str(init), its_config, shardings)
    assert all(leaf.sharding.num_devices == 8 for leaf in jax.tree.leaves(params))


def test_a_digest_tells_other_weights_under_an_old_name(tmp_path):
  assert initial.digest('') == ''
  assert len({initial.digest(f'atlas/{name}') for name in ('mem1', 'full_context', 'web')}) == 3
  file = tmp_path / 'model.safetensors'
  file.write_bytes(bytes(10))
  before = initial.digest(str(tmp_path))
  assert initial.digest(str(tmp_path)) == before
  file.write_bytes(bytes(9) + b'x')
  assert initial.digest(str(tmp_path)) != before
