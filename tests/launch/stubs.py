"""Programs that stand in for real ones on PATH: a Python, and Google Cloud with TPU hosts.

The hosts are folders here: what is sent to them by ssh runs, with that folder as its home.
"""

import atexit
import functools
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Answers the version question, makes a copy of itself as an environment, logs the rest.
PYTHON = """#!/bin/bash
case "$*" in
  *version_info*) echo {version} ;;
  *importlib.metadata*) echo 'libtpu==1.*' ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv $3" >> "$LOG" ;;
  "- "*) exec {real} "$@" ;;
  *"pip install"*)
    echo "Collecting jax==1"; echo "Installing collected packages: jax"
    echo "$*" >> "$LOG"; exit {pip_status} ;;
  *"main serve-retriever"*)
    echo "$*, on $JAX_PLATFORMS" >> "$LOG"
    case "$*" in *refused*) exit 2 ;; esac
    exec {real} -m http.server --bind 127.0.0.1 "$(sed 's/.*--port=\\([0-9]*\\).*/\\1/' <<< "$*")" \
      2>/dev/null ;;
  *main*)
    echo "$*" >> "$LOG"
    # Each start takes the next line of the plan, commands of bash; without one it ends well.
    read -r step < "$PLAN"
    sed -i 1d "$PLAN"
    eval "$step" ;;
  *) echo "$*" >> "$LOG" ;;
esac
"""
# Steps of a plan.
SAVED = 'exit 75'
KILLED = 'kill -9 $$'
RUNNING = ('trap \'echo TERM >> "$LOG"; exit 75\' TERM; echo ready >> "$LOG"; '
           'while true; do sleep 0.05; done')

GCLOUD = """#!{python} -IS
import os, pathlib, shlex, shutil, subprocess, sys
cloud, args = pathlib.Path(os.environ['CLOUD']), sys.argv[1:]
flags = dict(a.partition('=')[::2] for a in args if a.startswith('--'))
names = [a for a in args if not a.startswith('--')]
with open(cloud / 'log', 'a') as file:
  file.write(shlex.join(args) + '\\n')
states = (cloud / 'states').read_text().split()

def now(*states):
  (cloud / 'states').write_text(' '.join(states))

def hosts():
  if states != ['ACTIVE']:
    sys.exit('ERROR: (gcloud.compute.tpus.tpu-vm.ssh) there is no TPU')
  all_hosts = sorted(cloud.glob('host-*'))
  return all_hosts if flags['--worker'] == 'all' else [all_hosts[int(flags['--worker'])]]

def environment(host):
  return os.environ | {{'HOME': str(host), 'TMUX_TMPDIR': str(host), 'PLAN': str(host / 'plan'),
                       'LOG': str(host / 'log')}}

match names[2:4]:
  case ['queued-resources', 'describe']:
    if len(states) > 1:
      now(*states[1:])
    if states[0] == 'NONE':
      sys.exit('ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: not here')
    if states[0] == 'DENIED':
      sys.exit('ERROR: PERMISSION_DENIED: no access')
    print(states[0])
  case ['queued-resources', 'create']:
    now(*(cloud / 'after_create').read_text().split())
    for i in range(int((cloud / 'num_hosts').read_text())):
      (cloud / f'host-{{i}}').mkdir(exist_ok=True)
      (cloud / f'host-{{i}}' / 'plan').touch()
  case ['queued-resources', 'delete']:
    now('NONE')
    for host in cloud.glob('host-*'):
      subprocess.run(['tmux', '-L', 'mem1', 'kill-server'], env=environment(host),
                     stderr=subprocess.DEVNULL)
      shutil.rmtree(host)
  case ['tpu-vm', 'ssh']:
    sys.exit(max(subprocess.run(['bash', '-c', flags['--command']], cwd=host,
                                env=environment(host)).returncode for host in hosts()))
  case ['tpu-vm', 'scp']:
    for host in hosts():
      source, target = (pathlib.Path(host, n.partition(':')[2]) if ':' in n else pathlib.Path(n)
                        for n in names[4:])
      for path in source.parent.glob(source.name):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, target / path.name if target.is_dir() else target)
"""


