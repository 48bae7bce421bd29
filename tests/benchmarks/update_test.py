"""The benchmark of updates runs from end to end, small, and says what it promises."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow  # three processes compile
def test_tiny_run_ends_with_rates_and_writes_raw_samples(tmp_path):
  out = tmp_path / 'update.json'
  run = subprocess.run(
      [sys.executable, str(ROOT / 'benchmarks' / 'update.py'), '--turns', '2', '--repeats', '1',
       '--question', '20', '--think', '8', '--action', '4', '--information', '10', '--model',
       'tiny', '--episodes', '2', '--out', str(out)],
      stdout=subprocess.PIPE, text=True, check=True, timeout=120)
  last = json.loads(run.stdout.splitlines()[-1])
  assert last.keys() == {'ours_episodes_s', 'torch_dense_episodes_s', 'ratio', 'tunix_episodes_s',
                         'turns'}
  assert last['ours_episodes_s'] > 0
  torch = last['turns']['2']['torch_dense_episodes_s']
  assert torch == 'not run' or torch > 0
  cells = json.loads(out.read_text())['turns']['2']
  assert cells['exact_tokens'] == 20 + 12 + 34 and cells['stitched_tokens'] == 20 + 12 + 22
  assert len(cells['peers']['ours']['raw']) == 1
  assert 'interpreter' in cells['peers']['tunix']['not_run']
