"""Answers judged by another model, beside exact match: it changes neither EM nor any reward.

    NAME-N.judging    while verdicts are missing: those that are there (partial_cell.py)

Each question's answer is shown to the judge with the right ones, and what it replies must be one
word (`read_verdict`). Of a trajectory without as many answers as questions nothing is asked, as EM
counts none of them.

    correct, incorrect    what the judge said
    unanswered            nothing to ask: counts as incorrect
    unparsable            it said something else: no verdict
    failed                it did not answer, after all retries: no verdict; asked again by a new run
"""

import concurrent.futures
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mem1_jax import cells, endpoint, progress, storage
from mem1_jax.env.rewards import score_answer
from mem1_jax.partial_cell import PartialCell, check, merged
from mem1_jax.retrieval.endpoint import Failure
from mem1_jax.rollout import completions
from mem1_jax.rollout.served import HOPELESS, Limits, ServedModel, base_url
from mem1_jax.text.prompts import judge_prompt
from mem1_jax.types import Question, Task

VERDICTS = ('correct', 'incorrect', 'unanswered', 'unparsable', 'failed')
_IS_ONE = {'correct': 1, 'incorrect': 0, 'unanswered': 0}  # the others are none
_VERDICT = re.compile(r'\s*(CORRECT|INCORRECT)\.?\s*', re.IGNORECASE)
_FEW = 8  # trajectories without a verdict of the server: so many in a row may be chance


def read_verdict(text: str) -> str:
  """`correct` or `incorrect`, if a reply is that one word; else `unparsable`.

  What a reasoning model thought stands before its last `</think>`, and is no part of the reply.
  """
  said = _VERDICT.fullmatch(text.rpartition('</think>')[2])
  return said[1].lower() if said else 'unparsable'


