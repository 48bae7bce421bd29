"""The house rules, read from the syntax trees: who imports whom, mirrored tests, sizes.

Each rule is a function (package folder) → list of violations, applied to the package and,
to know that it can fail, to a small offending tree.
"""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mem1_jax'

ANYTHING = None
_HOST = {'types'}
# room → the rooms it may import. A room is a folder or a top-level module of the package.
ARROWS = {
    'types': set(),
    'arrays': {'types'},
    'parallel': {'types'},
    'ops': {'types', 'arrays'},
    'memory': {'types', 'arrays'},
    'text': _HOST,
    'retrieval': _HOST,
    'data': _HOST,
    'report': {'types', 'env', 'storage'},  # env: its rule says which answers are right
    'env': {'types', 'text', 'retrieval'},
    'agents': {'types', 'text', 'memory', 'retrieval'},
    'model': {'types', 'arrays', 'ops', 'parallel'},
    'rl': {'types', 'arrays', 'ops', 'parallel'},
    'progress': {'types', 'parallel'},
    'preemption': {'types', 'parallel'},
    'storage': set(),
    'optim': {'types', 'arrays', 'parallel'},
    'checkpoint': {'types', 'arrays', 'parallel', 'storage'},
    'metrics': {'types', 'arrays', 'parallel', 'storage'},
    'rollout': {
        'types', 'arrays', 'parallel', 'ops', 'memory', 'text', 'retrieval', 'env', 'agents',
        'model', 'preemption',
    },
    'initial': {'types', 'arrays', 'parallel', 'storage', 'checkpoint', 'model', 'text'},
    'search': {'types', 'retrieval', 'data', 'index', 'initial', 'progress'},
    # Fetches an encoder and shows progress, which retrieval/ knows nothing of.
    'index': {'types', 'initial', 'metrics', 'progress', 'retrieval'},
    'partial_cell': {'storage'},
    # Puts the parts together for the commands below it.
    'cells': ANYTHING, 'judge': ANYTHING,
    'assemble': ANYTHING, 'domains': ANYTHING, 'endpoint': ANYTHING,
    'train': ANYTHING, 'sft': ANYTHING, 'evaluate': ANYTHING, 'measures': ANYTHING,
    'sweep': {'types', 'configs', 'metrics', 'progress', 'report'},  # its points are commands
    'quickstart': ANYTHING, 'chat': ANYTHING, 'export': ANYTHING, 'plan': ANYTHING, 'roofline': ANYTHING,
    'arguments': set(), 'knobs': set(), 'suites': set(), 'main': ANYTHING,
}  # fmt: skip

JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}
TENSORFLOW = {'tensorflow', 'tensorflow_datasets'}
READS_CONFIG = {'main', 'train', 'sft', 'evaluate', 'sweep', 'configs'}
MAX_LINES, MAX_KERNEL_LINES, MAX_FUNCTION_LINES = 350, 500, 80


def _modules(package):
  """(path, name parts below the package) of every module; links (configs) are not followed."""
  for path in sorted(package.rglob('*.py')):
    parts = path.relative_to(package).with_suffix('').parts
    if '__pycache__' in parts or (package / parts[0]).is_symlink():
      continue
    yield path, parts


