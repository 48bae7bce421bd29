"""`main sweep`: what it says and refuses, and real training, interrupted and resumed."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mem1_jax import main
from mem1_jax.sweep import folder
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import load, named
from tests.sweep import made

SWEEP = '''
from mem1_jax.sweep.points import sweep
def get_sweep():
  return sweep('seed', [3, 4])
'''
TINY = ('--config=base', '--config.model.name=tiny', '--config.data.feed=numpy',
        '--config.rows.length=1024', '--config.sft.steps=4', '--config.sft.rows_per_step=2',
        '--config.sft.log_every=1', '--config.sft.checkpoint_every=4',
        '--config.log.tensorboard=False')


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(SWEEP)
  return str(path)


def call(*arguments):
  """The exit status."""
  with pytest.raises(SystemExit) as ended:
    main.run(['sweep', *map(str, arguments)])
  return ended.value.code


def test_list_prints_points_and_makes_nothing(file, tmp_path, capsys):
  assert call('--sweep', file, '--list', '--workdir', tmp_path / 'runs') == 0
  assert capsys.readouterr().out == '0 00-seed=3 --config.seed=3\n1 01-seed=4 --config.seed=4\n'
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('arguments, message', [
    (['--point', '2'], '--point=2 is none of the sweep, which has points 0 to 1'),
    (['--jobs', '0'], '--jobs=0 must be ≥ 1'),
    (['--command', 'tarin'], "--command='tarin'"),
    (['--config.seed=1'], '--config.seed is swept by'),
    (['--config.sede=1'], 'sede'),
    (['--sweep', 'learning_rat'], 'one of: layout, learning_rate, memory, objectives'),
    (['--sweep', ''], '--sweep is missing'),
    (['--report'], 'holds no sweep')])
def test_mistakes_are_found_before_anything_is_made(file, tmp_path, capsys, arguments, message):
  assert call('--sweep', file, '--workdir', tmp_path / 'runs', *arguments) == 2
  assert message in capsys.readouterr().err and not (tmp_path / 'runs').exists()


def test_a_knob_that_does_not_exist_is_told_with_the_file(tmp_path, capsys):
  path = tmp_path / 'typo.py'
  path.write_text(SWEEP.replace("'seed'", "'optim.policy_rl'"))
  assert call('--sweep', path, '--workdir', tmp_path / 'runs') == 2
  said = capsys.readouterr().err
  assert 'typo.py' in said and 'Did you mean "policy_lr"' in said and said.count('\n') == 1


def test_a_folder_is_continued_only_if_that_is_asked_and_only_with_its_sweep(
    file, tmp_path, capsys):
  points = load(file)
  common = ['--sweep', file, '--workdir', tmp_path / 'runs']
  made.define(tmp_path / 'runs', points, ('train',))
  made.write_point(tmp_path / 'runs', points[0])
  made.write_point(tmp_path / 'runs', points[1])
  assert call(*common) == 2
  assert 'continue it with --resume' in capsys.readouterr().err
  assert call(*common, '--config=base', '--resume') == 0  # all are done
  said = capsys.readouterr()
  assert '2 of 2 points are done already' in said.out and 'index.html' in said.out
  assert call(*common, '--config=base', '--resume', '--point', '1') == 0
  assert call(*common, '--config=base', '--resume', '--config.ppo.clip=0.3') == 2
  assert 'ppo.clip was 0.2, not 0.3' in capsys.readouterr().err


def test_failed_points_are_named_with_the_end_of_their_logs(tmp_path, capsys):
  file = tmp_path / 'one.py'
  file.write_text(SWEEP.replace('[3, 4]', '[3]'))
  wrong = ['--config=base', '--config.init=nowhere/at/all']
  assert call('--sweep', file, '--workdir', tmp_path / 'runs', '--command', 'evaluate', *wrong) == 1
  said = capsys.readouterr().err
  assert 'points 1/1' in said and '00-as-it-is failed with status 2; the end of' in said
  assert '    mem1 evaluate: ' in said and 'nowhere' in said
  assert '1 of 1 points failed (--resume tries them again): 00-as-it-is' in said


def test_two_points_are_trained(file, tmp_path, capsys):
  runs = tmp_path / 'runs'
  assert call('--sweep', file, '--workdir', runs, '--command', 'sft', *TINY) == 0
  said = json.loads((runs / 'sweep.json').read_text())['points']
  assert [point['state'] for point in said] == ['done', 'done']
  losses = [point['numbers']['loss_last']['mean'] for point in said]
  assert losses[0] != losses[1] and (runs / '00-seed=3' / 'sft' / 'params').is_dir()
  assert (runs / 'figures' / 'curves.png').exists() and 'mem1_jax.main sft' in (
      runs / '00-seed=3' / 'log.txt').read_text()


def test_one_point_speaks_here_and_its_status_is_the_command_s(file, tmp_path, capfd):
  common = ['--sweep', file, '--workdir', tmp_path, '--point', '1', '--resume',
            '--command', 'evaluate', '--config.init=nowhere']
  assert call(*common) == 1
  assert 'mem1 evaluate: ' in capfd.readouterr().err
  assert folder.status(tmp_path, load(file)[1]).state == 'failed'
  with folder.locked(tmp_path, load(file)[1]):
    assert call(*common) == 2
  assert 'is being run by another process' in capfd.readouterr().err


SMALL = ('--config.init=atlas/hasty', '--config.critic=head', '--config.ppo.iterations=4',
         '--config.ppo.tasks=8', '--config.ppo.num_rows=16', '--config.rollout.num_slots=8',
         '--config.checkpoint.every=1', '--config.eval.every=0', '--config.eval.tasks=8',
         '--config.eval.num_slots=8', '--config.eval.objectives=1,2')
GRID = '''
from mem1_jax.sweep.points import product, sweep
def get_sweep():
  return product(sweep('optim.policy_lr', [1e-4, 1e-3]), sweep('ppo.minibatches', [1, 2]))
'''


@pytest.mark.slow
def test_a_sweep_that_is_ended_after_two_points_goes_on_to_the_table(tmp_path):
  path, runs = tmp_path / 'grid.py', tmp_path / 'runs'
  path.write_text(GRID)
  command = [sys.executable, '-m', 'mem1_jax.main', 'sweep', '--sweep', str(path), '--workdir',
             str(runs), '--command', 'train then evaluate', *SMALL]
  points = named([{'optim.policy_lr': lr, 'ppo.minibatches': n}
                  for lr in (1e-4, 1e-3) for n in (1, 2)])
  third = folder_of(runs, points[2]) / 'train' / 'metrics.jsonl'
  root = pathlib.Path(__file__).parents[2]
  process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
  while not third.exists() or len(third.read_text().splitlines()) < 2:
    assert process.poll() is None
    time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 75
  assert f'interrupted (--resume continues them): {points[2].name}' in errors
  assert [folder.status(runs, point).state for point in points] == [
      'done', 'done', 'interrupted', 'waiting']
  before = [folder.status(runs, point) for point in points]
  subprocess.run([*command, '--resume'], cwd=root, check=True)
  after = [folder.status(runs, point) for point in points]
  assert all(status.state == 'done' for status in after) and after[:2] == before[:2]
  starts = json.loads((third.parent / 'run.json').read_text())['starts']
  assert len(starts) == 2 and len(third.read_text().splitlines()) == 4
  said = json.loads((runs / 'sweep.json').read_text())
  assert said['final_is'] == 'EM per question' and all(p['final'] for p in said['points'])
  assert {file.stem for file in (runs / 'figures').iterdir()} == {
      'curves', 'by_policy_lr', 'by_minibatches', 'policy_lr_by_minibatches'}
