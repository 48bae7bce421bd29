"""The benchmark of composition runs from end to end, and says what it promises."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_short_run_ends_with_rates_and_writes_raw_samples(tmp_path):
  source, out = tmp_path / 'dev.jsonl', tmp_path / 'compose.json'
  source.write_text(''.join(
      json.dumps({'question': f'who is {k}', 'answer': [f'a{k}']}) + '\n' for k in range(203)))
  run = subprocess.run(
      [sys.executable, str(ROOT / 'benchmarks' / 'compose.py'), '--source', f'nq_open:{source}',
       '--objectives', '1', '8', '--seconds', '0.01', '--repeats', '2', '--batch', '16',
       '--ways', 'compose', 'numpy', 'encode', '--out', str(out)],
      stdout=subprocess.PIPE, text=True, check=True, timeout=120)
  last = json.loads(run.stdout.splitlines()[-1])
  assert last.keys() == {'1', '8'}
  promises = {'once_per_epoch', 'hosts_disjoint_and_complete', 'resume_identical'}
  for cell in last.values():
    assert cell.keys() == {'compose', 'numpy', 'encode'} | promises
    assert all(cell[name] is True for name in promises) and cell['compose'] > 0
  written = json.loads(out.read_text())
  assert len(written['cases']['8']['raw']['encode']) == 2
  assert (written['questions'], written['knobs']['source']) == (203, 'dev.jsonl')
