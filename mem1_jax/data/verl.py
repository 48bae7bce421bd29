"""Tasks in veRL's schema, as Search-R1's and MEM1's releases train on; both ways.

    data_source   hotpotqa
    prompt        [{role: user, content: … Answer the following questions: q1?; q2?}]
    ability       fact-reasoning
    reward_model  {style: rule, ground_truth: {target: [[answers of q1], [answers of q2]]}}
    extra_info    {split, index, …}

The rows are Parquet, veRL's own, or JSON lines. A file of single questions has a flat `target`.
What veRL has no column for (ids, labels, hops, documents) is written into `extra_info`, so that a
file of ours reads back as the very same tasks; where that is missing, questions are taken from a
`question` column, else from the prompt.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
import pathlib
from typing import Any

from mem1_jax.data import rows
from mem1_jax.data.formats import answers_of, hops_of, text_id, text_of
from mem1_jax.data.rows import Parsed, shown
from mem1_jax.types import Listing, Question, Task

_JOIN = '; '
# What stands before the questions in the releases' prompts; the last one found counts.
_LEADS = ('Answer the following questions: ', 'Question: ')
_ROW_GROUP = 1024


def questions_of(row: dict) -> Parsed:
  """A row's questions, to be composed anew (a reader for `rows.gather`)."""
  return Parsed(task_of(row).questions)


def read_tasks(path: str | os.PathLike) -> tuple[tuple[Task, ...], rows.Report]:
  """The tasks of a file as they are, for `compose.Ready`. Others' have no labels.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: pyarrow is not installed.
    ValueError: no row is good.
  """
  found, report = _read(path)
  return tuple(task for task, _ in found), report


def read_splits(path: str | os.PathLike) -> tuple[dict[str, tuple[Task, ...]], rows.Report]:
  """The same as {split: its tasks}, as `extra_info.split` says; without it, they are to train on.

  Raises:
    As `read_tasks` does.
  """
  found, report = _read(path)
  splits: dict[str, list[Task]] = {}
  for task, split in found:
    splits.setdefault(split, []).append(task)
  return {split: tuple(tasks) for split, tasks in splits.items()}, report


def _read(path: str | os.PathLike) -> tuple[list[tuple[Task, str]], rows.Report]:
  """Each task with its split."""
  tasks: dict[str, tuple[Task, str]] = {}

  def parse(row: dict) -> Parsed:
    task = task_of(row)
    split = _extra(row.get('extra_info')).get('split')
    tasks.setdefault(task.id, (task, str(split or 'train')))
    # Repeated tasks are told by their ids; questions may well come again.
    return Parsed((Question(task.id, task.id, ('',)),))

  report = rows.gather(str(path), rows.read_rows(path), parse).report
  return list(tasks.values()), report


def task_of(row: dict) -> Task:
  """The task of one row. Raises ValueError with what is wrong in it."""
  source = row.get('data_source')
  if not isinstance(source, str):
    raise ValueError(f'data_source is {shown(source)}, not text')
  targets, extra = _targets(row.get('reward_model')), _extra(row.get('extra_info'))
  if extra.get('questions') is not None:
    return _ours(source, targets, extra)
  texts = _question_texts(row, len(targets))
  split, index = extra.get('split'), extra.get('index', extra.get('indices'))
  number = '+'.join(map(str, index)) if isinstance(index, list) else index
  id_ = (f'{source}-{split}-{number}' if split is not None and number is not None
         else text_id(_JOIN.join(texts)))
  return Task(id_, tuple(Question(text_id(text), text, accepted)
                         for text, accepted in zip(texts, targets)), (), source)


def _targets(reward_model: Any) -> list[tuple[str, ...]]:
  """Accepted answers of each question; a flat list is one question's."""
  truth = reward_model.get('ground_truth') if isinstance(reward_model, dict) else None
  target = truth.get('target') if isinstance(truth, dict) else None
  if target is None:
    raise ValueError(f'reward_model is {shown(reward_model)}, without ground_truth.target')
  is_nested = isinstance(target, list) and target and all(isinstance(t, list) for t in target)
  return [answers_of({'target': one}, 'target') for one in (target if is_nested else [target])]


def _extra(extra: Any) -> dict:
  if not isinstance(extra, dict | None):
    raise ValueError(f'extra_info is {shown(extra)}, not an object')
  return extra or {}


def _ours(source: str, targets: list[tuple[str, ...]], extra: dict) -> Task:
  try:
    return Task(
        text_of(extra, 'id'),
        tuple(Question(text_of(q, 'id'), text_of(q, 'text'), accepted, hops_of(q['hops']),
                       *(tuple(q[name]) for name in ('chain', 'found', 'relations')),
                       domain=q.get('domain') or 'qa')
              for q, accepted in zip(extra['questions'], targets, strict=True)),
        tuple(extra['labels']), source,
        extra.get('listing') and Listing(*(
            tuple((pair['first'], pair['second']) for pair in extra['listing'][name])
            for name in ('links', 'lines'))))
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'extra_info has other fields than we write: {error!r}') from error


def _question_texts(row: dict, count: int) -> list[str]:
  """The single questions of a row of others."""
  if isinstance(row.get('question'), str):
    joined = text_of(row, 'question')
  else:
    joined = _prompted(row.get('prompt'))
  if count == 1:
    return [joined]
  # The releases end every question with a mark, and one may have a semicolon inside.
  marked = joined.split('?' + _JOIN)
  for texts in ([f'{text}?' for text in marked[:-1]] + marked[-1:], joined.split(_JOIN)):
    if len(texts) == count and all(text.strip() for text in texts):
      return texts
  raise ValueError(f'{count} lists of answers, but the prompt has another number of questions'
                   f' divided by {_JOIN!r}: {shown(joined)}')


def _prompted(prompt: Any) -> str:
  """What the last message of a prompt asks, without the instructions that we know."""
  if not isinstance(prompt, list) or not prompt or not isinstance(prompt[-1], dict):
    raise ValueError(f'prompt is {shown(prompt)}, not a list of messages')
  text = text_of(prompt[-1], 'content')
  ends = [text.rfind(lead) + len(lead) for lead in _LEADS if lead in text]
  text = text[max(ends, default=0):].strip()
  if not text:
    raise ValueError('prompt has no question')
  return text


def write_tasks(path: str | os.PathLike, tasks: Sequence[Task], split: str,
                prompt: Callable[[Task], str] | None = None,
                on_written: Callable[[int], None] = lambda count: None) -> None:
  """Writes tasks for veRL, and for `read_tasks`, which gives the same back.

  Args:
    path: of the file, whose folder is there; `.parquet` or `.jsonl`, as `read_tasks` wants it.
      It is there when it is whole.
    tasks: at least one, ids different.
    split: `train`, `test`, …: a column for veRL.
    prompt: what the agent is told (`text.prompts.task_prompt`); without it, the questions alone.
    on_written: told how many more tasks are written.

  Raises:
    ImportError: pyarrow is not installed.
    ValueError: no tasks, repeated ids, another suffix, or a task that would not read back as it
      is: a question without text or answers, an answer that is empty or comes twice, a goal.
  """
  path = pathlib.Path(path)
  ids = {task.id for task in tasks}
  if len(ids) < len(tasks) or not tasks:
    raise ValueError(f'{len(tasks)} tasks have {len(ids)} different ids; give some, each another')
  if path.suffix not in ('.parquet', '.jsonl'):
    raise ValueError(f'{path} does not end in .parquet or .jsonl, by which it is known again; '
                     'rename it')
  is_single = all(len(task.questions) == 1 for task in tasks)
  part = path.with_name(f'{path.name}.part')
  try:
    with (_jsonl_writer(part) if path.suffix == '.jsonl' else _parquet_writer(part, is_single)
          ) as write:
      for begin in range(0, len(tasks), _ROW_GROUP):
        records = [_checked_record(task, begin + i, split, prompt or _joined, is_single)
                   for i, task in enumerate(tasks[begin:begin + _ROW_GROUP])]
        write(records)
        on_written(len(records))
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


Write = Callable[[list[dict]], object]


@contextlib.contextmanager
def _jsonl_writer(path: pathlib.Path) -> Iterator[Write]:
  with path.open('w') as file:
    yield lambda records: file.writelines(f'{json.dumps(record)}\n' for record in records)


@contextlib.contextmanager
def _parquet_writer(path: pathlib.Path, is_single: bool) -> Iterator[Write]:
  parquet = rows.pyarrow_parquet()
  import pyarrow
  schema = _schema(pyarrow, is_single)
  with parquet.ParquetWriter(path, schema) as writer:
    yield lambda records: writer.write_table(pyarrow.Table.from_pylist(records, schema))


def _joined(task: Task) -> str:
  return _JOIN.join(question.text for question in task.questions)


def _checked_record(task: Task, *arguments) -> dict:
  """A row that reads back as that very task."""
  if any(question.goal is not None for question in task.questions):
    raise ValueError(f'task {task.id!r} cannot be written: what a shop rewards (its goal) has no '
                     "column in veRL's schema; write tasks of domain qa or web")
  record = _record(task, *arguments)
  try:
    back = task_of(record)
  except ValueError as error:
    raise ValueError(f'task {task.id!r} cannot be written: {error}') from error
  if back != task:
    raise ValueError(f'task {task.id!r} cannot be written: an answer is empty or comes twice, or a '
                     'field is not a tuple of texts; mend it')
  return record


def _record(task: Task, index: int, split: str, prompt: Callable[[Task], str],
            is_single: bool) -> dict:
  targets = [list(question.answers) for question in task.questions]
  listing = task.listing and {
      name: [{'first': a, 'second': b} for a, b in getattr(task.listing, name)]
      for name in ('links', 'lines')}
  return {
      'data_source': task.source,
      'prompt': [{'role': 'user', 'content': prompt(task)}],
      'ability': 'fact-reasoning',
      'reward_model': {'style': 'rule',
                       'ground_truth': {'target': targets[0] if is_single else targets}},
      'extra_info': {
          'split': split, 'index': index, 'id': task.id, 'labels': list(task.labels),
          'questions': [{'id': q.id, 'text': q.text, 'hops': q.hops, 'chain': list(q.chain),
                         'found': list(q.found), 'relations': list(q.relations),
                         'domain': q.domain}
                        for q in task.questions],
          'listing': listing}}


def _schema(pyarrow: Any, is_single: bool) -> Any:
  text, number = pyarrow.string(), pyarrow.int64()
  texts = pyarrow.list_(text)
  pairs = pyarrow.list_(pyarrow.struct({'first': text, 'second': text}))
  question = pyarrow.struct({'id': text, 'text': text, 'hops': number, 'chain': texts,
                             'found': texts, 'relations': texts, 'domain': text})
  return pyarrow.schema({
      'data_source': text,
      'prompt': pyarrow.list_(pyarrow.struct({'role': text, 'content': text})),
      'ability': text,
      'reward_model': pyarrow.struct({'style': text, 'ground_truth': pyarrow.struct({
          'target': texts if is_single else pyarrow.list_(texts)})}),
      'extra_info': pyarrow.struct({
          'split': text, 'index': number, 'id': text, 'labels': texts,
          'questions': pyarrow.list_(question),
          'listing': pyarrow.struct({'links': pairs, 'lines': pairs})})})
