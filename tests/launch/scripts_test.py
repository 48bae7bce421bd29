"""launch/*.sh: the commands they print and run, with stub programs in place of real ones."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.launch import stubs
from tests.launch.stubs import ROOT

# It comes with the test extra: beside the Python that runs, whether or not that is on PATH.
SHELLCHECK = shutil.which('shellcheck') or shutil.which('shellcheck', path=f'{sys.prefix}/bin')
SCRIPTS = sorted([*(ROOT / 'launch').rglob('*.sh'), *(ROOT / 'launch').rglob('*.sbatch')])
SOURCED = ('env.sh', 'retriever.sh', 'pod.sh', 'job.sh')


@pytest.fixture
def checkout(tmp_path):
  """A copy of what the scripts read, with only stub Pythons on PATH; a runner of scripts."""
  return Checkout(stubs.copy_checkout(tmp_path / 'checkout'), tmp_path)


class Checkout:

  def __init__(self, folder, tmp_path):
    self.folder, self.bin, self.log = folder, tmp_path / 'bin', tmp_path / 'log'
    self.bin.mkdir()
    for program in ('bash', 'dirname', 'sed', 'awk', 'mkdir', 'cp', 'cat', 'rm', 'mktemp', 'uname'):
      os.symlink(shutil.which(program), self.bin / program)

  def stub(self, name, version, pip_status=0):
    stubs.put_python(self.bin / name, version, pip_status)

  def run(self, script, *args, **env):
    return subprocess.run(
        ['bash', script, *args], cwd=self.folder, capture_output=True, text=True, check=False,
        env={'PATH': str(self.bin), 'LOG': str(self.log), 'PLAN': '/dev/null', **env},
    )  # fmt: skip

  def logged(self):
    return self.log.read_text().splitlines() if self.log.exists() else []


def test_quickstart_dry_run_prints_the_commands_and_makes_nothing(checkout):
  checkout.stub('python3', '3.11')
  done = checkout.run('launch/quickstart.sh', '--seed=1', 'a b', DRY_RUN='1')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
      '+ python3 -m venv .venv',
      '+ .venv/bin/python -m pip install -r launch/requirements-cpu-py311.txt',
      '+ .venv/bin/python -m pip install --no-deps -e .',
      '+ exec .venv/bin/python -m mem1_jax.main quickstart --workdir=runs/quickstart --seed=1 a\\ b',
  ]
  assert not (checkout.folder / '.venv').exists()
  assert not checkout.logged()


def test_quickstart_installs_once_then_reuses_the_environment(checkout):
  checkout.stub('python3', '3.12')
  main = '-m mem1_jax.main quickstart --workdir=runs/quickstart'
  assert checkout.run('launch/quickstart.sh').returncode == 0
  venv, pinned, package, last = checkout.logged()
  assert venv == 'venv .venv'
  assert pinned.endswith('-r launch/requirements-cpu-py312.txt')
  assert package.endswith('--no-deps -e .')
  assert last == main
  again = checkout.run('launch/quickstart.sh')
  assert checkout.logged()[4:] == [main]
  assert 'up to date' in again.stderr
  with open(checkout.folder / 'launch' / 'requirements-cpu-py312.txt', 'a') as file:
    file.write('one-more==1\n')  # other pins: installed again, in the same environment
  assert checkout.run('launch/quickstart.sh').returncode == 0
  assert len(checkout.logged()) == 4 + 1 + 3
  assert checkout.logged().count('venv .venv') == 1


def test_a_failed_installation_is_not_taken_for_a_finished_one(checkout):
  checkout.stub('python3', '3.11', pip_status=1)
  done = checkout.run('launch/test.sh')
  assert done.returncode == 1
  assert not any('pytest' in line for line in checkout.logged())
  checkout.stub('python3', '3.11')
  shutil.copy(checkout.bin / 'python3', checkout.folder / '.venv' / 'bin' / 'python')
  assert checkout.run('launch/test.sh').returncode == 0
  assert checkout.logged()[-1].startswith('-m pytest')


def test_tests_run_without_slow_ones_and_pass_arguments_on(checkout):
  checkout.stub('python3', '3.11')
  done = checkout.run('launch/test.sh', 'tests/report', '-k', 'table', DRY_RUN='1')
  assert done.stdout.splitlines()[-1] == (
      '+ .venv/bin/python -m pytest -q -n 2 --dist loadfile -m not\\ slow\\ and\\ not\\ tpu_aot\\ and\\ not\\ gpu'
      ' tests/report -k table'
  )
  assert checkout.run('.ci/run').returncode == 0
  assert checkout.logged()[-1] == '-m pytest -q -n 2 --dist loadfile -m not slow and not tpu_aot and not gpu'


@pytest.mark.skipif(os.uname()[::4] != ('Linux', 'x86_64'), reason='libtpu is for Linux on x86-64')
def test_the_tpu_compiler_is_put_beside_the_environment_once_and_for_tests_alone(checkout):
  checkout.stub('python3', '3.11')
  assert checkout.run('launch/quickstart.sh').returncode == 0
  assert not any('libtpu' in line for line in checkout.logged())
  assert checkout.run('launch/test.sh').returncode == 0
  beside = checkout.folder / '.venv' / 'libtpu'
  assert checkout.logged()[-2].endswith(f'--no-deps --target {beside} libtpu==1.*')
  beside.mkdir()
  before = len(checkout.logged())
  assert checkout.run('launch/test.sh').returncode == 0
  assert len(checkout.logged()) == before + 1


def test_another_python_has_its_own_environment(checkout):
  checkout.stub('python3', '3.11')
  checkout.stub('python3.12', '3.12')
  assert checkout.run('launch/test.sh').returncode == 0
  shared = checkout.run('launch/test.sh', PYTHON='python3.12')
  assert shared.returncode == 1
  assert 'VENV=.venv312' in shared.stderr
  own = checkout.run('launch/test.sh', PYTHON='python3.12', VENV='.venv312')
  assert own.returncode == 0, own.stderr
  assert any('requirements-cpu-py312.txt' in line for line in checkout.logged())
  assert (checkout.folder / '.venv312' / 'mem1-installed').is_file()


def test_the_first_python_that_fits_is_taken(checkout):
  checkout.stub('python3', '3.9')
  checkout.stub('python3.13', '3.13')
  done = checkout.run('launch/quickstart.sh', DRY_RUN='1')
  assert done.stdout.startswith('+ python3.13 -m venv .venv\n')
  assert 'requirements-cpu-py313.txt' in done.stdout


@pytest.mark.parametrize(
    ('version', 'env', 'message'),
    [('3.9', {}, 'no Python of 3.11 3.12 3.13 on PATH'),
     ('3.14', {'PYTHON': 'python3'}, "it says '3.14'"),
     ('3.11', {'PYTHON': 'python9'}, 'PYTHON=python9 is not a Python of')],
)  # fmt: skip
def test_an_unsuitable_python_is_refused_with_a_remedy(checkout, version, env, message):
  checkout.stub('python3', version)
  done = checkout.run('launch/quickstart.sh', **env)
  assert done.returncode == 1
  assert message in done.stderr
  assert not checkout.logged()


@pytest.mark.parametrize('script', ['install.sh', 'pin.sh'])
def test_scripts_that_need_an_argument_show_their_usage(checkout, script):
  done = checkout.run(f'launch/{script}')
  assert done.returncode == 2
  assert f'bash launch/{script}' in done.stderr


def _files_and_extras(printed):
  return [(re.search(r'requirements-(\S+)\.txt', line)[1], re.findall(r'--extra=(\w+)', line))
          for line in printed.splitlines()]


def test_pin_gives_each_python_its_jax(checkout):
  done = checkout.run('launch/pin.sh', 'all', DRY_RUN='1')
  assert done.returncode == 0, done.stderr
  everywhere = ['tf', 'retriever', 'webshop', 'web', 'gguf', 'gcs']
  assert _files_and_extras(done.stdout) == [
      ('cpu-py311', ['tf', 'test']), ('cpu-py312', ['tf', 'test']), ('cpu-py313', ['tf', 'test']),
      ('tpu-py311', ['tpu', *everywhere]), ('tpu-py312', ['tpu', *everywhere]),
      ('cuda-py312', ['cuda', *everywhere])]
  alone = checkout.run('launch/pin.sh', 'cuda', DRY_RUN='1')
  assert _files_and_extras(alone.stdout) == [('cuda-py312', ['cuda', *everywhere])]


def _pins(name):
  """{package: version} of a file of requirements, all of whose lines are checked."""
  lines = (ROOT / 'launch' / f'requirements-{name}.txt').read_text().splitlines()
  assert all(re.match(r"[a-z0-9._-]+==[0-9][\w.]*( ; [\w .=!'\"]+)?$", line) for line in lines)
  return dict(line.partition(' ;')[0].split('==') for line in lines)


@pytest.mark.parametrize(('version', 'jax'), [('311', '0.10'), ('312', '0.11'), ('313', '0.12')])
def test_every_requirement_is_pinned_and_nothing_else_is_said(version, jax):
  pins = _pins(f'cpu-py{version}')
  assert pins['jax'].startswith(f'{jax}.')
  assert {'tensorflow-cpu', 'pytest', 'flax', 'orbax-checkpoint'} <= set(pins)
  assert not any(name.startswith(('nvidia', 'torch')) for name in pins)


@pytest.mark.parametrize(('name', 'driver'), [
    ('tpu-py311', 'libtpu'), ('tpu-py312', 'libtpu'), ('cuda-py312', 'jax-cuda12-plugin')])
def test_accelerators_run_the_versions_that_are_tested(name, driver):
  pins, tested = _pins(name), _pins(re.sub('^[a-z]+', 'cpu', name))
  assert {driver, 'gcsfs', 'faiss-cpu', 'httpx'} <= set(pins)
  assert 'pytest' not in pins
  both = set(pins) & set(tested)
  assert {'jax', 'flax', 'tensorflow-cpu'} <= both
  assert {package: pins[package] for package in both} == {p: tested[p] for p in both}


def test_locks_of_a_target_are_installed_or_named(checkout):
  checkout.stub('python3', '3.13')
  done = checkout.run('launch/install.sh', 'tpu')
  assert done.returncode == 1
  assert 'no versions are locked for tpu on Python 3.13' in done.stderr
  assert 'launch/requirements-tpu-py312.txt' in done.stderr
  checkout.stub('python3.12', '3.12')
  assert checkout.run('launch/install.sh', 'cuda', PYTHON='python3.12').returncode == 0
  assert any('requirements-cuda-py312.txt' in line for line in checkout.logged())


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: f'{path.parent.name}/{path.name}')
def test_scripts_stop_on_errors_and_parse(script):
  if script.name not in SOURCED:
    assert 'set -euo pipefail' in script.read_text()
  subprocess.run(['bash', '-n', script], check=True)


@pytest.mark.skipif(not SHELLCHECK, reason='shellcheck is not installed')
def test_scripts_are_shellcheck_clean():
  files = [*SCRIPTS, ROOT / '.ci' / 'run']
  done = subprocess.run(
      [SHELLCHECK, '-x', *files], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout
