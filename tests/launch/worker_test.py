"""launch/worker.sh and launch/retriever.sh: restarts, SIGTERM, the search server; a stub Python."""

import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from tests.launch import stubs
from tests.launch.stubs import KILLED, ROOT, RUNNING, SAVED

TRAIN = '-m mem1_jax.main train --config.seed=1'


class Worker:
  """Runs the script on a run folder, with the steps that the stub Python is to take."""

  def __init__(self, tmp_path: pathlib.Path):
    self.workdir, self.log, self.plan = tmp_path / 'run', tmp_path / 'log', tmp_path / 'plan'
    self.python = tmp_path / 'python'
    stubs.put_python(self.python)

  def start(self, *steps: str, command: str = TRAIN, workdir='', **env: str) -> subprocess.Popen:
    self.plan.write_text(''.join(f'{step}\n' for step in steps))
    env = {'RESTART_DELAY_S': '0', 'LOG': str(self.log), 'PLAN': str(self.plan), **env}
    return subprocess.Popen(
        ['bash', ROOT / 'launch' / 'worker.sh', workdir or self.workdir, '--', self.python,
         *command.split()], env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True)  # fmt: skip

  def run(self, *steps: str, **more: str) -> tuple[int, str]:
    process = self.start(*steps, **more)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output

  def logged(self) -> list[str]:
    return self.log.read_text().splitlines() if self.log.exists() else []

  def await_line(self, line: str):
    until = time.monotonic() + 20
    while line not in self.logged():
      assert time.monotonic() < until, self.logged()
      time.sleep(0.02)

  def saving(self, step: int) -> str:
    return f'mkdir -p {self.workdir}/checkpoints/{step}; exit 75'


@pytest.fixture
def worker(tmp_path):
  return Worker(tmp_path)


def test_a_run_that_ends_well_is_done_and_not_run_again(worker):
  assert worker.run()[0] == 0
  assert worker.logged() == [TRAIN]
  status, output = worker.run()
  assert status == 0
  assert 'done already' in output
  assert worker.logged() == [TRAIN]
  longer = f'{TRAIN} --config.ppo.iterations=9'
  assert worker.run(command=longer)[0] == 0
  assert worker.logged() == [TRAIN, longer]


def test_what_was_saved_or_killed_is_started_again_with_resume(worker):
  status, output = worker.run(SAVED, KILLED)
  assert status == 0, output
  assert worker.logged() == [TRAIN, f'{TRAIN} --resume', f'{TRAIN} --resume']
  assert 'status 75; restart 1 of 5' in output
  assert 'status 137; restart 2 of 5' in output


@pytest.mark.parametrize('status', [1, 2])
def test_an_error_is_passed_on(worker, status):
  assert worker.run(f'exit {status}')[0] == status
  assert worker.logged() == [TRAIN]
  assert not (worker.workdir / 'done').exists()


def test_of_many_processes_another_may_have_died(worker):
  together = f'{TRAIN} --distributed'
  assert worker.run('exit 1', command=together)[0] == 0
  assert worker.logged() == [together, f'{together} --resume']
  assert worker.run('exit 1', JAX_NUM_PROCESSES='2', command=TRAIN)[0] == 0
  assert worker.run('exit 2', command=together + ' --config.sed=1')[0] == 2


def test_it_gives_up_without_a_new_checkpoint(worker):
  status, output = worker.run(SAVED, SAVED, SAVED, MAX_RESTARTS='2')
  assert status == 75
  assert len(worker.logged()) == 3
  assert '2 restarts without a new checkpoint: giving up' in output


def test_a_new_checkpoint_gives_it_all_its_restarts_again(worker):
  steps = [worker.saving(1), SAVED, worker.saving(2), SAVED, worker.saving(3)]
  assert worker.run(*steps, MAX_RESTARTS='2')[0] == 0
  assert len(worker.logged()) == 6
  half = f'mkdir -p {worker.workdir}/checkpoints/7.orbax-checkpoint-tmp; exit 75'
  assert worker.run(half, command=TRAIN + ' --again', MAX_RESTARTS='0')[0] == 75


def test_sigterm_is_passed_on_once_and_nothing_is_started_again(worker):
  process = worker.start(RUNNING)
  worker.await_line('ready')
  process.terminate()
  process.terminate()
  process.communicate(timeout=30)
  assert process.returncode == 75
  assert worker.logged() == [TRAIN, 'ready', 'TERM']


def test_ctrl_c_is_sigterm_to_the_command(worker):
  process = worker.start(RUNNING)
  worker.await_line('ready')
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 75
  assert worker.logged() == [TRAIN, 'ready', 'TERM']


