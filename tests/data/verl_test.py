"""veRL's schema: others' files are read, ours come back as the very same tasks."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.data import compose, formats, rows, sources, verl
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.types import Listing, Question, Task

pyarrow = pytest.importorskip('pyarrow')
import pyarrow.parquet  # noqa: E402

INSTRUCTIONS = 'You will answer multiple complex questions.\n\nAnswer the following questions: '


def release_row(questions, targets, **extra):
  """A row of several questions as MEM1's scripts write it; of one, as Search-R1's do."""
  content = (f'{INSTRUCTIONS}{"; ".join(questions)}\n' if len(questions) > 1
             else f'Answer the given question. Question: {questions[0]}\n')
  return {'data_source': 'hotpotqa', 'prompt': [{'role': 'user', 'content': content}],
          'ability': 'fact-reasoning',
          'reward_model': {'style': 'rule', 'ground_truth': {'target': targets}},
          'extra_info': extra}


MULTI = release_row(['Who is he?', 'What is it; really?'], [['A', 'B'], ['C']], split='train',
                    indices=[4, 5])


def test_a_row_of_several_questions():
  task = verl.task_of(MULTI)
  assert task.id == 'hotpotqa-train-4+5' and task.source == 'hotpotqa' and task.labels == ()
  assert [(q.text, q.answers) for q in task.questions] == [
      ('Who is he?', ('A', 'B')), ('What is it; really?', ('C',))]
  assert [q.id for q in task.questions] == [formats.text_id(q.text) for q in task.questions]


@pytest.mark.parametrize('target', [['A', 'B'], [['A', 'B']]])
def test_a_row_of_one_question(target):
  row = release_row(['Who; is he?'], target, split='test', index=3)
  assert verl.task_of(row) == Task('hotpotqa-test-3', (
      Question(formats.text_id('Who; is he?'), 'Who; is he?', ('A', 'B')),), (), 'hotpotqa')
  assert verl.task_of(row | {'question': 'Who?', 'extra_info': None}).questions[0].text == 'Who?'
  plain = row | {'prompt': [{'role': 'system', 'content': 'x'}, {'role': 'user', 'content': 'Y?'}]}
  assert verl.task_of(plain).questions[0].text == 'Y?'


def test_questions_without_marks():
  row = release_row(['who is he', 'what'], [['A'], ['B']])
  assert [q.text for q in verl.task_of(row).questions] == ['who is he', 'what']


@pytest.mark.parametrize('fields, message', [
    ({'data_source': None}, 'data_source is None'),
    ({'reward_model': None}, 'reward_model is None'),
    ({'reward_model': {'ground_truth': {}}}, 'without ground_truth.target'),
    ({'reward_model': {'ground_truth': {'target': []}}}, 'target has no answer'),
    ({'reward_model': {'ground_truth': {'target': [['A'], []]}}}, 'target has no answer'),
    ({'reward_model': {'ground_truth': {'target': [['A'], ['B'], ['C'], ['D']]}}},
     '4 lists of answers'),
    ({'prompt': []}, r'prompt is \[\]'), ({'prompt': 'Who?'}, "prompt is 'Who"),
    ({'prompt': [{'role': 'user'}]}, 'content is missing'),
    ({'prompt': [{'content': INSTRUCTIONS}]}, 'prompt has no question'),
    ({'extra_info': 5}, 'extra_info is 5'),
    ({'extra_info': {'questions': []}}, 'id is missing'),
    ({'extra_info': {'id': 'x', 'questions': [{'id': 'y', 'text': 'z'}, {}]}},
     'other fields than we write'),
    ({'extra_info': {'id': 'x', 'questions': ['y', 'z']}}, 'other fields than we write'),
    ({'extra_info': {'id': 'x', 'questions': 5}}, 'other fields than we write'),
    ({'extra_info': {'id': 5, 'questions': []}}, 'id is 5, not text'),
])
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    verl.task_of(MULTI | fields)


def test_a_file_of_the_release(tmp_path):
  path = tmp_path / 'train.parquet'
  table = [MULTI, release_row(['Who is she?', 'Who is he?'], [['D'], ['A']], split='train',
                              indices=[6, 7]), MULTI,
           MULTI | {'prompt': [{'role': 'user', 'content': ' '}]}]
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
  tasks, report = verl.read_tasks(path)
  assert [task.id for task in tasks] == ['hotpotqa-train-4+5', 'hotpotqa-train-6+7']
  assert (report.num_good, report.num_repeated, report.num_bad) == (2, 1, 1)
  assert report.problems == (f'{path}:4: content is empty',)
  loaded = sources.load(str(path))
  assert [q.text for q in loaded.questions] == ['Who is he?', 'What is it; really?', 'Who is she?']


TEXT = st.text(st.characters(codec='utf-8'), min_size=1, max_size=12).filter(str.strip)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
QUESTIONS = st.builds(
    Question, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(1, 9), NAMES, NAMES, NAMES, st.sampled_from(['qa', 'web']))
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
TASKS = st.builds(
    Task, TEXT, st.lists(QUESTIONS, min_size=1, max_size=3).map(tuple), NAMES, st.text(max_size=5),
    st.none() | st.builds(Listing, PAIRS, PAIRS))


@given(tasks=st.lists(TASKS, min_size=1, max_size=5, unique_by=lambda task: task.id))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, tasks):
  path = tmp_path_factory.mktemp('verl') / 'train.parquet'
  lines = path.with_suffix('.jsonl')
  for file in (path, lines):
    counts = []
    verl.write_tasks(file, tasks, 'train', on_written=counts.append)
    again, report = verl.read_tasks(file)
    assert list(again) == tasks and sum(counts) == len(tasks)
    assert (report.num_good, report.num_bad) == (len(tasks), 0)
  other = path.with_name('again.parquet')
  verl.write_tasks(other, again, 'train')
  assert pyarrow.parquet.read_table(other).equals(pyarrow.parquet.read_table(path))
  assert sorted(path.parent.iterdir()) == [other, lines, path]


def test_splits_are_those_that_rows_name(tmp_path):
  path = tmp_path / 'a.parquet'
  table = [release_row([f'Who is {k}?'], ['A'], index=k, **extra) for k, extra in enumerate(
      [{'split': 'test'}, {'split': 'train'}, {'split': None}, {'split': 'test'}])]
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
  splits, report = verl.read_splits(path)
  assert {split: [task.questions[0].text for task in tasks] for split, tasks in splits.items()} == {
      'test': ['Who is 0?', 'Who is 3?'], 'train': ['Who is 1?', 'Who is 2?']}
  assert report.num_good == 4 and len(verl.read_tasks(path)[0]) == 4


def test_a_write_that_fails_leaves_nothing(tmp_path):
  late = [Task(f't{k}', (Question('q', 'Who?', ('A',) * (1 + k // 1500)),), (), 'x')
          for k in range(1501)]
  for name in ('a.parquet', 'a.jsonl'):
    with pytest.raises(ValueError, match='comes twice'):
      verl.write_tasks(tmp_path / name, late, 'train')
  assert not list(tmp_path.iterdir())


def test_tasks_of_the_atlas_train_there_and_back(tmp_path):
  composer = compose.Composer(sources.load_atlas('validation'), (1, 3), 0, LABELS, 'atlas')
  tasks, path = composer.tasks(range(1500)), tmp_path / 'train.parquet'
  verl.write_tasks(path, tasks, 'train', lambda task: f'Answer these. {len(task.questions)}')
  assert verl.read_tasks(path)[0] == tasks
  ready = compose.Ready(verl.read_tasks(path)[0], 0, LABELS)
  assert {task.questions for task in ready.tasks(range(1500))} == {t.questions for t in tasks}
  asked = {q for task in tasks for q in task.questions}
  assert set(sources.load(f'verl:{path}').questions) == asked
  # What veRL itself reads.
  row = pyarrow.parquet.read_table(path).slice(7, 1).to_pylist()[0]
  assert set(row) == {'data_source', 'prompt', 'ability', 'reward_model', 'extra_info'}
  assert row['prompt'] == [{'role': 'user', 'content': f'Answer these. {len(tasks[7].questions)}'}]
  assert row['reward_model'] == {'style': 'rule', 'ground_truth': {
      'target': [list(q.answers) for q in tasks[7].questions]}}
  assert (row['extra_info']['split'], row['extra_info']['index']) == ('train', 7)


def test_single_questions_have_a_flat_target(tmp_path):
  tasks = [Task(f't{k}', (Question('q', 'Who?', ('A', 'B')),), ('[a]',), 'x') for k in range(2)]
  path = tmp_path / 'test.parquet'
  verl.write_tasks(path, tasks, 'test')
  row = pyarrow.parquet.read_table(path).to_pylist()[1]
  assert row['reward_model']['ground_truth'] == {'target': ['A', 'B']}
  assert row['prompt'] == [{'role': 'user', 'content': 'Who?'}]
  assert verl.read_tasks(path)[0] == tuple(tasks)
  assert len(rows.gather('x', rows.read_rows(path), verl.questions_of).questions) == 1


GOOD = Task('t', (Question('q', 'Who?', ('A',)),), (), 'x')


@pytest.mark.parametrize('tasks, name, message', [
    ([], 'a.parquet', '0 tasks'), ([GOOD, GOOD], 'a.parquet', '2 tasks have 1 different'),
    ([GOOD], 'a.json', 'does not end in .parquet or .jsonl'),
    ([Task('t', (Question('q', 'Buy!', ('A',), domain='webshop', goal=('red',)),), (), 'x')],
     'a.parquet', 'its goal.*write tasks of domain qa or web'),
    ([Task('t', (Question('q', ' ', ('A',)),), (), 'x')], 'a.parquet', 'text is empty'),
    ([Task('t', (Question('q', 'Who?', ()),), (), 'x')], 'a.parquet', 'no answer'),
    ([Task('t', (Question('q', 'Who?', ('A', 'A')),), (), 'x')], 'a.parquet', 'comes twice'),
    ([Task('t', (Question('q', 'Who?', ('A',), 0),), (), 'x')], 'a.parquet', 'hops is 0'),
    ([Task('t', (), (), 'x')], 'a.parquet', 'no answer'),
])
def test_what_cannot_be_written(tmp_path, tasks, name, message):
  with pytest.raises(ValueError, match=message):
    verl.write_tasks(tmp_path / name, tasks, 'train')
