"""Dockerfile and .dockerignore: what is copied exists and comes through, both targets are alike."""

import fnmatch
import re
import shutil
import subprocess

import pytest

from tests.launch.stubs import ROOT

TEXT = (ROOT / 'Dockerfile').read_text()
IGNORED = [line for line in (ROOT / '.dockerignore').read_text().splitlines()
           if line and not line.startswith('#')]


def stages() -> dict[str, list[list[str]]]:
  """{name of a stage: its instructions, as words}; the first is FROM."""
  found = {}
  lines = re.sub(r'^#.*\n', '', TEXT, flags=re.M).replace('\\\n', ' ').splitlines()
  for words in filter(None, (line.split() for line in lines)):
    if words[0] == 'FROM':
      found[words[3]] = []
    found[list(found)[-1]].append(words)
  return found


def copied() -> list[str]:
  """Paths of the checkout that some COPY takes."""
  return [source for instructions in stages().values() for words in instructions
          if words[0] == 'COPY' and not words[1].startswith('--from') for source in words[1:-1]]


def comes_through(path: str) -> bool:
  """Whether .dockerignore lets a path at the top, or below what it names there, be seen."""
  is_in = True
  for pattern in IGNORED:
    kept = pattern.removeprefix('!')
    if fnmatch.fnmatch(path, kept) or path.startswith(f'{kept}/'):
      is_in = pattern.startswith('!')
  return is_in


def test_what_is_copied_exists_and_is_not_ignored():
  assert {'mem1_jax', 'configs', 'launch', 'setup.py'} <= set(copied())
  for path in copied():
    assert (ROOT / path).exists(), path
    assert comes_through(path), path
  for path in ('runs', '.git', 'tests', '.venv'):
    assert not comes_through(path)


def test_stages_come_from_stages_before_them():
  names = []
  for name, instructions in stages().items():
    assert instructions[0][1] in (*names, 'python:3.12-slim-bookworm')
    sources = [w.split('=')[1] for words in instructions for w in words if w.startswith('--from=')]
    assert set(sources) <= set(names)
    names.append(name)
  assert {'tpu', 'cuda'} <= set(names)


def test_both_targets_are_alike_and_do_not_run_as_root():
  tpu, cuda = stages()['tpu'], stages()['cuda']
  assert [' '.join(words).replace('tpu', 'cuda') for words in tpu] == [
      ' '.join(words) for words in cuda]
  assert ['USER', '1000'] in tpu
  for target in ('tpu', 'cuda'):
    assert ['COPY', f'launch/requirements-{target}-py312.txt', '/tmp/requirements.txt'] in stages()[
        f'{target}-packages']


@pytest.mark.skipif(not shutil.which('hadolint'), reason='hadolint is not installed')
def test_the_linter_has_no_complaint():
  done = subprocess.run(['hadolint', ROOT / 'Dockerfile'], capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stdout
