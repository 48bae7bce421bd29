"""Exact match and F1 of an answer to several questions.

Normalisation, exact match and token F1 are SQuAD's (Rajpurkar et al. 2016,
https://arxiv.org/abs/1606.05250, official evaluation script v1.1).
"""

import collections
from collections.abc import Sequence
import dataclasses
import re
import string
import unicodedata

from mem1_jax import types

SEPARATOR = ';'

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_NO_PUNCTUATION = str.maketrans('', '', string.punctuation)


@dataclasses.dataclass(frozen=True)
class QuestionScore:
  """One question's share. `em` and `f1` are 0 where the number of answers is wrong."""

  answer: str  # as given, stripped; '' where there is none
  em: float  # 0 or 1
  f1: float  # in [0, 1]


@dataclasses.dataclass(frozen=True)
class AnswerScore:
  """The score of one `<answer>`.

  Attributes:
    em: exact matches, summed over questions: the episode's reward.
    f1: token F1, summed over questions.
    num_answers: answers that are not blank.
    is_count_right: as many parts as questions; otherwise em and f1 are 0.
    per_question: one entry per question, in order.
  """

  em: float
  f1: float
  num_answers: int
  is_count_right: bool
  per_question: tuple[QuestionScore, ...]


def normalise(text: str) -> str:
  """Lower case, without punctuation and English articles, single spaces."""
  # NFC: some tokenizers compose accents, and gold answers may not.
  text = unicodedata.normalize('NFC', text).lower().translate(_NO_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def exact_match(answer: str, golds: Sequence[str] | str) -> float:
  """1 where the answer equals any accepted one after normalisation, else 0."""
  return float(any(_comparable(answer, gold)[0] == _comparable(answer, gold)[1]
                   for gold in _aliases(golds) if answer.strip()))


def token_f1(answer: str, golds: Sequence[str] | str) -> float:
  """Harmonic mean of token precision and recall, the best over accepted answers."""
  return max((_f1(*_comparable(answer, gold)) for gold in _aliases(golds)), default=0.0)


def split_answers(text: str) -> list[str]:
  """The parts of `a1; a2; …; aN`, stripped; none where the text is blank."""
  return [part.strip() for part in text.split(SEPARATOR)] if text.strip() else []


def score_answer(text: str, task: types.Task) -> AnswerScore:
  """Scores the content of an `<answer>`, in the order of the questions.

  The answers may stand as memory holds them, each under the label of its own question, with
  the end of the list: `*>[kf]: Oslo;>[zb]: 51;>.`. Those marks are dropped, no others.
  """
  questions = task.questions
  answers = split_answers(text)
  if answers[-1:] == [f'>{types.END}']:
    answers.pop()
  for i, label in enumerate(task.labels[:len(answers)]):
    bare = answers[i].removeprefix('>' if i else f'{types.START}>')
    if bare.startswith(label):
      answers[i] = bare.removeprefix(label).removeprefix(':').lstrip()
  is_count_right = len(answers) == len(questions)
  padded = answers[:len(questions)] + [''] * (len(questions) - len(answers))
  scores = tuple(
      QuestionScore(answer, exact_match(answer, question.answers),
                    token_f1(answer, question.answers)) if is_count_right
      else QuestionScore(answer, 0.0, 0.0)
      for answer, question in zip(padded, questions))
  return AnswerScore(
      em=sum(score.em for score in scores),
      f1=sum(score.f1 for score in scores),
      num_answers=sum(bool(answer) for answer in answers),
      is_count_right=is_count_right,
      per_question=scores)


def _aliases(golds: Sequence[str] | str) -> Sequence[str]:
  """A gold answer given as a bare string is one answer, not its characters."""
  return (golds,) if isinstance(golds, str) else golds


def _comparable(answer: str, gold: str) -> tuple[str, str]:
  """Both texts normalised; only stripped and lowered where nothing of the gold is left.

  Answers such as 'A' (a blood group) or '+' are all article or punctuation.
  """
  if normalise(gold):
    return normalise(answer), normalise(gold)
  return answer.strip().lower(), gold.strip().lower()


def _f1(answer: str, gold: str) -> float:
  answer_tokens, gold_tokens = answer.split(), gold.split()
  overlap = (collections.Counter(answer_tokens) & collections.Counter(gold_tokens)).total()
  return 2 * overlap / (len(answer_tokens) + len(gold_tokens)) if overlap else 0.0
