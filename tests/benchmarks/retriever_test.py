"""The benchmark of the search server runs from end to end, small, and says what it promises."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.retrieval.dense import bert_small

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments):
  done = subprocess.run(
      [sys.executable, str(ROOT / 'benchmarks' / 'retriever.py'), '--seconds', '0.2', *arguments],
      stdout=subprocess.PIPE, text=True, check=True, timeout=300)
  return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # two processes import jax, several cells
def test_tiny_run_ends_with_latencies_and_recall(tmp_path):
  out = tmp_path / 'retriever.json'
  text, last = run('--clients', '1', '4', '--questions', '50', '--out', str(out))
  assert last.keys() == {'recall_at_5', *(f'{way} {n}' for way in ('plain', 'ours', 'batched')
                                          for n in (1, 4))}
  assert 'p99 ms' in text and 0.3 < last['recall_at_5'] <= 1
  for cell in json.loads(out.read_text())['cells'].values():
    assert 0 < cell['p50_ms'] <= cell['p99_ms'] and cell['queries_s'] > 0 and not cell['failed']


@pytest.mark.slow  # encodes and serves in processes of their own
def test_a_dense_index_is_made_and_served(tmp_path):
  out, encoder = tmp_path / 'retriever.json', bert_small.write(tmp_path / 'encoder')
  _, last = run('--clients', '2', '--ways', 'ours', '--questions', '20', '--out', str(out),
                '--retriever', 'dense', '--encoder', str(encoder))
  assert last['ours 2']['queries_s'] > 0
  written = json.loads(out.read_text())
  assert (written['retriever'], written['encoder']) == ('dense', 'encoder')
  assert not written['cells']['ours 2']['failed']


@pytest.mark.slow
@pytest.mark.shared_data
def test_hotpotqa(shared_data):
  _, last = run('--clients', '1', '--ways', 'plain', '--hotpotqa', str(shared_data / 'hotpotqa'))
  assert 0.5 < last['recall_at_5'] <= 1
