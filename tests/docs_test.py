"""docs/: examples run, and what is named is there."""

import pathlib
import re

import pytest

from tests import architecture_test

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / 'docs').glob('*.md'))


def sections(path):
  """{heading: its Python, blocks one after another} of those that have some."""
  found = {}
  for section in path.read_text().split('\n## ')[1:]:
    blocks = re.findall(r'^```python\n(.*?)^```$', section, re.DOTALL | re.MULTILINE)
    if blocks:
      found[section.partition('\n')[0]] = '\n'.join(blocks)
  return found


EXAMPLES = sections(ROOT / 'docs' / 'adding.md')


def test_there_is_an_example_of_each():
  assert list(EXAMPLES) == ['An environment', 'A search engine', 'A model size']


@pytest.mark.parametrize('heading', EXAMPLES)
def test_an_example_runs(heading):
  source = EXAMPLES[heading]
  assert 'assert ' in source
  assert max(map(len, source.splitlines())) <= 100
  # A module's name: dataclasses look their fields' types up there.
  exec(compile(source, heading, 'exec'), {'__name__': __name__})  # pylint: disable=exec-used


@pytest.mark.parametrize('path', DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
  for target in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', path.read_text()):
    assert (path.parent / target).exists(), f'{path.name} links to {target}'


@pytest.mark.parametrize('name', ['adding.md', 'architecture.md'])
def test_files_that_are_named_are_there(name):
  text = (ROOT / 'docs' / name).read_text()
  for file in re.findall(r'`((?:mem1_jax|configs|tests|benchmarks|docs)/[\w./-]*)`', text):
    assert (ROOT / file).exists(), f'{name} names {file}'


def test_the_architecture_has_every_package_and_what_it_may_import():
  text = (ROOT / 'docs' / 'architecture.md').read_text().partition('| may import |')[2]
  rows = dict(re.findall(r'^\| `(\w+)` \| .* \| (.*) \|$', text, re.MULTILINE))
  packages = {path.parent.name for path in (ROOT / 'mem1_jax').glob('*/__init__.py')} - {'configs'}
  assert {name: set(re.findall(r'`(\w+)`', cell)) for name, cell in rows.items()} == {
      name: architecture_test.ARROWS[name] for name in packages}