def test_where_all_processes_are_signalled_it_only_waits(worker):
  process = worker.start(RUNNING.replace('ready', '$$'), FORWARD_TERM='0')
  until = time.monotonic() + 20
  while len(worker.logged()) < 2 and time.monotonic() < until:
    time.sleep(0.02)
  process.terminate()
  time.sleep(0.3)
  assert 'TERM' not in worker.logged()
  os.kill(int(worker.logged()[1]), signal.SIGTERM)
  process.communicate(timeout=30)
  assert process.returncode == 75


@pytest.mark.parametrize('name', ['RESUME', 'SLURM_RESTART_COUNT', 'JOBSET_RESTART_ATTEMPT'])
def test_a_worker_that_is_started_anew_resumes(worker, name):
  assert worker.run(SAVED, **{name: '1'})[0] == 0
  assert worker.logged() == [f'{TRAIN} --resume'] * 2


def test_evaluate_has_no_resume(worker):
  command = '-m mem1_jax.main evaluate'
  assert worker.run(SAVED, command=command, RESUME='1')[0] == 0
  assert worker.logged() == [command] * 2


def test_a_folder_of_a_bucket_is_read_and_written_by_python(worker, tmp_path):
  (tmp_path / 'etils').mkdir()
  (tmp_path / 'etils' / 'epath.py').write_text(
      f"import pathlib\nPath = lambda s: pathlib.Path(s.replace('gs://', '{tmp_path}/'))\n")
  (tmp_path / 'etils' / '__init__.py').touch()
  (tmp_path / 'bucket').mkdir()
  step = f'mkdir -p {tmp_path}/bucket/checkpoints/%d; exit 75'
  more = {'workdir': 'gs://bucket', 'PYTHONPATH': str(tmp_path), 'MAX_RESTARTS': '1'}
  assert worker.run(step % 1, step % 2, **more)[0] == 0
  assert len(worker.logged()) == 3
  assert TRAIN in (tmp_path / 'bucket' / 'done').read_text()
  assert 'done already' in worker.run(**more)[1]


def _free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def test_each_host_has_its_search_server_for_as_long_as_the_run(worker):
  port = _free_port()
  status, output = worker.run(
      SAVED, RETRIEVER='each', RETRIEVER_PORT=str(port), RETRIEVER_ARGS='--documents corpus.jsonl')
  assert status == 0, output
  url = f'--config.env.retriever=http://127.0.0.1:{port}'
  assert worker.logged() == [
      f'-m mem1_jax.main serve-retriever --port={port} --documents corpus.jsonl, on cpu',
      f'{TRAIN} {url}', f'{TRAIN} {url} --resume']
  until = time.monotonic() + 10
  while time.monotonic() < until:  # it has been told to end
    with socket.socket() as client:
      if client.connect_ex(('127.0.0.1', port)):
        return
    time.sleep(0.05)
  raise AssertionError('the server is still there')


def test_a_search_server_that_answers_already_is_used(worker):
  port = _free_port()
  server = subprocess.Popen(
      [worker.python, '-m', 'mem1_jax.main', 'serve-retriever', f'--port={port}'],
      env=os.environ | {'LOG': str(worker.log)})
  try:
    for retriever in ('each', f'http://127.0.0.1:{port}'):
      command = f'{TRAIN} --config.notes={len(retriever)}'
      status, output = worker.run(
          command=command, RETRIEVER=retriever, RETRIEVER_PORT=str(port), RETRIEVER_WAIT_S='20')
      assert status == 0, output
      assert worker.logged()[-1] == f'{command} --config.env.retriever=http://127.0.0.1:{port}'
  finally:
    server.kill()
    server.wait()


@pytest.mark.parametrize(('env', 'message'), [
    ({'RETRIEVER': 'http://127.0.0.1:9'}, 'no search server at http://127.0.0.1:9 after 0 s'),
    ({'RETRIEVER': 'all'}, 'RETRIEVER=all is neither none nor each nor a URL'),
    ({'RETRIEVER': 'each', 'RETRIEVER_PORT': '9', 'RETRIEVER_ARGS': '--refused',
      'RETRIEVER_WAIT_S': '20'}, 'the search server did not start')])  # fmt: skip
def test_a_run_does_not_start_without_its_search_server(worker, env, message):
  status, output = worker.run(**({'RETRIEVER_WAIT_S': '0'} | env))
  assert status == 1
  assert message in output
  assert TRAIN not in worker.logged()


def test_usage_and_dry_run(worker):
  done = subprocess.run(['bash', ROOT / 'launch' / 'worker.sh'], capture_output=True, text=True,
                        check=False)
  assert done.returncode == 2
  assert 'bash launch/worker.sh WORKDIR -- python' in done.stderr
  status, output = worker.run(DRY_RUN='1')
  assert (status, output) == (0, f'+ {worker.python} {TRAIN}\n')
  assert not worker.logged()
