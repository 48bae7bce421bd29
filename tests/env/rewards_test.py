"""Scores: SQuAD normalisation, and each defect of the original release's rewards."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.env import rewards


def question(*answers, id='q'):
  return types.Question(id, 'What?', answers)


def task(*questions):
  return types.Task('t', questions, tuple(f'[q{i}]' for i in range(len(questions))), 'test')


TWO = task(question('Oslo', 'Kristiania'), question('the North Sea'))


@pytest.mark.parametrize('text, expected', [
    ('The  North\nSea.', 'north sea'),
    ('An apple, a day', 'apple day'),
    ('U.S.A.', 'usa'),
    ('Athens', 'athens'),  # articles are whole words
    ('A\u030angstro\u0308m', '\xe5ngstr\xf6m'),  # composed
    ('291,940', '291940'),
])
def test_normalise(text, expected):
  assert rewards.normalise(text) == expected


def test_exact_match_over_aliases():
  assert rewards.exact_match(' oslo. ', ('Oslo', 'Kristiania')) == 1.0
  assert rewards.exact_match('kristiania', ('Oslo', 'Kristiania')) == 1.0
  assert rewards.exact_match('Oslo city', ('Oslo', 'Kristiania')) == 0.0


def test_token_f1_is_the_best_over_aliases():
  # overlap {north, sea} of 2 and 3 tokens: p = 2/3, r = 1
  assert rewards.token_f1('cold North Sea', ('the North Sea',)) == pytest.approx(0.8)
  assert rewards.token_f1('cold North Sea', ('x', 'cold North Sea')) == 1.0
  # repeated words count as often as both have them: overlap 1 of 2 and 1
  assert rewards.token_f1('sea sea', ('sea',)) == pytest.approx(2 / 3)
  assert rewards.token_f1('', ('sea',)) == 0.0
  assert rewards.token_f1('sea', ()) == 0.0


def test_answers_that_normalise_to_nothing():
  assert rewards.exact_match('', ('The',)) == 0.0
  assert rewards.exact_match('.', ('The',)) == 0.0
  assert rewards.exact_match(' ', ('',)) == 0.0
  assert rewards.exact_match('A', ('a',)) == 1.0  # a blood group, not an article
  assert rewards.exact_match('an', ('a',)) == 0.0
  assert rewards.exact_match('the', ('north',)) == 0.0


def test_score_of_a_right_answer():
  score = rewards.score_answer(' Oslo ; North Sea coast', TWO)
  assert (score.em, score.f1) == (1.0, pytest.approx(1.8))
  assert (score.num_answers, score.is_count_right) == (2, True)
  assert [s.em for s in score.per_question] == [1.0, 0.0]
  assert [s.answer for s in score.per_question] == ['Oslo', 'North Sea coast']


def test_a_missing_answer_does_not_crash():
  for text in ('', ' \n', ';', 'Oslo'):
    score = rewards.score_answer(text, TWO)
    assert (score.em, score.f1, len(score.per_question)) == (0.0, 0.0, 2)
  blank = rewards.score_answer('; the north sea', TWO)
  assert (blank.em, blank.num_answers, blank.is_count_right) == (1.0, 1, True)


def test_a_gold_string_is_not_compared_character_by_character():
  assert rewards.exact_match('O', 'Oslo') == 0.0
  assert rewards.exact_match('oslo', 'Oslo') == 1.0
  assert rewards.token_f1('O', 'Oslo') == 0.0
  single = task(types.Question('q', 'What?', 'Oslo'))  # a string where a tuple belongs
  assert rewards.score_answer('O', single).em == 0.0
  assert rewards.score_answer('Oslo', single).em == 1.0


@pytest.mark.parametrize('text', [
    'Oslo', 'Oslo; north sea; Bergen', 'Oslo; north sea;', 'Oslo, north sea', '; Oslo; north sea'])
def test_a_wrong_number_of_answers_scores_nothing(text):
  score = rewards.score_answer(text, TWO)
  assert (score.em, score.f1, score.is_count_right) == (0.0, 0.0, False)
  assert all((s.em, s.f1) == (0.0, 0.0) for s in score.per_question)


def test_answers_are_scored_in_the_order_of_the_questions():
  assert rewards.score_answer('North Sea; Oslo', TWO).em == 0.0


@pytest.mark.parametrize('text, em', [
    ('[q0] Oslo; [q1] north sea', 2.0), ('[q0]Oslo; north sea', 2.0), (' Oslo; [q1] north sea', 2.0),
    ('*>[q0]: Oslo;>[q1]: north sea;>.', 2.0), ('*>[q0]: Oslo;>[q1]: north sea', 2.0),
    ('*>[q0]: Oslo;*>[q1]: north sea;>.', 1.0), ('*>[q0]: Oslo;>.', 0.0),
    ('[q0]: Oslo; [q1]: north sea;>.;>.', 0.0), ('Oslo; north sea; .', 0.0),
    ('[q1] north sea; [q0] Oslo', 0.0), ('[q1] Oslo; [q0] north sea', 0.0),
    ('[q0] [q0] Oslo; [q1]', 0.0), ('[q0] Oslo', 0.0), ('[q0] Oslo; [q1] north sea; [q2] x', 0.0)])
def test_an_answer_may_begin_with_its_own_questions_label(text, em):
  assert rewards.score_answer(text, TWO).em == em


def test_a_label_alone_is_no_answer():
  assert rewards.score_answer('[q0]; [q1] north sea', TWO).num_answers == 1


def test_naming_every_alias_in_one_answer_earns_nothing():
  assert rewards.score_answer('Oslo Kristiania; x', TWO).em == 0.0


@given(st.text(), st.integers(1, 4))
def test_bounds(text, count):
  score = rewards.score_answer(text, task(*TWO.questions[:1] * count))
  assert 0 <= score.em <= score.f1 <= count
  assert len(score.per_question) == count
