"""Every agent runs the suite end to end, the one behind a server too."""

import json
import sys

import pytest

from benchmarks import agents as benchmark


@pytest.mark.slow
def test_every_agent_runs_the_suite(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', [
      'agents.py', f'--workdir={tmp_path}', f'--out={tmp_path / "all.json"}',
      '--config.eval.tasks=4', '--config.eval.num_slots=4'])
  benchmark.main()
  found = json.loads((tmp_path / 'all.json').read_text())
  agents = found['agents']
  assert set(agents) == set(benchmark.AGENTS) and found['seed'] == 0
  assert all(one['episodes'] == 4 and one['faults'] == 0 and one['turns'] > 2
             for one in agents.values())
  assert agents['mem1']['em'] > 1.5 and agents['full_context']['em'] > 1.5
  assert agents['endpoint']['raw_em'] == agents['mem1']['raw_em']
  assert agents['truncation']['peak_tokens'] > agents['mem1']['peak_tokens']
