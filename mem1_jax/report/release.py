"""Trajectories as the MEM1 release writes them → records of ours (report/console.py).

A line of its `inference/generate_rollout.py` (github.com/MIT-MI/MEM1, commit 6f22061):

    q               the prompt: instructions, then the questions
    t0, t1, …       `<think>…</think>` of each turn, '' where there was none
    r0, r1, …       the whole reply of that turn, with its `<think>`; missing where it had no action
    i0, i1, …       `<information>…</information>`; missing after an answer
    Golden_answer   [answers of the question], or of several [[…], […]]
    Exact_match     its own judgement, by substrings; shown, and not what we score by
    memories        what A-MEM recalled at each call; time_taken, index, hash: where they are

or, where a task failed, `error` and `question` with none of q, t0, r0, i0. How it ran is in the
file's name alone: `…_mem1.jsonl` (each turn sees the prompt and the last turn), `…_amem.jsonl`
(memories and the last turn, the prompt at first only) or `…_normal.jsonl` (everything); others
count as mem1. Tokens were not recorded, so no metric of tokens is made up.
"""

from collections.abc import Mapping
import itertools
import re
from typing import Any

from mem1_jax import types
from mem1_jax.env import rewards

# What stands before the questions in the release's prompts; the last one found counts.
_LEADS = ('Answer the following questions: ', 'Question: ')
_ACTIONS = tuple((kind, re.compile(f'<{kind}>(.*?)</{kind}>', re.DOTALL))
                 for kind in ('search', 'answer'))  # in its order: a search comes first


def is_row(found: Mapping[str, Any]) -> bool:
  """Whether a line's object has the release's keys rather than ours."""
  return 'turns' not in found and ('q' in found or {'error', 'Golden_answer'} <= found.keys())


def record(row: Mapping[str, Any], name: str = '') -> dict[str, Any]:
  """One of its lines as a record; `name` of its file says how it ran.

  Raises:
    ValueError: the question, a turn or the accepted answers are not as above.
  """
  prompt = _text(row, 'q' if 'q' in row else 'question')
  questions = _questions(prompt, _golds(row.get('Golden_answer')))
  turns = list(_turns(row, prompt, name))
  answers = [turn['action']['text'] for turn in turns if turn['action']['kind'] == 'answer']
  answer = answers[-1] if answers else None
  return {
      'task': {'id': str(row.get('index', row.get('hash', ''))), 'questions': questions},
      'turns': turns, 'answer': answer, 'fault': str(row.get('error', '')),
      'score': _score(row, questions, turns, answer),
  }


def _text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
  value = row.get(key, default)
  if not isinstance(value, str):
    raise ValueError(f'{key} is {value!r}; make it text')
  return value


def _golds(found: Any) -> list[list[str]]:
  """Accepted answers of each question; a flat list is one question's."""
  if isinstance(found, str):
    found = [found]
  if not isinstance(found, list) or not found:
    raise ValueError(f'Golden_answer is {found!r}; make it a list of answers, or of such lists')
  nested = found if all(isinstance(one, list) for one in found) else [found]
  return [[str(answer) for answer in one] for one in nested]


def _questions(prompt: str, golds: list[list[str]]) -> list[dict[str, Any]]:
  """Each question with its answers. A prompt that cannot be divided stands whole in the first."""
  asked = prompt[max((prompt.rfind(lead) + len(lead) for lead in _LEADS if lead in prompt),
                     default=0):].strip()
  marked = asked.split('?; ')  # the release ends every question with a mark
  texts = [f'{text}?' for text in marked[:-1]] + marked[-1:]
  if len(texts) != len(golds):
    texts = [asked] + [''] * (len(golds) - 1)
  return [{'label': '', 'text': text, 'answers': answers} for text, answers in zip(texts, golds)]


def _turns(row: Mapping[str, Any], prompt: str, name: str):
  """Our turns; what was seen is put together as its pipeline does."""
  memories = row.get('memories')
  is_amem, is_append_only = isinstance(memories, list), name.endswith('_normal')
  read = ''
  for i in itertools.count():
    if not any(f'{key}{i}' in row for key in 'tri'):
      return
    think, reply, information = (_text(row, f'{key}{i}', '') for key in 'tri')
    wrote = reply if think in reply else think + reply
    is_last = not any(f'{key}{i + 1}' in row for key in 'tri')
    before = prompt if i == 0 or not is_amem else ''
    recalled = f'{memories[i]}\n' if is_amem and i < len(memories) else ''
    yield {
        'saw': recalled + before + read, 'wrote': wrote, 'information': information,
        'action': _action(wrote), 'tokens_in_context': None,
        'dropped': '' if is_last or is_append_only else (before if is_amem else '') + read,
    }
    read = (read if is_append_only else '') + wrote + information


def _action(wrote: str) -> dict[str, str]:
  for kind, pattern in _ACTIONS:
    found = pattern.search(wrote)
    if found:
      return {'kind': kind, 'text': found[1].strip()}
  return {'kind': 'malformed', 'text': 'no action'}


def _score(row: Mapping[str, Any], questions: list, turns: list, answer: str | None) -> dict:
  task = types.Task('', tuple(types.Question('', q['text'], tuple(q['answers']))
                              for q in questions), (), '')
  score = rewards.score_answer(answer or '', task)
  found = {
      'em': score.em, 'em_per_question': score.em / len(questions), 'f1': score.f1,
      'answered': float(answer is not None), 'turns': len(turns),
      'searches': sum(turn['action']['kind'] == 'search' for turn in turns),
  }
  for ours, theirs in (('seconds', 'time_taken'), ('release_match', 'Exact_match')):
    if isinstance(row.get(theirs), int | float):
      found[ours] = float(row[theirs])
  return found
