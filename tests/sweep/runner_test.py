"""The runner with small processes in place of training: order, failures, signals, what is kept."""

import ast
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mem1_jax.sweep import folder, runner
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import named, sweep
from mem1_jax.sweep.runner import Stage

POINTS = named(sweep('seed', range(4)))
# Saves upon SIGTERM, as `main train` does.
SAVES = ('import os, pathlib, signal, sys, time\n'
         'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n'
         'pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n'
         'time.sleep(60)\n')


def script(text, *arguments, name='train'):
  return Stage(name, (sys.executable, '-c', text, *map(str, arguments)))


def states(workdir):
  return [folder.status(workdir, point).state for point in POINTS]


@pytest.mark.parametrize('text', ['train', 'sft then train', 'sft then train then evaluate'])
def test_commands_are_parsed(text):
  assert ' then '.join(runner.parse(text)) == text


@pytest.mark.parametrize('text', ['', 'trian', 'train then', 'evaluate then train',
                                  'train then train', 'train,evaluate'])
def test_wrong_commands_are_refused(text):
  with pytest.raises(ValueError, match=f"--command='{text}'"):
    runner.parse(text)


def test_each_command_begins_with_what_the_one_before_has_made(tmp_path):
  made = runner.stages(('sft', 'train', 'evaluate'), tmp_path, 'atlas', ['--config.init=a'])
  commands = [stage.command[3:] for stage in made]
  assert [command[0] for command in commands] == ['sft', 'train', 'export', 'evaluate']
  assert [command[-1] for command in commands] == [
      '--config.init=a', *[f'--config.init={tmp_path}/sft/params'] * 2,
      f'--config.init={tmp_path}/params']
  assert all(('--resume' in command) == (command[0] in ('sft', 'train')) for command in commands)
  assert commands[2][1:3] == (f'--workdir={tmp_path}/train', f'--out={tmp_path}/params')
  alone, = runner.stages(('train',), tmp_path, 'atlas', [])
  assert alone.command == (sys.executable, '-m', 'mem1_jax.main', 'train',
                           f'--workdir={tmp_path}/train', '--resume', '--config=atlas')


def test_cores_and_gpus_are_dealt_out(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {4, 5, 6}, raising=False)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2,3')
  assert [runner.share(i, 2) for i in range(2)] == [
      ({4, 6}, {'CUDA_VISIBLE_DEVICES': '0,1'}), ({5}, {'CUDA_VISIBLE_DEVICES': '2,3'})]
  assert runner.share(0, 1) == (set(), {}) and runner.share(0, 8) == (set(), {})


def test_points_run_side_by_side_and_in_order(tmp_path):
  changes = []
  text = 'import sys, time; print("hello", sys.argv[1]); time.sleep(0.3)'
  ended = runner.run(tmp_path, POINTS, lambda point: [script(text, point.index)], 2,
                     on_change=lambda running, done: changes.append((len(running), done)))
  assert [ended[i].state for i in range(4)] == ['done'] * 4
  assert max(count for count, _ in changes) == 2
  assert sorted(done.index for _, done in changes if done) == [0, 1, 2, 3]
  log = (folder_of(tmp_path, POINTS[3]) / folder.LOG).read_text()
  assert log.startswith('$ ') and log.endswith('hello 3\n')
  assert folder.status(tmp_path, POINTS[0]).seconds >= 0.3


def test_a_failure_ends_no_other_point_and_no_later_stage_is_run(tmp_path):
  def stages(point):
    return [script(f'import sys; sys.exit({3 * (point.index == 1)})'),
            script(f'open("{tmp_path}/{point.index}", "w")', name='evaluate')]

  ended = runner.run(tmp_path, POINTS, stages, 2)
  assert states(tmp_path) == ['done', 'failed', 'done', 'done']
  assert ended[1].exit_status == 3 and ended[1].stages == ()
  assert not (tmp_path / '1').exists() and (tmp_path / '3').exists()


