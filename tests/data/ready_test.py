"""Tasks of files as they are: of a split, of a size, of several; and what there is not."""

import pytest

from mem1_jax.data import ready, verl
from mem1_jax.data.mixture import Mixture
from mem1_jax.types import Question, Task


def tasks(split, count, size):
  return [Task(f'{split}{k}', tuple(Question(f'{k}/{i}', f'Who is {k} or {i}?', (f'{i}',))
                                    for i in range(size)), tuple('abc'[:size]), split)
          for k in range(count)]


@pytest.fixture
def files(tmp_path):
  """Six tasks of two questions and four of three to train on; three of two to validate."""
  specs = []
  for name, split, made in (('a', 'train', tasks('train', 6, 2)), ('b', 'train', tasks('x', 4, 3)),
                            ('c', 'validation', tasks('validation', 3, 2))):
    verl.write_tasks(tmp_path / f'{name}.jsonl', made, split)
    specs.append(f'verl:{tmp_path / name}.jsonl')
  return specs


def bare(task):
  return task.questions, task.labels, task.source


def test_an_epoch_has_the_very_tasks(files):
  composer = ready.make(files[:1], (1.0,), 'train', (1, 9), 0, 'qa')
  assert sorted(map(bare, composer.tasks(range(6, 12))), key=str) == [
      bare(task) for task in tasks('train', 6, 2)]


def test_files_without_such_tasks_are_left_out_with_their_weights(files):
  weights = (3.0, 1.0, 7.0)
  mixed = ready.make(files, weights, 'train', (1, 9), 0, 'qa')
  assert isinstance(mixed, Mixture)
  assert [task.source for task in mixed.tasks(range(40))].count('train') == 30
  for split, size, source in (('train', 2, 'train'), ('train', 3, 'x'), ('validation', 2,
                                                                        'validation')):
    composer = ready.make(files, weights, split, size, 0, 'qa')
    assert {(task.source, len(task.questions)) for task in composer.tasks(range(9))} == {
        (source, size)}
  assert ready.sizes(files, 'train') == (2, 3) and ready.sizes(files, 'validation') == (2, 2)


def test_the_domain_is_the_asker_s(files):
  assert ready.make(files, (1.0,) * 3, 'train', 2, 0, 'web').task(0).domain == 'web'


def test_what_there_is_not(files):
  there = "has no task of split 'test' with .* questions, but 6 of train with 2, 4 of train with 3"
  with pytest.raises(ValueError, match=there):
    ready.make(files, (1.0,) * 3, 'test', (1, 2), 0, 'qa')
  with pytest.raises(ValueError, match=there):
    ready.sizes(files, 'test')
  with pytest.raises(ValueError, match="data.source 'atlas' has single questions; write verl:FILE"):
    ready.make(['atlas'], (1.0,), 'train', 2, 0, 'qa')
