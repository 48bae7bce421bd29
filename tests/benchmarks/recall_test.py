"""The benchmark of retrieval runs from end to end, small, and says what it promises."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.retrieval.dense import bert_small

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(folder):
  """A corpus and questions like HotpotQA's, with a gold title each."""
  folder.mkdir()
  corpus = {f'{a}{b}': [f'{a} sea.', f' {b} fjord.'] for a in 'abcde' for b in 'vwxyz'}
  (folder / 'corpus_994.json').write_text(json.dumps(corpus))
  (folder / 'questions_100.json').write_text(json.dumps(
      [{'question': f'where is {title}', 'supporting_facts': [[title, 0], [title, 1]]}
       for title in corpus]))


@pytest.mark.slow  # a process of its own compiles
def test_tiny_run_ends_with_recalls_and_writes_raw_samples(tmp_path):
  write(tmp_path / 'data')
  out = tmp_path / 'recall.json'
  run = subprocess.run(
      [sys.executable, str(ROOT / 'benchmarks' / 'recall.py'), '--data', str(tmp_path / 'data'),
       '--encoder', str(bert_small.write(tmp_path / 'encoder')), '--cross-encoder',
       str(bert_small.write(tmp_path / 'cross', is_classifier=True, prefix='bert.')),
       '--vectors', '2000', '--repeats', '1', '--out', str(out)],
      stdout=subprocess.PIPE, text=True, check=True, timeout=300)
  last = json.loads(run.stdout.splitlines()[-1])
  assert last['hotpotqa']['bm25']['recall@5'] == 1
  assert {'dense', 'transformers', 'reranked'} <= last['hotpotqa'].keys()
  assert 0 < last['hotpotqa']['dense']['recall@5'] <= 1
  assert last['vectors']['flat_numpy']['recall@10'] == 1
  assert len(json.loads(out.read_text())['hotpotqa']['dense']['search_raw_s']) == 1
