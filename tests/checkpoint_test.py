"""Checkpoints: bit for bit, never a half-written one, errors that name the leaf."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mem1_jax import arrays, checkpoint


def _state(seed=0):
  params = {'layer': {'kernel': jax.random.normal(jax.random.key(seed), (3, 4)),
                      'bias': jnp.full((4,), jnp.pi)}}
  adam = optax.adam(1e-3)
  return arrays.TrainState(
      jnp.int32(seed), params, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params),
      adam.init(params), adam.init(params), jnp.float32(0.1), jnp.int32(0))


def _assert_same_bits(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_round_trip_is_bit_exact_and_keeps_the_tree(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=1)
  keeper.save(3, _state(), {'next_task': 12, 'nested': {'seed': [1, 2]}})
  state, meta = keeper.restore_latest(jax.eval_shape(_state, 1))
  _assert_same_bits(state, _state())
  assert meta == {'next_task': 12, 'nested': {'seed': [1, 2]}}


def test_keeps_the_latest_and_the_best(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=2, best_metric='em')
  for step, em in [(1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, None)]:
    keeper.save(step, {'x': jnp.float32(step)}, {}, None if em is None else {'em': em})
  assert keeper.steps() == [2, 4, 5]
  like = {'x': jnp.float32(0)}
  assert keeper.restore_latest(like)[0]['x'] == 5
  assert keeper.restore_best(like)[0]['x'] == 2
  # A new process sees the same.
  keeper.close()
  again = checkpoint.Checkpointer(tmp_path, keep=2, best_metric='em')
  assert again.restore_best(like)[0]['x'] == 2


def test_a_checkpoint_that_is_evaluated_later_may_be_the_best(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=1, best_metric='em')
  keeper.save(1, {'x': jnp.float32(1)}, {}, {'em': 0.5})
  keeper.save(2, {'x': jnp.float32(2)}, {})
  keeper.rank(2, {'em': 0.7})
  keeper.save(3, {'x': jnp.float32(3)}, {}, {'em': 0.6})
  for again in (keeper, checkpoint.Checkpointer(tmp_path, keep=1, best_metric='em')):
    assert again.steps() == [2, 3]
    assert again.restore_best({'x': jnp.float32(0)})[0]['x'] == 2


def test_best_without_any_evaluation_is_an_error(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=1, best_metric='em')
  keeper.save(1, {'x': jnp.float32(1)}, {})
  with pytest.raises(FileNotFoundError, match="'em'"):
    keeper.restore_best({'x': jnp.float32(0)})
  with pytest.raises(ValueError, match="lack 'em'"):
    keeper.save(2, {'x': jnp.float32(1)}, {}, {'reward': 1.0})


def test_incomplete_folders_are_never_taken(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=3)
  like = {'x': jnp.float32(0)}
  keeper.save(1, {'x': jnp.float32(1)}, {})
  keeper.close()
  (tmp_path / '2').mkdir()
  (tmp_path / '3.orbax-checkpoint-tmp').mkdir()
  again = checkpoint.Checkpointer(tmp_path, keep=3)
  assert again.restore_latest(like)[0]['x'] == 1
  again.save(2, {'x': jnp.float32(2)}, {})
  assert again.restore_latest(like)[0]['x'] == 2


def test_survives_a_kill_at_any_time(tmp_path):
  program = textwrap.dedent(f'''
      import jax.numpy as jnp
      from mem1_jax import checkpoint
      keeper = checkpoint.Checkpointer({str(tmp_path)!r}, keep=2)
      for step in range(1, 10000):
        keeper.save(step, {{'x': jnp.full((50000,), step, jnp.float32)}}, {{'step': step}})
        print(step, flush=True)
      ''')
  child = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
  for _ in range(5):
    last = int(child.stdout.readline())
  os.kill(child.pid, signal.SIGKILL)
  child.wait()
  keeper = checkpoint.Checkpointer(tmp_path, keep=2)
  state, meta = keeper.restore_latest({'x': jnp.zeros(50000)})
  assert meta['step'] >= last
  assert (state['x'] == meta['step']).all()


def test_errors_name_the_leaf(tmp_path):
  keeper = checkpoint.Checkpointer(tmp_path, keep=1)
  with pytest.raises(FileNotFoundError, match='no complete checkpoint'):
    keeper.restore_latest(_state())
  keeper.save(1, {'a': {'w': jnp.ones((2, 3))}, 'b': jnp.ones(2)}, {})
  with pytest.raises(ValueError, match=r'a\.w: saved as float32\[2, 3\], wanted float32\[3, 2\]'):
    keeper.restore_latest({'a': {'w': jnp.ones((3, 2))}, 'b': jnp.ones(2)})
  with pytest.raises(ValueError, match=r'b: saved as float32\[2\], wanted bfloat16\[2\]'):
    keeper.restore_latest({'a': {'w': jnp.ones((2, 3))}, 'b': jnp.ones(2, jnp.bfloat16)})
  with pytest.raises(ValueError, match=r'c: not in the checkpoint\n  b: only in'):
    keeper.restore_latest({'a': {'w': jnp.ones((2, 3))}, 'c': jnp.ones(2)})
  with pytest.raises(ValueError, match='step 1 is not after'):
    keeper.save(1, {'a': jnp.ones(1)}, {})


def test_a_run_goes_on_from_its_own_origin_only():
  origin = {'seed': 3, 'init': 'runs/sft/params'}
  checkpoint.check_origin({'step': 1, **origin}, origin)
  checkpoint.check_origin({'seed': 3}, origin)  # as older checkpoints have it
  with pytest.raises(ValueError, match='begun with seed 4, not 3; resume it with the same seed'):
    checkpoint.check_origin({'seed': 4}, origin)


def test_restores_onto_other_devices(tmp_path):
  if jax.device_count() < 2:
    pytest.skip('needs 2 devices')
  keeper = checkpoint.Checkpointer(tmp_path, keep=1)
  keeper.save(1, {'x': jnp.arange(8.0)}, {})
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('data',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  like = {'x': jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)}
  x = keeper.restore_latest(like)[0]['x']
  assert x.sharding == sharding
  np.testing.assert_array_equal(x, np.arange(8.0))


def test_params_round_trip(tmp_path):
  params = _state().policy | {'table': jnp.arange(3)}
  checkpoint.save_params(tmp_path, params, {'num_layers': 2}, 'float32')
  loaded, meta = checkpoint.load_params(tmp_path)
  _assert_same_bits(loaded, jax.tree.map(np.asarray, params))
  assert meta == {'num_layers': 2}


def test_params_in_bfloat16_load_as_rounded_float32(tmp_path):
  params = _state().policy
  checkpoint.save_params(tmp_path, params, {}, 'bfloat16')
  loaded, _ = checkpoint.load_params(tmp_path)
  rounded = jax.tree.map(lambda x: np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32)), params)
  _assert_same_bits(loaded, rounded)
  assert (tmp_path / 'model.safetensors').stat().st_size < 300


def test_a_transposed_view_is_saved_as_it_reads(tmp_path):
  checkpoint.save_params(tmp_path, {'w': np.arange(6.0, dtype=np.float32).reshape(2, 3).T}, {},
                         'float32')
  np.testing.assert_array_equal(checkpoint.load_params(tmp_path)[0]['w'], [[0, 3], [1, 4], [2, 5]])


def test_params_errors_name_file_and_tensor(tmp_path):
  with pytest.raises(FileNotFoundError, match='model.safetensors is missing'):
    checkpoint.load_params(tmp_path)
  with pytest.raises(ValueError, match='contains a dot'):
    checkpoint.save_params(tmp_path, {'a.b': jnp.ones(1)}, {}, 'float32')
  with pytest.raises(ValueError, match="dtype='float16'"):
    checkpoint.save_params(tmp_path, {'a': jnp.ones(1)}, {}, 'float16')
  checkpoint.save_params(tmp_path, {'a': jnp.ones(1)}, {}, 'float32')
  with pytest.raises(ValueError, match=r'model.safetensors(.|\n)*a: saved as float32\[1\], wanted'):
    checkpoint.check_params(checkpoint.load_params(tmp_path)[0], {'a': jnp.ones(2)}, tmp_path)
  (tmp_path / 'model.safetensors').write_bytes(b'not safetensors')
  with pytest.raises(ValueError, match='damaged'):
    checkpoint.load_params(tmp_path)
  assert json.loads((tmp_path / 'config.json').read_text()) == {}
