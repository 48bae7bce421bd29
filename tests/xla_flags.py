"""What XLA runs under in tests: fake CPU devices, and little optimisation.

Most of a test's time is compilation for a run of milliseconds. With less of it the default tests
take about half as long; the programs, their sharding and their memory are those of a user.
"""

import importlib.metadata

DEVICES = '--xla_force_host_platform_device_count'


def xla_flags(num_devices: int = 8) -> str:
  flags = [f'{DEVICES}={num_devices}', '--xla_backend_optimization_level=0']
  if importlib.metadata.version('jaxlib').startswith('0.10.'):  # later ones have no such flag
    flags.append('--xla_cpu_use_fusion_emitters=false')
  return ' '.join(flags)
