"""A cell: one agent on tasks of one size, and its files.

    NAME-N.json      means over all trajectories, and what they were made by
    NAME-N.jsonl     the trajectories, in the order of their tasks
    NAME-N.partial   those that are done, while others are not (partial_cell.py)
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mem1_jax import domains, initial, storage
from mem1_jax.data.compose import Composer, Ready
from mem1_jax.data.sources import is_held_out_wording
from mem1_jax.parallel import multihost
from mem1_jax.partial_cell import PartialCell, check, path_of
from mem1_jax.report import records
from mem1_jax.rollout.slots import Job
from mem1_jax.types import Question

Record = Mapping[str, Any]
# Knobs that numbers do not depend on: of training, of where, how fast and in which order they are
# computed, of addresses. What an endpoint is asked is compared as a whole.
_GROUPS = {'lora', 'mesh', 'gaps', 'rows', 'sft', 'optim', 'ppo', 'checkpoint', 'log', 'endpoint',
           'judge'}
_KNOBS = {
    'compilation_cache', 'critic', 'reference', 'data.feed', 'env.retriever',
    'env.retriever_timeout', 'env.retriever_patience', 'web.url', 'web.concurrent',
    'web.max_per_s', 'web.record', 'rollout.reply_timeout', 'rollout.gather_weights',
    'rollout.num_slots', 'rollout.num_questions', 'rollout.refill_rows', 'rollout.decode_steps',
    'model.remat', 'eval.num_slots', 'eval.objectives', 'eval.every', 'eval.every_tasks'}  # fmt: skip
_OF_PARAMETERS = {'init', 'model'}  # which a server has instead


def make_jobs(config: Any, objectives: int) -> list[Job]:
  """The tasks of a cell: `eval.tasks`, or at 0 as many as ask every question of the split once.

  A question that is asked alone is asked once in any case, since more would count it twice.

  Raises:
    ValueError: 0, and the tasks are a mixture or chains, which do not end with an epoch.
  """
  composer = domains.make_composer(config, config.eval.split, objectives)
  num_tasks, epoch = config.eval.tasks, None
  if isinstance(composer, Composer):
    epoch = composer.epoch_slots // objectives
  elif isinstance(composer, Ready):
    epoch = composer.epoch_slots
  if not num_tasks and not epoch:
    raise ValueError(f'eval.tasks 0 is every question once, which {config.data.source!r} does not '
                     f'have at {objectives} objectives; give a number')
  if objectives == 1 and epoch and num_tasks > epoch:
    logging.warning('eval.tasks %d: there are %d, each is asked once', num_tasks, epoch)
    num_tasks = epoch
  return [Job(task, i) for i, task in enumerate(composer.tasks(range(num_tasks or epoch)))]


def digest(jobs: Sequence[Job]) -> str:
  """A digest of what is asked: files may change under their names."""
  found = hashlib.blake2b(digest_size=16)
  for job in jobs:
    asked = [(label, q.text, q.answers) for label, q in zip(job.task.labels, job.task.questions)]
    found.update(json.dumps([job.index, job.task.id, asked]).encode())
  return found.hexdigest()


def made_by(config: Any, endpoint: Mapping[str, Any] | None) -> dict[str, Any]:
  """What numbers depend on: knobs, and a digest of the parameters or what a server is asked."""
  passed = _GROUPS | _KNOBS | (_OF_PARAMETERS if endpoint else set())
  found = {}
  for name, value in config.items():
    group = {f'{name}.{leaf}': one for leaf, one in value.items()} if hasattr(value, 'items') else {
        name: value}
    found |= {} if name in passed else {k: one for k, one in group.items() if k not in passed}
  found['env.retriever'] = bool(config.env.retriever)
  found |= {'endpoint': dict(endpoint)} if endpoint else {'parameters': initial.digest(config.init)}
  return found


def check_whole(path: storage.Path, wanted: Mapping[str, Any]):
  """Raises ValueError for a cell that another config or model has made."""
  check(path, json.loads(path.read_text()).get('made_by', {}), wanted)


@contextlib.contextmanager
def begun(path: storage.Path, wanted: Mapping[str, Any]) -> Iterator[PartialCell]:
  """What is done of the cell at `path`; the main process may add to it.

  Raises:
    ValueError: another run has begun it.
  """
  partial = PartialCell(path_of(path), wanted)  # by all, so that all meet its errors
  multihost.barrier()
  try:
    if multihost.is_main():
      partial.open()
    yield partial
  finally:
    partial.close()


def left(partial: PartialCell, jobs: Sequence[Job]) -> list[Job]:
  """The jobs that are to be done, the same on every process."""
  done = multihost.gather(set(partial.records))[0]  # files may look different elsewhere
  return [job for job in jobs if job.index not in done]


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Of what every trajectory has, and how many they are.

  Raises:
    ValueError: for none.
  """
  if not scores:
    raise ValueError('no trajectory to aggregate; evaluate at least one task.')
  names = [name for name in scores[0] if all(name in score for score in scores)]
  return {name: float(np.mean([score[name] for score in scores])) for name in names} | {
      'episodes': len(scores)}


def by_wording(some: Sequence[Record]) -> dict[str, float]:
  """EM per question by its template: one that training uses, or one of the test split's own.

  Only the wordings that occur, and of the atlas alone: other sources have none.
  """
  matches = {'em_seen_wording': [], 'em_held_out_wording': []}
  for record in some:
    for asked, (_, is_right) in zip(record['task']['questions'], records.marks(record)):
      question = Question(asked['id'], asked['text'], tuple(asked['answers']))
      if question.id.startswith('atlas/'):
        name = 'em_held_out_wording' if is_held_out_wording(question) else 'em_seen_wording'
        matches[name].append(is_right)
  return {name: float(np.mean(values)) for name, values in matches.items() if values}


def write(path: storage.Path, some: Sequence[Record], more: Mapping[str, Any]):
  """The cell, and its trajectories beside it: a run that is killed leaves whole files or none."""
  cell = means([record['score'] for record in some]) | by_wording(some)
  cell |= {'overflow': sum(record['outgrew'] for record in some),
           'faults': sum(bool(record['fault']) for record in some)}
  replace_lines(path.with_suffix('.jsonl'), some)
  storage.write_whole(path, json.dumps(cell | dict(more), indent=2) + '\n')


def replace_lines(path: storage.Path, some: Sequence[Record]):
  """Writes records, a line each, in one go."""
  storage.write_whole(path, ''.join(json.dumps(record) + '\n' for record in some))
