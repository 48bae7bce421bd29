"""TPU chips and slices that need not be here: what programs are compiled and reckoned for.

Figures are per chip, from cloud.google.com/tpu/docs (v5e, v5p, v6e), but
for the memory that a program may use, which is what the compiler says it has.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re

import jax
from jax.experimental.compilation_cache import compilation_cache

_GB, _GIB = 1e9, 2**30
# Read by libtpu when it is loaded: there is no TPU to ask about itself, and another process may
# have loaded it. What is said of a machine only keeps it from asking.
_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_ACCELERATOR_TYPE': 'v5litepod-4'}


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as a program sees it.

  Attributes:
    flops: bfloat16 per second, the matrix unit's dense peak.
    hbm_bytes: that programs may use.
    hbm_bandwidth, ici_bandwidth: bytes per second, to memory and to all neighbours together.
  """

  name: str
  flops: float
  hbm_bytes: float
  hbm_bandwidth: float
  ici_bandwidth: float


CHIPS = {
    'v5e': Chip('TPU v5e', 197e12, 15.75 * _GIB, 819 * _GB, 200 * _GB),
    'v5p': Chip('TPU v5p', 459e12, 95.74 * _GIB, 2765 * _GB, 600 * _GB),
    'v6e': Chip('TPU v6e', 918e12, 31.25 * _GIB, 1640 * _GB, 448 * _GB),
}


def chip(topology: str) -> Chip:
  """The chip of a topology such as 'v5p:2x4x4'.

  Raises:
    ValueError: another form, or a chip that is not in `CHIPS`.
  """
  name, _, shape = topology.partition(':')
  if name not in CHIPS or not re.fullmatch(r'\d+(x\d+){1,2}', shape):
    raise ValueError(f'topology {topology!r} is unknown; give one of {sorted(CHIPS)} and the shape '
                     'of its slice, such as v5e:4x4, v6e:4x4 or v5p:2x4x4')
  return CHIPS[name]


def devices(topology: str) -> list[jax.Device]:
  """The devices of that slice, to compile for; nothing can run on them.

  Raises:
    ValueError: an unknown topology, one that the compiler refuses, or no compiler.
  """
  from jax.experimental import topologies

  chip(topology)
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError("the TPU compiler is not installed; pip install -e '.[tpu]' (no TPU is "
                     'needed to run it)')
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    description = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  except Exception as error:  # whatever the plugin raises
    reason = str(error).partition('\n')[0]
    raise ValueError(f'topology {topology!r}: {reason}; name a slice that exists, such as v5e:4x4, '
                     'v6e:4x4 or v5p:2x4x4') from error
  return list(description.devices)


@contextlib.contextmanager
def no_compilation_cache():
  """Programs for a slice that is not here cannot be read back from it."""
  def enable(is_on):
    jax.config.update('jax_enable_compilation_cache', is_on)
    compilation_cache.reset_cache()  # it looks at the setting once

  before = jax.config.jax_enable_compilation_cache
  enable(False)
  try:
    yield
  finally:
    enable(before)