def _imports(path, parts, package_name):
  """(absolute dotted name, line, is at module level) of every import of one module."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  top_level = {id(node) for node in tree.body}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:  # relative: counted from the folder of this module
        above = [package_name, *parts][: -node.level]
        base = '.'.join([*above, base]).strip('.')
      # `from mem1_jax import types` imports the room `types`
      names = [f'{base}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      yield name, node.lineno, id(node) in top_level


def _where(package, path, line):
  return f'{path.relative_to(package.parent)}:{line}'


def wrong_arrows(package):
  found = []
  for path, parts in _modules(package):
    room = parts[0]
    if parts == ('__init__',):
      allowed = set()
    elif room not in ARROWS:
      found.append(f'{_where(package, path, 1)}: room {room!r} has no rule; add it to ARROWS')
      continue
    else:
      allowed = ARROWS[room]
    for name, line, _ in _imports(path, parts, package.name):
      head, *rest = name.split('.')
      if head == 'configs' and room not in READS_CONFIG:
        found.append(f'{_where(package, path, line)}: {room} imports configs')
      if head != package.name or not rest or rest[0] == room or allowed is ANYTHING:
        continue
      if rest[0] not in allowed and rest[0] not in ('__version__',):
        found.append(f'{_where(package, path, line)}: {room} may not import {rest[0]}')
  return found


def wrong_libraries(package):
  found = []
  for path, parts in _modules(package):
    room = parts[0]
    for name, line, is_top_level in _imports(path, parts, package.name):
      library = name.split('.')[0]
      where = _where(package, path, line)
      if library in JAX and room in ('types', 'env', 'text', 'data', 'retrieval', 'report'):
        if parts[:2] != ('retrieval', 'dense'):  # a folder: it does not fit one module
          found.append(f'{where}: {room} is host code and imports {library}')
      if library == 'flax' and room != 'model':
        found.append(f'{where}: only model/ knows flax')
      if library == 'ml_collections' and room not in READS_CONFIG:
        found.append(f'{where}: only {sorted(READS_CONFIG)} read ConfigDict')
      if library in TENSORFLOW and parts not in (('data', 'pipeline'), ('data', 'tfds')):
        found.append(f'{where}: TensorFlow is optional; only data/pipeline.py and data/tfds.py '
                     'import it')
      if library in TENSORFLOW and is_top_level:
        found.append(f'{where}: TensorFlow is optional; import it inside the function')
      if library == 'torch':
        found.append(f'{where}: torch is for golden values in tests only')
      if room == 'types' and library not in sys.stdlib_module_names:
        found.append(f'{where}: types imports {library}')
  return found


def missing_tests(package, tests):
  return [
      f'{_where(package, path, 1)}: no test at tests/{"/".join(parts)}_test.py'
      for path, parts in _modules(package)
      if parts[-1] not in ('__init__', '__main__')
      and not (tests / f'{"/".join(parts)}_test.py').is_file()
  ]


def _code_lines(function):
  """Lines of a function without its docstring."""
  lines = function.end_lineno - function.lineno + 1
  first = function.body[0]
  if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
    lines -= first.end_lineno - first.lineno + 1
  return lines


def too_long(package):
  found = []
  for path, parts in _modules(package):
    text = path.read_text(encoding='utf-8')
    limit = MAX_KERNEL_LINES if parts[0] == 'ops' else MAX_LINES
    num_lines = len(text.splitlines())
    if num_lines > limit:
      found.append(f'{_where(package, path, 1)}: {num_lines} lines, more than {limit}')
    for node in ast.walk(ast.parse(text)):
      if not isinstance(node, ast.FunctionDef) or (parts, node.name) == (('train',), 'train'):
        continue  # the train loop is read top to bottom
      if _code_lines(node) > MAX_FUNCTION_LINES:
        found.append(
            f'{_where(package, path, node.lineno)}: {node.name} has {_code_lines(node)} lines, '
            f'more than {MAX_FUNCTION_LINES}'
        )
  return found


def test_imports_go_one_way():
  assert not wrong_arrows(PACKAGE)


def test_libraries_stay_in_their_rooms():
  assert not wrong_libraries(PACKAGE)


def test_every_module_has_its_test():
  assert not missing_tests(PACKAGE, ROOT / 'tests')


def test_modules_and_functions_are_short():
  assert not too_long(PACKAGE)


def _tree(tmp_path, files):
  package = tmp_path / 'mem1_jax'
  for name, text in files.items():
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return package


@pytest.mark.parametrize(
    ('module', 'text'),
    [
        ('types.py', 'from mem1_jax import arrays'),
        ('env/qa.py', 'from mem1_jax.rollout import collect'),
        ('env/qa.py', 'import mem1_jax.model.transformer'),
        ('rl/losses.py', 'from ..model import layers'),
        ('rollout/collect.py', 'def f():\n  from mem1_jax import data'),
        ('ops/masks.py', 'from configs import base'),
        ('unheard_of.py', ''),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path, module, text):
  assert len(wrong_arrows(_tree(tmp_path, {module: text}))) == 1


@pytest.mark.parametrize(
    ('module', 'text'),
    [
        ('text/tokenizer.py', 'import jax.numpy as jnp'),
        ('retrieval/bm25.py', 'import jax'),
        ('retrieval/nearest.py', 'import jax'),
        ('rl/learner.py', 'from flax import linen'),
        ('memory/state.py', 'from ml_collections import config_dict'),
        ('train.py', 'def f():\n  import tensorflow as tf'),
        ('data/pipeline.py', 'import tensorflow as tf'),
        ('types.py', 'import numpy'),
        ('model/hf.py', 'import torch'),
    ],
)
def test_a_library_in_the_wrong_room_is_found(tmp_path, module, text):
  assert len(wrong_libraries(_tree(tmp_path, {module: text}))) == 1


def test_what_is_allowed_passes(tmp_path):
  package = _tree(tmp_path, {
      'env/qa.py': 'from mem1_jax import types\nfrom mem1_jax.env import rewards\nfrom . import x',
      'retrieval/dense/bert.py': 'import jax\nfrom mem1_jax.retrieval import nearest',
      'model/layers.py': 'from flax import linen as nn\nfrom mem1_jax.ops import attention',
      'data/pipeline.py': 'def f():\n  import tensorflow as tf',
      'main.py': 'from mem1_jax import train\nimport ml_collections',
  })  # fmt: skip
  assert not wrong_arrows(package)
  assert not wrong_libraries(package)


def test_a_missing_test_is_found(tmp_path):
  package = _tree(tmp_path, {'env/__init__.py': '', 'env/qa.py': '', 'train.py': ''})
  (tmp_path / 'tests').mkdir()
  (tmp_path / 'tests' / 'train_test.py').write_text('')
  assert missing_tests(package, tmp_path / 'tests') == [
      'mem1_jax/env/qa.py:1: no test at tests/env/qa_test.py'
  ]


def test_long_modules_and_functions_are_found(tmp_path):
  body = '  x = 1\n' * 80
  package = _tree(tmp_path, {
      'ops/kernel.py': 'x = 1\n' * 500,
      'env/qa.py': 'x = 1\n' * 351,
      'env/web.py': 'def f():\n' + body,
      'env/rewards.py': 'def f():\n  """One.\n  """\n' + body[: -len('  x = 1\n')],
      'train.py': 'def train():\n' + body,
  })  # fmt: skip
  assert [line.split(':')[0] for line in too_long(package)] == [
      'mem1_jax/env/qa.py', 'mem1_jax/env/web.py'
  ]  # fmt: skip
