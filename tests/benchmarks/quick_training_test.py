"""The benchmark of quick training reads what runs came to."""

import json

import pytest

from benchmarks import quick_training
from mem1_jax import configs


def write_run(folder, rewards, starts=1):
  folder.mkdir()
  with (folder / 'metrics.jsonl').open('w') as file:
    for i, reward in enumerate(rewards):
      print(json.dumps({'step': i + 1, 'time': 1000.0 + 60 * i, 'reward': reward,
                        'reward_error': 0.05, 'seconds': 60.0}), file=file)
  start = {'time': '1970-01-01T00:15:40+00:00', 'commit': 'abc', 'versions': {}, 'machine': {}}
  (folder / 'run.json').write_text(json.dumps({'seed': 0, 'starts': [start] * starts}))


@pytest.mark.parametrize('last, is_apart', [(1.0, True), (0.6, False)])
def test_a_run_is_measured(tmp_path, last, is_apart):
  write_run(tmp_path / 'a', [0.5] * 6 + [last] * 2)
  found = quick_training.measured('webshop:8', tmp_path / 'a')
  assert (found['reward_first'], found['reward_last']) == (0.5, last)
  assert found['is_apart'] is is_apart
  assert found['minutes'] == pytest.approx(1 + 7)  # begun a minute before the first metrics
  assert found['command'] == 'main train --config=webshop --config.ppo.iterations=8'


def test_a_run_that_was_cut_off_is_an_error(tmp_path):
  write_run(tmp_path / 'a', [0.5] * 7)
  with pytest.raises(ValueError, match='has 7 iterations of 8'):
    quick_training.measured('web:8', tmp_path / 'a')
  write_run(tmp_path / 'b', [0.5] * configs.load('webshop', []).ppo.iterations, starts=2)
  with pytest.raises(ValueError, match='begun 2 times'):
    quick_training.measured('webshop', tmp_path / 'b')


def test_what_is_there_is_not_run_again(tmp_path, monkeypatch):
  write_run(tmp_path / 'web', [0.5] * 8)
  commands = []
  monkeypatch.setattr(quick_training.subprocess, 'run',
                      lambda command, **_: commands.append(command))
  quick_training.train('web:8', tmp_path / 'web')
  assert not commands
  quick_training.train('web:8', tmp_path / 'another')
  assert '--config=web' in commands[0] and '--config.ppo.iterations=8' in commands[0]
