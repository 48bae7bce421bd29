"""Reworded questions ask for the same thing in other words."""

import numpy as np

from mem1_jax import types
from mem1_jax.data import rewording

QUESTIONS = (types.Question('q', 'Mayor of the capital of Land?', ('M',), 2, ('Land', 'Town'),
                            ('Town', 'M'), ('capital', 'mayor')),)


def test_a_reworded_question_keeps_its_phrase_and_what_it_asks_for():
  rng = np.random.default_rng(0)
  texts, num_name_first = set(), 0
  for _ in range(40):
    asked = rewording.reworded(QUESTIONS[0], rng, ['Salto Grande', 'Brest'])
    first, *rest = asked.relations
    name = asked.chain[0]
    is_name_first = f'the {first} of {name}' not in asked.text
    num_name_first += is_name_first
    if is_name_first:
      assert asked.text.index(name) < asked.text.index(f' {first}' if first in name else first)
    assert all(f'the {relation} of' in asked.text for relation in rest)
    assert (asked.answers, asked.chain) == (QUESTIONS[0].answers, QUESTIONS[0].chain)
    texts.add(asked.text)
  assert len(texts) > 10
  assert 5 < num_name_first < 35


def test_a_share_of_questions_is_reworded_the_same_way_each_time():
  questions = QUESTIONS * 300
  some = rewording.some_reworded(questions, 0.3, ['Brest'], 0)
  changed = [new is not old for new, old in zip(some, questions)]
  assert 0.15 < np.mean(changed) < 0.45
  assert some == rewording.some_reworded(questions, 0.3, ['Brest'], 0)
  assert rewording.some_reworded(questions, 0.0, ['Brest'], 0) == list(questions)
