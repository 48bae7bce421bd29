"""What each of several processes does in multihost_test.py: `python -m … SCENARIO FOLDER`.

Every assertion is made on every process. Environment variables say which process it is, as they
do in runs that are started by hand.
"""

import pathlib
import sys

import jax

from mem1_jax.parallel import multihost

if __name__ == '__main__':
  multihost.initialize()  # before the imports below make an array
jax.config.update('jax_numpy_rank_promotion', 'raise')

import numpy as np  # noqa: E402

from mem1_jax import train  # noqa: E402
from mem1_jax.parallel import sharding  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from tests.parallel import programs  # noqa: E402


def helpers(folder):
  """Rows and objects of two processes with two devices each."""
  del folder
  me = jax.process_index()
  split, shared = (sharding.rows(make_mesh(MeshConfig(*sizes)), 4)
                   for sizes in ((4, 1, 1), (1, 2, 2)))
  # (1, 2, 2): rows 0 and 1 are on the two devices of process 0
  assert multihost.owners(split, 4).tolist() == [0, 0, 1, 1]
  assert multihost.own_rows(split, 4) == [2 * me, 2 * me + 1]
  across = make_mesh(MeshConfig(1, 2, 2), sorted(jax.devices(), key=lambda d: d.id % 2))
  across = sharding.rows(across, 4)
  assert shared.num_devices == 4 and multihost.owners(across, 4).tolist() == [0] * 4
  whole = sharding.whole(across.mesh)
  assert multihost.owners(whole, 3).tolist() == [0] * 3
  rows = {'x': np.arange(8).reshape(4, 2) + 100 * me, 'y': np.arange(4.0) + 100 * me}
  for where in (split, shared, across, whole):
    owner = multihost.owners(where, 4)
    placed = multihost.put_rows(rows, where)
    assert placed['y'].sharding == where
    np.testing.assert_array_equal(multihost.fetch(placed['y']), np.arange(4) + 100 * owner)
    np.testing.assert_array_equal(
        multihost.fetch(placed['x']), np.arange(8).reshape(4, 2) + 100 * owner[:, None])
    own = multihost.own_rows(where, 4)
    np.testing.assert_array_equal(multihost.fetch_rows(placed)['y'][own], rows['y'][own])
  key = multihost.put(jax.random.key(3), whole)
  np.testing.assert_array_equal(jax.random.key_data(key).addressable_data(0),
                                jax.random.key_data(jax.random.key(3)))
  long = b'x' * (multihost._CHUNK_BYTES * 2 * me + me)  # one chunk, and three
  with jax.transfer_guard('disallow'):
    assert multihost.gather((me, long)) == [
        (0, b''), (1, b'x' * (multihost._CHUNK_BYTES * 2 + 1))]
    assert multihost.gather(None) == [None, None]
  multihost.barrier()


def ppo_step(folder):
  """One PPO step on fixed trajectories is that of one device."""
  del folder
  one, want = programs.ppo_step(programs.ppo(1, 1, 1))
  many, got = programs.ppo_step(programs.ppo(2, 2, 2))
  for name in ('policy_loss', 'value_loss', 'kl_loss', 'entropy', 'policy_grad_norm',
               'value_grad_norm', 'kl', 'value_mean', 'target_mean'):
    error = abs(got[name] - want[name]) / max(1e-2, abs(want[name]))
    print(f'{name}: {want[name]:.7g}, relative error {error:.1e}')
    assert error <= 1e-5, name
  for name in ('policy_opt', 'value_opt', 'policy', 'value'):  # the first two hold gradients
    pairs = [(np.float64(multihost.fetch(x)), np.float64(y)) for x, y in zip(
        jax.tree.leaves(getattr(many, name)), jax.tree.leaves(getattr(one, name)), strict=True)]
    worst = max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in pairs)
    print(f'{name}: relative error {worst:.1e}')
    assert worst <= 1e-5, name


SCENARIOS = {function.__name__: function for function in (helpers, ppo_step)}


if __name__ == '__main__':
  SCENARIOS[sys.argv[1]](pathlib.Path(sys.argv[2]))
  print('done', flush=True)
