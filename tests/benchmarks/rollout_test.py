"""The benchmark of rollouts runs from end to end, small, and says what it promises."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow  # processes compile
def test_tiny_run_ends_with_rates_and_writes_raw_samples(tmp_path):
  out = tmp_path / 'rollout.json'
  run = subprocess.run(
      [sys.executable, str(ROOT / 'benchmarks' / 'rollout.py'), '--repeats', '2', '--model', 'tiny',
       '--slots', '4', '--waves', '2', '--turns', '2', '--question', '8', '--reply', '8',
       '--longest', '16', '--latency', '0', '0.01', '--objectives', '1', '--full-objectives', '1',
       '--skip', 'hf', '--prefill-chunk', '8', '--out', str(out)],
      stdout=subprocess.PIPE, text=True, check=True, timeout=300)
  last = json.loads(run.stdout.splitlines()[-1])
  assert last['recompiles'] == 0 and 0 < last['occupancy'] <= 1
  for section in ('skewed', 'fixed'):
    rates = last[section]
    assert rates['ours'] > 0 and rates['lockstep'] > 0
    assert rates['tunix'] == rates['hf'] == 'not run'
  assert min(last['latency'].values()) > 0 and len(last['latency']) == 2
  assert last['objectives']['mem1']['1'] > 0 and last['objectives']['full_context']['1'] > 0
  written = json.loads(out.read_text())
  assert {'commit', 'versions', 'machine', 'seed', 'knobs'} <= written.keys()
  ours = written['cases']['skewed ours']
  assert len(ours['raw']) == 2 and ours['occupancy'] == last['occupancy']
  # One turn of eight episodes, each of the longest length: what it says it sampled, it sampled.
  fixed = written['cases']['fixed ours']
  assert fixed['tokens_per_turn'] == 16
  assert 'interpreter' in written['cases']['skewed tunix']['not_run']
