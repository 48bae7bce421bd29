"""Sizes of the mesh: what is left, what does not fit, idle devices."""

import jax
import pytest

from mem1_jax.parallel import mesh
from mem1_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize('config, num_devices, sizes', [
    ((1, 1, 1), 1, (1, 1, 1)), ((1, -1, 1), 8, (1, 8, 1)), ((2, -1, 2), 8, (2, 2, 2)),
    ((-1, 1, 1), 1, (1, 1, 1)), ((2, 2, 2), 8, (2, 2, 2)), ((2, 1, 1), 8, (2, 1, 1)),
    ((4, 2, -1), 8, (4, 2, 1))])
def test_minus_one_takes_what_is_left(config, num_devices, sizes):
  assert MeshConfig(*config).sizes(num_devices) == sizes


@pytest.mark.parametrize('config, message', [
    ((-1, -1, 1), 'data -1 x fsdp -1 x tensor 1: each size must be ≥ 1, or -1 for one'),
    ((0, 1, 1), 'must be ≥ 1'), ((1, -2, 1), 'must be ≥ 1'),
    ((4, 2, 2), 'data 4 x fsdp 2 x tensor 2 needs 16 devices, there are 8; lower a size'),
    ((3, -1, 1), 'data 3 x fsdp -1 x tensor 1: 8 devices are not a multiple of 3; choose')])
def test_sizes_that_do_not_fit_say_what_to_do(config, message):
  with pytest.raises(ValueError, match=message):
    MeshConfig(*config).sizes(8)


def test_idle_devices_are_mentioned(caplog):
  small = make_mesh(MeshConfig(1, 2, 1), jax.devices()[:4])
  assert list(small.devices.flat) == jax.devices()[:2] and 'uses 2 of 4 devices' in caplog.text
  caplog.clear()
  whole = make_mesh(MeshConfig(1, 2, -1), jax.devices()[:4])
  assert whole.axis_names == mesh.AXES and whole.devices.shape == (1, 2, 2) and not caplog.text


def test_one_device():
  assert list(mesh.one_device().devices.flat) == jax.devices()[:1]
