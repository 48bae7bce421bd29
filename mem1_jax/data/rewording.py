"""Questions in other words than their templates: a share of all training questions."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.types import Question

_NAME_FIRST = ('{name} {relation}', '{name} ({relation})', '{name} and its {relation}',
               'for {name} the {relation}')
_MARKS = ",:;-/|+*#~_='''"  # the last more often: names with it are seen nowhere else
_SUFFIXES = ('', '', 'n', 'in', 'la', 'e', 'ka', 'os', 't', 'yo', 'r', 'm')


def reworded(question: Question, rng, names: Sequence[str]) -> Question:
  """The question's phrase in a frame of random words: `Salto 'Prenj' the capital of Norway?`

  Now and then the name comes first, in notations that no split asks questions in, or with
  a made-up ending: `Prenj the symbol of Norway~in currency.` Whoever has read these does
  not depend on the frames and phrases that the training split happens to use. `names`
  are cut into words to draw from.
  """
  words = [rng.choice(names[rng.integers(len(names))].split()) for _ in range(rng.integers(1, 4))]
  words = [f"'{word}'" if rng.random() < 0.3 else word for word in words]
  name, (first, *rest) = question.chain[0], question.relations
  kind = rng.random()
  if kind < 0.5:
    phrase = f'the {first} of {name}'
  elif kind < 0.8:
    mark, suffix = (options[rng.integers(len(options))] for options in (_MARKS, _SUFFIXES))
    phrase = f'{name}{mark}{suffix} {first}'
  else:
    phrase = _NAME_FIRST[rng.integers(len(_NAME_FIRST))].format(name=name, relation=first)
  for relation in rest:
    phrase = f'the {relation} of {phrase}'
  mark = '?' if rng.random() < 0.5 else '.'
  return dataclasses.replace(question, text=f'{" ".join(words)} {phrase}{mark}')


def some_reworded(questions: Sequence[Question], share: float, names: Sequence[str],
                  seed: int) -> list[Question]:
  """The questions in their order, a share of them in random words; the same for the same seed."""
  rngs = (np.random.default_rng([seed, index]) for index in range(len(questions)))
  return [reworded(question, rng, names) if rng.random() < share else question
          for question, rng in zip(questions, rngs)]
