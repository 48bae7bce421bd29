"""The whole story at a tiny size: trained, evaluated, reported, resumed."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time

import pytest

from mem1_jax import assemble, checkpoint, quickstart
from tests.tiny import tiny_config


def test_a_report_is_written_and_a_second_call_computes_nothing_again(tmp_path, monkeypatch, capsys):
  config = tiny_config()
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  checkpoint.save_params(tmp_path / 'params', assemble.initial_params(config, policy), {},
                         'float32')
  shipped = str(tmp_path / 'params')
  monkeypatch.setattr(quickstart, '_SHIPPED', {'mem1': shipped, 'full_context': shipped})
  config.ppo.iterations, config.init = 2, shipped
  quickstart.run(config, tmp_path / 'run')
  report = tmp_path / 'run' / 'report'
  summary = json.loads((report / 'summary.json').read_text())
  assert set(summary['agents']) == {'mem1_sft', 'mem1_ppo', 'full_context'}
  assert all(set(cells) == {'1', '2'} for cells in summary['agents'].values())
  assert (report / 'summary.md').exists() and list(report.glob('figures/*.png'))
  assert 'constant memory, after PPO' in (report / 'index.html').read_text()
  assert str(report) in capsys.readouterr().out
  with pytest.raises(FileExistsError, match='--resume'):
    quickstart.run(config, tmp_path / 'run')
  monkeypatch.setattr(quickstart.train, 'run', None)  # would fail if it trained again
  quickstart.run(config, tmp_path / 'run', is_resumed=True)


def test_a_cell_is_claimed_once_by_either_process():
  context = multiprocessing.get_context('spawn')
  claim = quickstart._Claims([('a', 1), ('a', 2), ('b', 1)], context.Array('b', 3))
  assert claim('a', 2) and not claim('a', 2)
  process = context.Process(target=claim, args=('b', 1))
  process.start()
  process.join()
  assert process.exitcode == 0
  assert not claim('b', 1) and claim('a', 1)


SMALL = ('--config.ppo.iterations=5', '--config.ppo.tasks=8', '--config.ppo.num_rows=16',
         '--config.rollout.num_slots=8', '--config.checkpoint.every=1', '--config.eval.every=2',
         '--config.eval.every_tasks=8', '--config.eval.tasks=2', '--config.eval.num_slots=8',
         '--config.eval.objectives=1,2')


def start(workdir, *arguments):
  command = [sys.executable, '-m', 'mem1_jax.main', 'quickstart', '--workdir', str(workdir)]
  return subprocess.Popen([*command, *SMALL, *arguments], stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1])
def test_a_killed_run_resumes_to_the_bits_of_an_undisturbed_one(tmp_path, seed):
  assert start(tmp_path / 'whole').wait(600) == 0
  rng = random.Random(seed)
  process, lines = start(tmp_path / 'killed'), rng.randint(1, 4)
  metrics = tmp_path / 'killed' / 'ppo' / 'metrics.jsonl'
  while not metrics.exists() or len(metrics.read_text().splitlines()) < lines:
    assert process.poll() is None
    time.sleep(0.1)
  time.sleep(rng.uniform(0, 2))  # somewhere in the step that follows, or in its checkpoint
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert start(tmp_path / 'killed', '--resume').wait(600) == 0
  whole, killed = ((tmp_path / name / 'ppo' / 'params' / 'model.safetensors').read_bytes()
                   for name in ('whole', 'killed'))
  assert whole == killed