def put(path: pathlib.Path, text: str) -> None:
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


def put_python(path: pathlib.Path, version: str = '3.12', pip_status: int = 0) -> None:
  put(path, PYTHON.format(version=version, real=sys.executable, pip_status=pip_status))


def copy_checkout(folder: pathlib.Path) -> pathlib.Path:
  """What the scripts read, at `folder`."""
  shutil.copytree(ROOT / 'launch', folder / 'launch')
  shutil.copytree(ROOT / '.ci', folder / '.ci')
  for name in ('setup.py', 'pyproject.toml'):
    shutil.copy(ROOT / name, folder / name)
  return folder


def git(folder: pathlib.Path, *args: str) -> str:
  return subprocess.run(['git', '-c', 'user.name=A', '-c', 'user.email=a@b', *args], cwd=folder,
                        check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def _committed() -> pathlib.Path:
  """A checkout with one commit, made once."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='mem1-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  copy_checkout(folder / 'checkout')
  git(folder / 'checkout', 'init', '-q')
  git(folder / 'checkout', 'add', '-A')
  git(folder / 'checkout', 'commit', '-q', '-m', 'all')
  return folder / 'checkout'


class Cloud:
  """Google Cloud with a TPU of `num_hosts`; `run` runs scripts of a committed checkout on it."""

  def __init__(self, num_hosts: int = 2):
    # Not pytest's folder: the path of a socket must be short.
    self.path = pathlib.Path(tempfile.mkdtemp(prefix='mem1-'))
    self.checkout, self.bin = self.path / 'checkout', self.path / 'bin'
    shutil.copytree(_committed(), self.checkout)
    self.bin.mkdir()
    self.log, self.hosts = self.path / 'log', [self.path / f'host-{i}' for i in range(num_hosts)]
    put(self.bin / 'gcloud', GCLOUD.format(python=sys.executable))
    put(self.bin / 'hostname', '#!/bin/bash\nbasename "$HOME"\n')
    put_python(self.bin / 'python3.12')
    self.set(states='NONE', after_create='ACTIVE', num_hosts=str(num_hosts))

  def set(self, **files: str):
    for name, text in files.items():
      (self.path / name).write_text(text)

  def plan(self, *steps: str, hosts=None):
    for host in hosts or self.hosts:
      host.mkdir(exist_ok=True)
      (host / 'plan').write_text(''.join(f'{step}\n' for step in steps))

  def commit(self) -> str:
    git(self.checkout, 'add', '-A')
    git(self.checkout, 'commit', '-q', '-m', 'all')
    return self.head()

  def head(self) -> str:
    return git(self.checkout, 'rev-parse', 'HEAD')

  def environment(self, **env: str) -> dict[str, str]:
    return {'PATH': f'{self.bin}:{os.environ["PATH"]}', 'CLOUD': str(self.path),
            'HOME': str(self.path), 'POLL_S': '0.05', 'RESTART_DELAY_S': '0',
            'BUCKET': '', 'WORKDIR': str(self.path / 'run'), **env}

  def run(self, script: str, *args: str, stdin: str = '', **env: str):
    return subprocess.run(
        ['bash', f'launch/{script}', *args], cwd=self.checkout, capture_output=True, text=True,
        input=stdin, env=self.environment(**env), check=False, timeout=60)

  def logged(self, host: int | None = None) -> list[str]:
    path = self.log if host is None else self.hosts[host] / 'log'
    return path.read_text().splitlines() if path.exists() else []

  def starts(self, host: int) -> list[str]:
    """What main was started with on that host."""
    return [line for line in self.logged(host) if 'mem1_jax.main' in line]

  def close(self):
    for host in self.path.glob('host-*'):
      subprocess.run(['tmux', '-L', 'mem1', 'kill-server'], check=False, capture_output=True,
                     env=os.environ | {'TMUX_TMPDIR': str(host)})
    # Workers of a TPU that was taken away have lost their terminal, and live on.
    subprocess.run(['pkill', '-KILL', '-f', f'{self.path}/'], check=False)
    shutil.rmtree(self.path, ignore_errors=True)