def test_stages_that_are_done_are_not_run_again(tmp_path):
  flag = tmp_path / 'flag'
  stages = [script(f'open("{tmp_path}/count", "a").write("x")'),
            script(f'import os, sys; sys.exit(not os.path.exists("{flag}"))', name='evaluate')]
  runner.run(tmp_path, POINTS[:1], lambda point: stages, 1)
  assert states(tmp_path)[0] == 'failed'
  flag.touch()
  again = runner.run(tmp_path, POINTS[:1], lambda point: stages, 1)[0]
  assert again.state == 'done' and again.stages == ('train', 'evaluate') and again.starts == 2
  assert (tmp_path / 'count').read_text() == 'x'


def test_what_a_killed_stage_left_half_made_is_deleted(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'half').touch()
  stage = Stage('export', (sys.executable, '-c', f'import os; os.mkdir("{out}")'), out)
  assert runner.run(tmp_path, POINTS[:1], lambda point: [stage], 1)[0].state == 'done'
  assert not list(out.iterdir())


@pytest.mark.parametrize('text, state', [
    ('import sys; sys.exit(75)', 'interrupted'),
    ('import os, signal; os.kill(os.getpid(), signal.SIGTERM)', 'interrupted'),
    ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 'failed')])
def test_a_run_that_has_saved_its_state_has_not_failed(tmp_path, text, state):
  assert runner.run(tmp_path, POINTS[:1], lambda point: [script(text)], 1)[0].state == state


def test_a_point_that_another_process_runs_is_left_to_it(tmp_path):
  with folder.locked(tmp_path, POINTS[0]):
    ended = runner.run(tmp_path, POINTS[:2], lambda point: [script('')], 2)
  assert list(ended) == [1] and not folder.status(tmp_path, POINTS[0]).starts


# A sweep of its own process, since signals are a process's.
SWEEP = '''
import pathlib, sys
from mem1_jax.sweep import runner
from tests.sweep.runner_test import POINTS, script
workdir, text = pathlib.Path(sys.argv[1]), sys.argv[2]
ended = runner.run(
    workdir, POINTS, lambda point: [script(text, workdir / f"begun-{point.index}")], 2)
print({i: (status.state, status.exit_status) for i, status in ended.items()})
'''


def begin(tmp_path, text):
  process = subprocess.Popen([sys.executable, '-c', SWEEP, str(tmp_path), text],
                             cwd=pathlib.Path(__file__).parents[2], stdout=subprocess.PIPE,
                             text=True)
  wait_for(lambda: len(list(tmp_path.glob('begun-*'))) == 2, process)
  return process


def wait_for(condition, process):
  for _ in range(600):
    if condition():
      return
    assert process.poll() is None
    time.sleep(0.1)
  raise AssertionError('it takes more than a minute')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_more_is_begun(tmp_path, number):
  process = begin(tmp_path, SAVES)
  process.send_signal(number)
  out, _ = process.communicate(timeout=60)
  assert ast.literal_eval(out) == {0: ('interrupted', 75), 1: ('interrupted', 75)}
  assert states(tmp_path) == ['interrupted', 'interrupted', 'waiting', 'waiting']


def test_a_second_signal_kills_what_does_not_end(tmp_path):
  process = begin(tmp_path, SAVES.replace('lambda *_: sys.exit(75)', 'signal.SIG_IGN'))
  process.terminate()
  time.sleep(0.5)
  assert process.poll() is None
  process.terminate()
  out, _ = process.communicate(timeout=60)
  assert ast.literal_eval(out) == {0: ('interrupted', -9), 1: ('interrupted', -9)}


def test_what_a_killed_sweep_leaves_running_is_not_started_again(tmp_path):
  process = begin(tmp_path, SAVES)
  begun = list(tmp_path.glob('begun-*'))
  wait_for(lambda: all(file.read_text() for file in begun), process)
  process.kill()
  process.communicate()
  assert states(tmp_path)[:2] == ['running', 'running']
  assert not runner.run(tmp_path, POINTS[:1], lambda point: [script('')], 1)
  for file in begun:
    os.kill(int(file.read_text()), signal.SIGKILL)
