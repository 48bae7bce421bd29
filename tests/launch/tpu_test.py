"""launch/tpu on a stub of Google Cloud whose hosts are folders: tmux and the workers are real."""

import shutil
import subprocess
import time

import pytest

from tests.launch import stubs
from tests.launch.stubs import KILLED, RUNNING, SAVED

needs_tmux = pytest.mark.skipif(not shutil.which('tmux'), reason='tmux is not installed')
QUEUE, SSH = 'compute tpus queued-resources', 'compute tpus tpu-vm ssh mem1 --worker=all'
TRAIN = ('train', '--config=qwen2p5_7b_2obj')
DELETE = f'{QUEUE} delete mem1 --zone=us-central2-b --force --quiet'
CREATE = (f'{QUEUE} create mem1 --node-id=mem1 --zone=us-central2-b --accelerator-type=v5p-64 '
          '--runtime-version=v2-alpha-tpuv5')  # fmt: skip


@pytest.fixture
def cloud():
  made = stubs.Cloud()
  yield made
  made.close()


@pytest.fixture
def pod(cloud):
  """A cloud whose TPU is there and set up."""
  cloud.plan()
  cloud.set(states='ACTIVE')
  done = cloud.run('tpu/setup.sh', 'pod')
  assert done.returncode == 0, done.stderr
  return cloud


def verbs(cloud) -> list[str]:
  """What was asked of gcloud, in short, looks at the queue aside."""
  short = [' '.join(line.split()[2:4]) for line in cloud.logged()]
  return [line for line in short if line != 'queued-resources describe']


def await_states(cloud, *wanted: str) -> list[str]:
  """The lines of status.sh, once the hosts are in these states, in order."""
  until = time.monotonic() + 30
  while True:
    done = cloud.run('tpu/status.sh', 'pod')
    lines = done.stdout.splitlines()[1:]
    if [line.split(' | ')[0].split(' ', 1)[1] for line in lines] == list(wanted):
      return lines
    assert time.monotonic() < until, done.stdout + done.stderr
    time.sleep(0.1)


# ── create, delete ──


