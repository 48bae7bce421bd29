"""XLA partitions every program on 2x2x2 without a complaint, read from a subprocess."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.parallel import programs
from tests.xla_flags import xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('rank', [
    0, pytest.param(programs.RANK, marks=pytest.mark.slow)], ids=['whole', 'lora'])
def test_the_compiler_replicates_nothing_against_its_will(rank):
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': xla_flags(),
      'TF_CPP_MIN_LOG_LEVEL': '0', 'PYTHONPATH': str(ROOT), 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  run = subprocess.run(
      [sys.executable, '-m', 'tests.parallel.programs', str(rank)], cwd=ROOT, env=environment,
      text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
  awkward, found, ours = run.stdout.partition('awkward move compiled')
  assert 'Involuntary full rematerialization' in awkward  # the check can fail
  assert found and 'all programs compiled' in ours
  assert 'Involuntary' not in ours
