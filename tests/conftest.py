"""What every test runs under: 8 fake CPU devices, strict ranks, a compilation cache."""

import os
import pathlib
import signal

from tests.xla_flags import DEVICES, xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / 'shared' / 'data'

# Before jax is imported: it reads these once.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {xla_flags()}'.strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# A shell lets what it starts in the background ignore Ctrl-C, and tests' programs would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_enable_x64', False)
jax.config.update('jax_compilation_cache_dir', str(ROOT / '.cache' / 'jax'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def pytest_collection_modifyitems(items):
  """Skips tests marked `shared_data` where that data is not there."""
  if SHARED_DATA.is_dir():
    return
  skip = pytest.mark.skip(reason='the data sets that these tests read are not on this machine')
  for item in items:
    if item.get_closest_marker('shared_data'):
      item.add_marker(skip)


@pytest.fixture
def shared_data() -> pathlib.Path:
  """The folder of real data sets; skips where there is none."""
  if not SHARED_DATA.is_dir():
    pytest.skip('the data sets that this test reads are not on this machine')
  return SHARED_DATA
