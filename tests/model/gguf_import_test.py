"""GGUF files give the parameters that the safetensors of the same model give."""

import jax
import numpy as np
import pytest

from mem1_jax.model import gguf_import, hf
from tests.goldens import make_hf
from tests.model import gguf_small, hf_small

gguf = pytest.importorskip('gguf')
DTYPES = dict(param_dtype='float32', dtype='float32')


@pytest.mark.parametrize('family', make_hf.TIED)
def test_the_same_model_in_both_formats(family, tmp_path):
  config, params = hf_small.load(hf_small.write(tmp_path / 'hf', family))
  source = gguf_import.GGUFFile(gguf_small.write(tmp_path / 'x.gguf', family))
  # init_std is not in such files.
  assert source.config(init_std=config.init_std, **DTYPES) == config
  assert source.hf_keys() == {'max_position_embeddings': 64}
  jax.tree.map(np.testing.assert_array_equal, hf.load(source, config), params)


def test_shards_of_rotated_heads(tmp_path):
  config, params = hf_small.load(hf_small.write(tmp_path / 'hf', 'llama'))
  source = gguf_import.GGUFFile(gguf_small.write(tmp_path / 'x.gguf', 'llama'))
  mesh = jax.make_mesh((2, 4), ('data', 'tensor'),
                       axis_types=(jax.sharding.AxisType.Auto,) * 2)
  shardings = jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, jax.P()), params)
  kernels = shardings['layers']['attention']
  kernels['q'] = {'kernel': jax.sharding.NamedSharding(mesh, jax.P(None, 'data', 'tensor'))}
  kernels['k'] = {'kernel': jax.sharding.NamedSharding(mesh, jax.P(None, 'data', None, 'tensor'))}
  jax.tree.map(np.testing.assert_array_equal, hf.load(source, config, shardings), params)


def test_quantised_tensors_come_back_close(tmp_path):
  kind = gguf.GGMLQuantizationType.F16
  source = gguf_import.GGUFFile(gguf_small.write(tmp_path / 'x.gguf', 'qwen2', kind))
  weights = hf_small.stored('qwen2')[0]
  for name in ('model.embed_tokens.weight', 'model.layers.1.mlp.down_proj.weight'):
    rows, columns = (slice(0, size) for size in weights[name].shape)
    np.testing.assert_allclose(source.read(name, rows, columns), weights[name], rtol=1e-3,
                               atol=1e-4)


def test_eight_bits(tmp_path):
  # Blocks of 32 numbers: not a size of the golden models.
  x = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
  writer = gguf.GGUFWriter(tmp_path / 'x.gguf', 'llama')
  kind = gguf.GGMLQuantizationType.Q8_0
  writer.add_tensor('output.weight', gguf.quantize(x, kind), raw_dtype=kind)
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file,
               writer.write_tensors_to_file, writer.close):
    step()
  source = gguf_import.GGUFFile(tmp_path / 'x.gguf')
  assert source.shapes == {'lm_head.weight': (6, 64)}
  part = source.read('lm_head.weight', slice(2, 5), slice(10, 40))
  assert np.abs(part - x[2:5, 10:40]).max() <= np.abs(x).max() / 127


@pytest.mark.parametrize('facts, message', [
    ({'architecture': 'gemma'}, "general.architecture = 'gemma' is not supported; use a model"),
    ({'rope.scaling.type': 'yarn'}, r'rope scaling \(yarn\) is not supported'),
    ({'rope.dimension_count': 4}, 'rope.dimension_count is not the width of a head, 8'),
    ({'rope.freq_base': None}, "key 'qwen2.rope.freq_base' is missing"),
    ({'attention.head_count_kv': 3}, 'num_kv_heads=3'),
])
def test_what_we_lack_is_refused(facts, message, tmp_path):
  path = gguf_small.write(tmp_path / 'x.gguf', 'qwen2', **facts)
  with pytest.raises(ValueError, match=f'x.gguf: .*{message}'):
    gguf_import.GGUFFile(path).config(**DTYPES)


def test_a_missing_tensor(tmp_path):
  name = 'model.layers.0.mlp.up_proj.weight'
  source = gguf_import.GGUFFile(gguf_small.write(tmp_path / 'x.gguf', 'qwen2', without=[name]))
  with pytest.raises(ValueError, match=f"x.gguf: tensor '{name}' is missing; fetch"):
    hf.load(source, source.config(**DTYPES))


def test_missing_and_damaged_files(tmp_path):
  path = tmp_path / 'x.gguf'
  with pytest.raises(FileNotFoundError, match='x.gguf is missing; give a GGUF file'):
    gguf_import.GGUFFile(path)
  whole = gguf_small.write(path, 'qwen2').read_bytes()
  for data in (whole[:-2000], whole[:100], b'not GGUF at all'):
    path.write_bytes(data)
    with pytest.raises(ValueError, match='x.gguf is cut short or no GGUF file'):
      gguf_import.GGUFFile(path)


def test_floats_are_read_as_they_were_written():
  assert gguf_import._as_written(9.999999747378752e-06) == 1e-5
  assert gguf_import._as_written(100000.0) == 1e5
