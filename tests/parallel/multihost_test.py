"""Real processes, as on several hosts: they compute together what one process computes alone."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from mem1_jax.parallel import multihost

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(scenario, folder, num_devices, num_processes=2, timeout_s=150):
  """Runs a scenario of multihost_worker.py in processes with `num_devices` devices each.

  All are killed once one has failed, or when the time is over.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  logs = [folder / f'{scenario}-{index}.log' for index in range(num_processes)]
  processes = []
  for index, log in enumerate(logs):
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={num_devices}',
        'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache' / 'jax'),
        'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(num_processes),
        'JAX_PROCESS_ID': str(index)}
    with log.open('w') as file:
      processes.append(subprocess.Popen(
          [sys.executable, '-m', 'tests.parallel.multihost_worker', scenario, str(folder)],
          cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT))
  end = time.monotonic() + timeout_s
  try:
    while any(process.poll() is None for process in processes):
      assert not any(process.poll() for process in processes), 'a process failed'
      assert time.monotonic() < end, f'not done after {timeout_s} s'
      time.sleep(0.1)
    assert [process.returncode for process in processes] == [0] * num_processes
  except AssertionError as error:
    text = '\n'.join(f'--- process {i}\n{log.read_text()[-4000:]}' for i, log in enumerate(logs))
    raise AssertionError(f'{error}\n{text}') from None
  finally:
    for process in processes:
      process.kill()
      process.wait()
  texts = [log.read_text() for log in logs]
  assert all('done' in text.splitlines() for text in texts)
  return texts


def test_rows_and_objects(tmp_path):
  run('helpers', tmp_path, num_devices=2)


def test_a_ppo_step_is_that_of_one_device(tmp_path):
  print(run('ppo_step', tmp_path, num_devices=4)[0])


@pytest.mark.parametrize('variables, is_cluster, message', [
    ({'JAX_PROCESS_ID': '0'}, False, 'JAX_PROCESS_ID set, JAX_COORDINATOR_ADDRESS, JAX_NUM_PRO'),
    ({'JAX_NUM_PROCESSES': 'two'}, False, 'JAX_NUM_PROCESSES=two must be a whole number ≥ 1'),
    ({'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '2'}, False, 'JAX_PROCESS_ID=2 must be below'),
    ({'JAX_COORDINATOR_ADDRESS': 'host0'}, False, 'JAX_COORDINATOR_ADDRESS=host0 has no port'),
    ({}, True, 'found no TPU pod, Slurm, .* set them')])
def test_wrong_settings_say_what_to_do(variables, is_cluster, message, monkeypatch):
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    multihost.initialize(is_cluster)


def test_one_process_alone_needs_no_other():
  multihost.initialize()
  assert multihost.is_main() and multihost.gather('x') == ['x']
  multihost.barrier()
