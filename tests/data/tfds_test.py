"""tensorflow-datasets: our builder's files are read back by name, and by tfds itself."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from mem1_jax.data import formats, rows, sources, tfds
from mem1_jax.types import Question

QUESTIONS = [Question(f'q{k}', f'Who was the {k}th?', ('Añe', f'{k}'), 1 + k % 3,
                      ('Oslo',) * (k % 2), (), ()) for k in range(30)]
needs_tfds = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('tensorflow', 'tensorflow_datasets'))),
    reason='tensorflow-datasets is not installed')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  splits = {'train': QUESTIONS[:20], 'test': QUESTIONS[20:]}
  assert tfds.prepare('made', splits, folder) == 'local_questions/made'
  return str(folder)


@needs_tfds
def test_questions_come_back_in_their_order(folder):
  loaded = sources.load('tfds:local_questions/made:train', folder)
  assert list(loaded.questions) == QUESTIONS[:20]
  assert (loaded.report.path, loaded.report.num_good) == ('tfds:local_questions/made:train', 20)
  assert list(sources.load('tfds:local_questions/made:test[:3]', folder).questions) == (
      QUESTIONS[20:23])


@needs_tfds
def test_columns_may_have_other_names(folder):
  loaded = sources.load('tfds:local_questions/made:train', folder,
                        'question=id,golden_answers=question')
  assert [(q.text, q.answers) for q in loaded.questions] == [
      (q.id, (q.text,)) for q in QUESTIONS[:20]]
  with pytest.raises(ValueError, match='no row has anything in query.*golden_answers, hops, id'):
    sources.load('tfds:local_questions/made:train', folder, 'question=query')


@needs_tfds
def test_tfds_reads_them_without_us(folder):
  code = ('import tensorflow_datasets as tfds\n'
          f'd = tfds.load("local_questions/made", split="test", data_dir={folder!r})\n'
          'assert [e["id"].decode() for e in tfds.as_numpy(d)] == [f"q{k}" for k in range(20, 30)]')
  subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


@needs_tfds
def test_two_data_sets_in_one_folder(folder):
  tfds.prepare('other', {'train': QUESTIONS[5:7]}, folder)
  assert list(sources.load('tfds:local_questions/other:train', folder).questions) == QUESTIONS[5:7]


@needs_tfds
@pytest.mark.parametrize('name', ['local_questions/absent:train', 'local_questions/made:dev',
                                  'no_such_data_set_at_all:train'])
def test_what_is_not_there(folder, name):
  with pytest.raises(ValueError, match=f'tfds:{name} cannot be loaded'):
    tfds.rows(name, folder)


@pytest.mark.parametrize('name', ['squad', 'squad:', ':train'])
def test_a_split_must_be_named(name):
  with pytest.raises(ValueError, match='has no split; write tfds:NAME:SPLIT'):
    tfds.rows(name)


@pytest.mark.parametrize('name, splits, message', [
    ('a-b', {'train': QUESTIONS}, "'a-b'"), ('', {'train': QUESTIONS}, "''"),
    ('a', {}, 'must hold questions'), ('a', {'train': []}, r'train: 0')])
def test_what_cannot_be_prepared(tmp_path, name, splits, message):
  with pytest.raises(ValueError, match=message):
    tfds.prepare(name, splits, tmp_path)


def test_examples_of_known_data_sets():
  examples = [
      {'question': b'who', 'answer': np.array([b'a', b'b'], object)},  # natural_questions_open
      {'question': b'what', 'question_id': b'x',
       'answer': {'value': b'v', 'aliases': np.array([b'w'], object)}},  # trivia_qa
      {'id': b's', 'question': b'where', 'context': b'c',
       'answers': {'text': np.array([b't'], object), 'answer_start': np.array([4])}},  # squad
      {'question': b'\xff', 'answer': np.array([b'a'], object)},
      {'question': b'hops', 'answer': b'a', 'hops': np.int32(2)}]
  loaded = rows.gather('x', tfds._records(examples), formats.flashrag)
  assert [(q.text, q.answers, q.hops) for q in loaded.questions] == [
      ('who', ('a', 'b'), 1), ('what', ('v', 'w'), 1), ('where', ('t',), 1), ('hops', ('a',), 2)]
  assert loaded.report.problems[0].startswith('x:4: not UTF-8')


def test_without_tensorflow():
  code = '\n'.join([
      'import sys; sys.modules["tensorflow"] = None',
      'from mem1_jax.data import sources',
      'try: sources.load("tfds:squad:train")',
      'except ImportError as error: assert "mem1_jax[tf]" in str(error), error',
      'else: raise AssertionError'])
  subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
