"""TPU slices that are not here."""

import pytest

from mem1_jax.parallel import topology
from mem1_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize('name', ['v5e', 'v7:2x2', 'v5e:2', 'v5e:axb', '', 'v5p:2x2x2x2'])
def test_an_unknown_name_says_what_is_known(name):
  with pytest.raises(ValueError, match='such as v5e:4x4'):
    topology.chip(name)


@pytest.mark.parametrize('name, kind, num', [('v5e:2x2', 'TPU v5 lite', 4), ('v6e:4x4', 'TPU v6 lite', 16),
                                             ('v5p:2x4x4', 'TPU v5', 32)])
def test_devices_to_compile_for(name, kind, num):
  pytest.importorskip('libtpu')
  devices = topology.devices(name)
  assert len(devices) == num and {d.device_kind for d in devices} == {kind}


@pytest.mark.parametrize('sizes', [(1, 16, 2), (1, 8, 4), (2, 16, 1), (32, 1, 1)])
def test_meshes_of_a_slice_whose_axes_are_longer_than_theirs(sizes):
  pytest.importorskip('libtpu')
  mesh = make_mesh(MeshConfig(*sizes), topology.devices('v5p:2x4x4'))
  assert tuple(mesh.shape.values()) == sizes and len(set(mesh.devices.flat)) == 32


def test_a_slice_that_there_is_not():
  pytest.importorskip('libtpu')
  with pytest.raises(ValueError, match='v5e:3x5.*name a slice that exists'):
    topology.devices('v5e:3x5')


def test_without_the_compiler(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match='pip install'):
    topology.devices('v5e:2x2')