class Judge:
  """Judges the cells of one run.

  Raises:
    ValueError: a knob is out of its range, the key's variable is not set, or there are no answers
      to judge.
  """

  def __init__(self, config: Any):
    j = config.judge
    if config.domain == 'webshop':
      raise ValueError(f'judge.url {j.url!r} judges answers, a shop has purchases; leave it empty')
    if j.concurrent < 1 or j.max_tokens < 1:
      raise ValueError(f'judge.concurrent {j.concurrent} and judge.max_tokens {j.max_tokens} must '
                       'be ≥ 1')
    try:
      # A verdict has none of the tags that end a turn.
      extra = {'stop': None} | endpoint.extra_fields(j.extra, 'judge.extra')
      asked = completions.Settings(j.api, j.model, seed=config.seed, extra=extra)
    except ValueError as error:
      raise ValueError(str(error) if 'judge.' in str(error) else f'judge.{error}') from error
    self._model = ServedModel(j.url, asked, Limits(j.timeout, j.patience, j.tries),
                              key=endpoint.key(j.key_variable, 'judge'), knobs='judge')
    self._max_tokens, self._num_concurrent = j.max_tokens, j.concurrent
    self.settings = {'url': base_url(j.url, 'judge'), 'api': j.api, **asked.fields(j.max_tokens),
                     'prompt': judge_prompt('…', ('…',), '…')}

  def close(self):
    """Closes the connections."""
    self._model.close()

  def check(self, path: storage.Path):
    """Raises ValueError for a cell that another judge has judged."""
    there = json.loads(path.read_text()).get('judge', {}).get('settings', {})
    check(path, there, self.settings)

  def verdict(self, question: str, accepted: Sequence[str], given: str) -> str:
    """One of `VERDICTS` about one answer.

    Raises:
      ValueError: the server denies access or does not know the model.
    """
    if not given.strip():
      return 'unanswered'
    text = judge_prompt(question, accepted, given)
    is_chat = self._model.settings.api == 'chat'
    try:
      return read_verdict(self._model.complete(
          [{'role': 'user', 'content': text}] if is_chat else f'{text}\n', self._max_tokens).text)
    except Failure as failure:
      if failure.kind in HOPELESS:
        raise ValueError(str(failure)) from None
      return 'failed'

  def verdicts(self, record: Mapping[str, Any]) -> list[str]:
    """One for each question of a trajectory; those that it has are kept."""
    asked = record['task']['questions']
    questions = tuple(Question('', q['text'], tuple(q['answers'])) for q in asked)
    score = score_answer(record['answer'] or '', Task(
        '', questions, tuple(q['label'] for q in asked), ''))
    if not score.is_count_right:
      return ['unanswered'] * len(questions)
    before = record.get('judged') or ['failed'] * len(questions)
    return [self.verdict(question.text, question.answers, one.answer) if old == 'failed' else old
            for question, one, old in zip(questions, score.per_question, before)]

  def run(self, path: storage.Path):
    """Adds verdicts to a whole cell and its trajectories, unless it has them.

    Raises:
      ValueError: another judge has judged it or begun to, or the server does not answer.
    """
    self.check(path)
    cell = json.loads(path.read_text())
    if 'judge' in cell and not cell['judge']['failed']:
      return
    lines = path.with_suffix('.jsonl').read_text(encoding='utf-8').split('\n')
    records = [json.loads(line) for line in lines if line.strip()]
    partial = PartialCell(path.with_suffix('.judging'), self.settings | {
        'cell': cell.get('made_by', {})})
    partial.open()
    try:
      told = self._ask(path, records, partial)
    finally:
      partial.close()
    before = {key: cell['judge'][key] for key in ('usage', 'served_models', 'counts')
              } if 'judge' in cell else {}
    _add(cell, records, self.settings, merged(before, told))
    cells.replace_lines(path.with_suffix('.jsonl'), records)
    storage.write_whole(path, json.dumps(cell, indent=2) + '\n')
    partial.remove()

  def _ask(self, path: storage.Path, records: Sequence[dict[str, Any]], partial: PartialCell
           ) -> dict[str, Any]:
    """Puts verdicts into the records; what the server reported."""
    for i, found in partial.records.items():
      records[i]['judged'] = found['judged']
    left = [i for i, record in enumerate(records)
            if 'failed' in record.get('judged', ('failed',))]
    self._model.account()  # from here on
    told, num_failed = partial.told, 0
    with (progress.bar(f'judging {path.stem}', len(left)) as bar,
          concurrent.futures.ThreadPoolExecutor(self._num_concurrent) as pool):
      jobs = {pool.submit(self.verdicts, records[i]): i for i in left}
      try:
        for job in concurrent.futures.as_completed(jobs):
          i, new = jobs[job], self._model.account()
          records[i]['judged'], told = job.result(), merged(told, new)
          is_failed = 'failed' in records[i]['judged']
          num_failed = num_failed + 1 if is_failed else 0
          if num_failed >= min(len(left), max(_FEW, self._num_concurrent)):
            raise ValueError(f'the judge has not answered for {num_failed} trajectories in a row; '
                             'start again once it does: verdicts are kept')
          if not is_failed:  # a new run may have more luck
            partial.add(i, {'judged': records[i]['judged']}, new)
          bar.advance(1)
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        self.close()  # ends what is under way
        raise
    return told


def _add(cell: dict[str, Any], records: Sequence[dict[str, Any]], settings: Mapping[str, Any],
         told: Mapping[str, Any]):
  """Scores of the trajectories, and means over what there is a verdict of."""
  counts = dict.fromkeys(VERDICTS, 0)
  for record in records:
    for verdict in record['judged']:
      counts[verdict] += 1
    record['score'].pop('judged', None)
    if all(verdict in _IS_ONE for verdict in record['judged']):
      record['score']['judged'] = float(sum(_IS_ONE[verdict] for verdict in record['judged']))
  judged = [record['score']['judged'] for record in records if 'judged' in record['score']]
  num_verdicts = sum(counts[name] for name in _IS_ONE)
  cell.pop('judged', None)
  cell.pop('judged_per_question', None)
  if judged:
    cell['judged'] = statistics.fmean(judged)
  if num_verdicts:
    cell['judged_per_question'] = counts['correct'] / num_verdicts
  cell['judge'] = {'settings': dict(settings), 'episodes': len(judged), **counts, **told}