def test_create_asks_once_and_waits_until_it_is_there(cloud):
  cloud.set(after_create='CREATING WAITING_FOR_RESOURCES PROVISIONING ACTIVE')
  done = cloud.run('tpu/create.sh', 'pod')
  assert done.returncode == 0, done.stderr
  assert [line for line in cloud.logged() if ' create ' in line] == [f'{CREATE} --spot']
  for state in ('NONE', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'):
    assert f'mem1: {state}, after 0 min' in done.stderr
  assert cloud.run('tpu/create.sh', 'pod').returncode == 0
  assert verbs(cloud).count('queued-resources create') == 1


@pytest.mark.parametrize(('capacity', 'flag'), [('on-demand', ''), ('reserved', ' --reserved')])
def test_create_on_demand_and_in_a_project(cloud, capacity, flag):
  done = cloud.run('tpu/create.sh', 'pod', TPU_CAPACITY=capacity, PROJECT='mine')
  assert done.returncode == 0, done.stderr
  assert CREATE.replace('-b --acc', '-b --project=mine --acc') + flag in cloud.logged()


@pytest.mark.parametrize(('state', 'said'), [('FAILED', 'mem1 failed earlier'),
                                             ('SUSPENDED', 'mem1 was taken away'),
                                             ('SUSPENDING SUSPENDED', 'mem1 was taken away')])
def test_what_failed_or_was_taken_away_is_made_anew(cloud, state, said):
  cloud.set(states=state)
  done = cloud.run('tpu/create.sh', 'pod')
  assert done.returncode == 0, done.stderr
  assert said in done.stderr
  assert verbs(cloud) == ['queued-resources delete', 'queued-resources create']
  assert DELETE in cloud.logged()


def test_a_request_that_fails_now_is_an_error(cloud):
  cloud.set(after_create='CREATING FAILED')
  done = cloud.run('tpu/create.sh', 'pod')
  assert done.returncode == 1
  assert 'the request failed, see above' in done.stderr
  assert verbs(cloud) == ['queued-resources create']


def test_who_may_not_look_is_told_and_nothing_is_made(cloud):
  cloud.set(states='DENIED')
  done = cloud.run('tpu/create.sh', 'pod')
  assert done.returncode == 1
  assert 'PERMISSION_DENIED' in done.stderr
  assert not verbs(cloud)
  assert 'neither spot nor' in cloud.run('tpu/create.sh', 'pod', TPU_CAPACITY='cheap').stderr


@pytest.mark.parametrize(('typed', 'is_deleted'), [('mem1\n', True), ('y\n', False), ('', False)])
def test_delete_asks_for_the_name(cloud, typed, is_deleted):
  cloud.set(states='ACTIVE')
  done = cloud.run('tpu/delete.sh', 'pod', stdin=typed)
  assert done.returncode == (0 if is_deleted else 1)
  assert 'delete mem1 (ACTIVE, us-central2-b) with its disks? Type mem1:' in done.stderr
  assert (DELETE in cloud.logged()) == is_deleted


def test_delete_with_yes_does_not_ask_and_knows_what_is_gone(cloud):
  cloud.set(states='ACTIVE')
  assert cloud.run('tpu/delete.sh', 'pod', '--yes').returncode == 0
  assert cloud.logged()[-1] == DELETE
  done = cloud.run('tpu/delete.sh', 'pod', '--yes')
  assert (done.returncode, 'there is no mem1' in done.stderr) == (0, True)
  assert cloud.logged().count(DELETE) == 1


# ── setup ──


@needs_tmux
def test_setup_copies_the_commit_and_installs_the_locked_versions_once(cloud):
  cloud.plan()
  cloud.set(states='ACTIVE')
  done = cloud.run('tpu/setup.sh', 'pod')
  assert done.returncode == 0, done.stderr
  assert verbs(cloud) == ['tpu-vm ssh', 'tpu-vm scp', 'tpu-vm ssh', 'tpu-vm ssh']
  for i, host in enumerate(cloud.hosts):
    assert (host / 'mem1-state' / 'commit').read_text().strip() == cloud.head()
    venv, pinned, package = cloud.logged(i)
    assert venv == f'venv {host}/mem1-venv'
    assert pinned.endswith('-r launch/requirements-tpu-py312.txt')
    assert package.endswith('--no-deps -e .')
  assert cloud.run('tpu/setup.sh', 'pod').returncode == 0
  assert verbs(cloud)[4:] == ['tpu-vm ssh', 'tpu-vm ssh']
  assert len(cloud.logged(0)) == 3  # nothing was installed again


@needs_tmux
def test_another_commit_replaces_files_and_keeps_runs(pod):
  (pod.hosts[0] / 'mem1' / 'runs').mkdir()
  (pod.checkout / 'launch' / 'pin.sh').unlink()
  (pod.checkout / 'new.txt').touch()
  done = pod.run('tpu/setup.sh', 'pod')
  assert 'changes that are not committed stay here' in done.stderr
  assert 'all hosts have' in done.stderr
  pod.commit()
  assert pod.run('tpu/setup.sh', 'pod').returncode == 0
  there = pod.hosts[0] / 'mem1'
  assert (there / 'new.txt').is_file()
  assert (there / 'runs').is_dir()
  assert not (there / 'launch' / 'pin.sh').exists()


@needs_tmux
def test_hosts_may_clone_instead(cloud):
  cloud.plan()
  cloud.set(states='ACTIVE')
  for _ in range(2):
    done = cloud.run('tpu/setup.sh', 'pod', REPO=str(cloud.checkout))
    assert done.returncode == 0, done.stderr
  assert 'tpu-vm scp' not in verbs(cloud)
  assert (cloud.hosts[1] / 'mem1' / '.git').is_dir()
  unknown = cloud.run('tpu/setup.sh', 'pod', COMMIT='v9')
  assert 'COMMIT=v9 is not a commit' in unknown.stderr


def test_setup_of_a_pod_that_is_not_there(cloud):
  done = cloud.run('tpu/setup.sh', 'pod')
  assert done.returncode == 1
  assert 'no answer from the hosts of mem1' in done.stderr


# ── run, status, logs, stop, fetch ──


@needs_tmux
def test_a_run_is_started_on_all_hosts_and_goes_on_by_itself(pod):
  pod.plan(SAVED, RUNNING)
  done = pod.run('tpu/run.sh', *TRAIN, RETRIEVER_ARGS="--title='a b'")
  assert done.returncode == 0, done.stderr
  await_states(pod, 'running', 'running')
  main = f'-m mem1_jax.main train --distributed --workdir={pod.path}/run {TRAIN[1]}'
  until = time.monotonic() + 20
  while 'ready' not in pod.logged(1) or 'ready' not in pod.logged(0):
    assert time.monotonic() < until
    time.sleep(0.05)
  for host in (0, 1):
    assert pod.starts(host) == [main, f'{main} --resume']
  second = pod.run('tpu/run.sh', *TRAIN)
  assert second.returncode == 1
  assert 'a run is under way' in second.stderr
  assert len(pod.starts(0)) == 2
  shown = pod.run('tpu/logs.sh', '1').stdout
  assert '=== 2' in shown and 'restart 1 of 5' in shown
  assert pod.run('tpu/stop.sh', 'pod').returncode == 0
  lines = await_states(pod, 'ended 75', 'ended 75')
  assert lines[1].startswith('host-1 ended 75 | [mem1] stopping')
  assert pod.logged(0)[-1] == 'TERM'


@needs_tmux
def test_a_run_ends_and_its_results_are_fetched(pod):
  (pod.path / 'run').mkdir()
  (pod.path / 'run' / 'metrics.jsonl').touch()
  assert pod.run('tpu/run.sh', *TRAIN).returncode == 0
  await_states(pod, 'done', 'done')
  folder = pod.path / 'fetched'
  done = pod.run('tpu/fetch.sh', str(folder))
  assert done.returncode == 0, done.stderr
  assert (folder / 'run' / 'metrics.jsonl').is_file()
  assert 'done:' in (folder / 'logs' / '1.log').read_text()
  bucket = pod.run('tpu/fetch.sh', 'here', DRY_RUN='1', WORKDIR='gs://b/runs/ppo')
  assert '+ gcloud storage rsync --recursive gs://b/runs/ppo here/run' in bucket.stdout


@needs_tmux
def test_variables_of_the_hosts_come_to_the_run(pod):
  for host in pod.hosts:
    (host / 'mem1.env').write_text('HF_TOKEN="a b"\n')
  pod.plan('echo "token $HF_TOKEN, commit $MEM1_COMMIT" >> "$LOG"')
  assert pod.run('tpu/run.sh', *TRAIN).returncode == 0
  await_states(pod, 'done', 'done')
  assert pod.logged(1)[-1] == f'token a b, commit {pod.head()}'


@needs_tmux
def test_a_folder_of_each_host_is_refused_on_many(pod):
  done = pod.run('tpu/run.sh', *TRAIN, WORKDIR='runs/ppo')
  assert done.returncode == 1
  assert 'would be another folder on each host; set BUCKET' in done.stderr
  assert not pod.starts(0)


@pytest.mark.parametrize(('args', 'message'), [
    (('tasks',), 'tasks is not what a pod can run'),
    (('train', '--workdir=runs/x'), 'the run folder is WORKDIR of launch/env.sh')])
def test_what_a_pod_cannot_run_is_refused(cloud, args, message):
  for script in ('run', 'watch'):
    done = cloud.run(f'tpu/{script}.sh', *args)
    assert (done.returncode, message in done.stderr) == (1, True)


# ── watch ──


def watch(cloud, *args, **env) -> subprocess.Popen:
  return subprocess.Popen(['bash', 'launch/tpu/watch.sh', *args], cwd=cloud.checkout, text=True,
                          env=cloud.environment(**env), stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL)  # fmt: skip


def finish(process, status=0) -> str:
  _, errors = process.communicate(timeout=60)
  assert process.returncode == status, errors
  return errors


@needs_tmux
def test_watch_brings_a_run_back_after_the_tpu_was_taken_away(cloud):
  cloud.plan(RUNNING)
  process = watch(cloud, *TRAIN)
  try:
    until = time.monotonic() + 40
    while not all('ready' in cloud.logged(host) for host in (0, 1)):
      assert time.monotonic() < until
      time.sleep(0.05)
    for host in cloud.hosts:
      subprocess.run(['tmux', '-L', 'mem1', 'kill-server'], check=True,
                     env=cloud.environment(TMUX_TMPDIR=str(host)))
    cloud.set(states='SUSPENDED')
  finally:
    errors = finish(process)
  assert verbs(cloud).count('queued-resources create') == 2
  assert verbs(cloud).count('queued-resources delete') == 1
  main = f'-m mem1_jax.main train --distributed --workdir={cloud.path}/run {TRAIN[1]} --resume'
  assert cloud.starts(0) == cloud.starts(1) == [main]  # of the second TPU; its disks are new
  assert 'was taken away' in errors
  assert 'mem1 still costs' in errors


@needs_tmux
def test_watch_starts_a_host_again_that_was_cut_off(pod):
  pod.plan(RUNNING, hosts=pod.hosts[:1])
  pod.plan('tmux -L mem1 kill-server; sleep 9', hosts=pod.hosts[1:])
  process = watch(pod, *TRAIN)
  try:
    until = time.monotonic() + 40
    while len(pod.starts(1)) < 2:
      assert time.monotonic() < until
      time.sleep(0.05)
    assert len(pod.starts(0)) == 1  # it was running
    pid = int((pod.hosts[0] / 'mem1-state' / 'pid').read_text())
    subprocess.run(['pkill', '-KILL', '-P', str(pid)], check=True)  # the command: started again
  finally:
    errors = finish(process)
  assert 'not all hosts run; starting with --resume' in errors
  assert len(pod.starts(0)) == 2


@needs_tmux
def test_watch_stops_at_an_error_of_the_run(cloud):
  cloud.plan('exit 2')
  errors = finish(watch(cloud, *TRAIN), status=1)
  assert 'the run ended with an error' in errors
  assert 'host-1 ended 2' in errors
  assert verbs(cloud).count('queued-resources create') == 1


@needs_tmux
def test_watch_deletes_in_the_end_if_asked_to(cloud):
  stubs.put(cloud.bin / 'python3.12', (cloud.bin / 'python3.12').read_text().replace(
      '"- "*) exec', '"- "*gs://*) ;;\n  "- "*) exec'))  # no bucket is asked
  errors = finish(watch(cloud, *TRAIN, WORKDIR='gs://bucket/run', DELETE_WHEN_DONE='1'))
  assert 'mem1 is deleted' in errors
  assert cloud.logged()[-1] == DELETE


@needs_tmux
def test_a_killed_run_stays_alive_on_its_host(pod):
  pod.plan(KILLED)
  assert pod.run('tpu/run.sh', *TRAIN).returncode == 0
  await_states(pod, 'done', 'done')
  assert len(pod.starts(0)) == 2


# ── what is printed ──


def test_dry_run_prints_the_commands_and_asks_nobody(cloud):
  archive = f'/tmp/mem1-{cloud.head()[:10]}.tar.gz'
  zone = '--zone=us-central2-b --quiet'
  host = r'cd\ mem1\ \&\&\ WORKDIR=gs://b/runs/ppo'
  for script, args, printed in (
      ('create', ('pod',), [f'+ gcloud {CREATE} --spot']),
      ('setup', ('pod',), [
          f'+ git archive --format=tar.gz --output={archive} ',
          f'+ gcloud compute tpus tpu-vm scp {archive} mem1:mem1.tar.gz --worker=all {zone}',
          f'+ rm -f {archive}', f'+ gcloud {SSH} {zone} --command=set\\ -e\\;\\ mkdir',
          f'+ gcloud {SSH} {zone} --command={host}']),
      ('run', TRAIN, [f'+ gcloud {SSH} {zone} --command={host}'] * 2),
      ('status', ('pod',), [f'+ gcloud {QUEUE} describe mem1 --zone=us-central2-b --format=',
                            f'+ gcloud {SSH} {zone} --command={host}']),
      ('logs', ('0', '-f'), [f'+ gcloud {SSH.replace("all", "0")} {zone} --command={host}']),
      ('stop', ('pod',), [f'+ gcloud {SSH} {zone} --command={host}']),
      ('delete', ('pod',), [f'+ gcloud {DELETE}'])):
    done = cloud.run(
        f'tpu/{script}.sh', *args, DRY_RUN='1', WORKDIR='gs://b/runs/ppo', TMPDIR='/tmp')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(printed), done.stdout
    for line, start in zip(lines, printed):
      assert line.startswith(start), line
  watched = cloud.run('tpu/watch.sh', *TRAIN, DRY_RUN='1').stdout
  assert all(part in watched for part in (CREATE, 'git archive', 'host.sh\\ ensure\\ train'))
  assert not cloud.logged()


@pytest.mark.parametrize('script', ['create', 'setup', 'run', 'status', 'logs', 'stop', 'watch',
                                    'fetch', 'delete', 'host'])
def test_without_arguments_the_usage_is_shown(cloud, script):
  done = cloud.run(f'tpu/{script}.sh')
  assert done.returncode == 2
  assert f'bash launch/tpu/{script}.sh' in done.stderr
  assert not cloud.logged()
