"""The benchmark of WebShop runs on the embedded shop, and says what it promises."""

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def benchmark():
  spec = importlib.util.spec_from_file_location('webshop_benchmark', ROOT / 'benchmarks/webshop.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_a_small_run(benchmark, tmp_path, capsys):
  out = tmp_path / 'webshop.json'
  benchmark.main(['--goals=6', '--sessions=4', '--repeats=1', f'--out={out}'])
  last = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert set(last) == {'products', 'goals', 'reward', 'rule', 'met_in_full', 'turns', 'steps_s'}
  assert (last['products'], last['goals']) == (260, 6) and last['reward'] > 0.9
  assert 0 < last['rule'] < last['reward']
  assert set(last['steps_s']) == {'1', '4'} and min(last['steps_s'].values()) > 0
  written = json.loads(out.read_text())
  assert len(written['measured']['rewards']) == 6 and written['knobs']['sessions'] == 4
  assert written['commit'] and 'python' in written['versions']


def test_a_session_that_differs_is_an_error(benchmark):
  class World:
    """Says something else every time."""

    count = turns = 0
    max_turns, is_done = 9, False

    def start(self, task):
      del task
      return self

    def need(self, action):
      del action

    def do(self, action, found):
      del action, found
      self.count += 1
      return self.count

  task = type('Task', (), {'id': 't'})
  assert benchmark.replay(World(), [task], [[('a', 1), ('b', 2)]], 2) >= 0
  with pytest.raises(RuntimeError, match='2 sessions at a time, that of task t differs'):
    benchmark.replay(World(), [task], [[('a', 1), ('b', 3)]], 2)
