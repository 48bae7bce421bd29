"""Dependent tasks: labels in place of answers, and no answer to be read."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.data import chains, sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.chains import Chain, DependentComposer, Kept, link, usable, written
from mem1_jax.data.schedule import Stage
from mem1_jax.types import Question

# Words of letters alone, none twice, so that no answer stands anywhere by accident.
WORDS = [a + b + c for a in 'bdfgklmn' for b in 'aeiou' for c in 'prstvz']


def question(name, text, answer, *aliases):
  return Question(name, text, (answer, *aliases))


def chain(name, *pairs):
  return Chain(name, tuple(question(f'{name}/{k}', *pair) for k, pair in enumerate(pairs)))


def made(count, length):
  """Chains of words that no other one has."""
  return [chain(f'c{k}', (f'Where is {WORDS[k]}?', f'{WORDS[k]}place'), *(
      (f'{WORDS[k]} and what of #{step}?', f'{WORDS[k]}{step}') for step in range(1, length)))
          for k in range(count)]


@pytest.fixture(scope='module')
def linked():
  return link(sources.load_atlas('train'), 2, 0)


def test_references_become_labels():
  given_chain = chain('c', ('Where is #1?', 'Oslo'), ('#1 >> mayor', 'Ann'),
                      ('Is #2 older than #1, or #3, #0?', 'yes'))
  assert [q.text for q in written(given_chain.questions, ['[a]', '[b]', '[c]'])] == [
      'Where is #1?', 'the answer to [a] >> mayor',
      'Is the answer to [b] older than the answer to [a], or #3, #0?']


def test_the_atlas_is_linked(linked):
  assert len(linked) > 300
  asked = {q.id: q for q in sources.load_atlas('train')}
  used = [q.id for one in linked for q in one.questions]
  assert len(set(used)) == len(used)
  for one in linked:
    first, second = (asked[q.id] for q in one.questions)
    assert first.answers[0] == second.chain[0]
    assert one.questions[0] == first
    assert second.text == one.questions[1].text.replace('#1', first.answers[0])
  some = sources.load_atlas('validation')
  assert link(some, 2, 0) == link(some, 2, 0) != link(some, 2, 1)


def test_no_prompt_of_the_atlas_holds_an_answer_that_is_handed_on(linked):
  composer = DependentComposer(linked, (3, 8), 0, LABELS, 'atlas')
  for task in composer.tasks(range(200)):
    texts = [f' {" ".join(chains._words(q.text))} ' for q in task.questions]
    references = ' '.join(q.text for q in task.questions)
    for label, asked in zip(task.labels, task.questions):
      if f'the answer to {label}' in references:
        for answer in asked.answers:
          assert not any(f' {" ".join(chains._words(answer))} ' in text for text in texts)


def test_longer_chains():
  found = link(sources.load_atlas('validation'), 3, 0)
  assert len(found) > 30
  assert all('#1' in one.questions[1].text and '#2' in one.questions[2].text for one in found)


@pytest.mark.parametrize('texts, is_kept', [
    ((('Where is Rome?', 'Italy'), ('#1 >> capital', 'Rome')), True),
    ((('Is Italy it?', 'Italy'), ('#1 >> capital', 'Rome')), False),  # its own answer
    ((('Where is Bari?', 'italy!'), ('What is #1 in Italy?', 'x')), False),
    ((('Where is Bari?', 'Land of Oslo'), ('#1 >> mayor', 'Ann')), True),
    ((('Whose is Bari?', 'Norway'), ('#1 >> king', 'Ann')), False),  # another one's text
    ((('Who is he?', 'Oslo'), ('#1 >> mayor', 'Ann')), True),  # handed on twice, never read
    ((('Where is Norway?', 'North'), ('#1 >> end', 'x')), False),  # asked already
    ((('In Oslo?', 'North'), ('#1 >> end', 'x')), False),  # another one's answer
    ((('Where?', '??'), ('#1 >> end', 'x')), False),
])
def test_what_is_kept(texts, is_kept):
  kept = Kept()
  assert kept.add(chain('a', ('Where is Norway?', 'Oslo', 'Oslo City'), ('#1 >> mayor', 'Bo')))
  assert kept.add(chain('b', *texts)) == is_kept


def test_longer_answers_are_found_in_texts_read_before():
  kept = Kept()
  assert kept.add(chain('a', ('Where is the Great Wall of Old China?', 'there'), ('#1?', 'x')))
  assert not kept.add(chain('b', ('What?', 'great wall of old china'), ('#1 >> y', 'x')))


def test_usable_chains_are_cut_and_linked():
  found = usable([*made(3, 4), chain('short', ('What?', 'a')),
                  chain('loose', ('Who is A?', 'a'), ('Who is B?', 'b'), ('#1 or #2', 'b'))], 2)
  assert [one.id for one in found] == ['c0', 'c1', 'c2']
  assert all(len(one.questions) == 2 for one in found)


@given(length=st.integers(2, 4), low=st.integers(1, 9), more=st.integers(0, 4),
       seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_epochs_use_no_question_twice(length, low, more, seed):
  slots = -(-(low + more) // length)
  given_chains = made(4 * slots + 3, length)
  composer = DependentComposer(given_chains, (low, low + more), seed, LABELS, 'made')
  used, index = [], 0
  while len(used) < 2 * len(given_chains):
    task = composer.task(index)
    assert low <= len(task.questions) == len(task.labels) == len(set(task.labels)) <= low + more
    used += [q.id.split('/')[0] for q in task.questions if q.id.endswith('/0')]
    for k, asked in enumerate(task.questions):
      step = int(asked.id.split('/')[1])
      assert (f'the answer to {task.labels[k - 1]}' in asked.text) == (step > 0)
      assert '#' not in asked.text
    index += 1
  for epoch in (used[:len(given_chains)], used[len(given_chains):2 * len(given_chains)]):
    assert len(set(epoch)) == len(given_chains)


def test_many_at_once_and_in_a_curriculum():
  curriculum = [Stage(0, 2, 2), Stage(5, 4, 6)]
  composer = DependentComposer(made(30, 2), curriculum, 1, LABELS, 'made')
  assert composer.tasks([9, 2, 10**12]) == tuple(composer.task(i) for i in (9, 2, 10**12))
  assert [len(task.questions) for task in composer.tasks(range(5))] == [2] * 5
  assert composer.task(3).id == 'made-1-3' and composer.epoch_slots == 30
  assert composer.tasks([]) == ()


@pytest.mark.parametrize('given_chains, objectives, message', [
    ([], 2, '0 chains'), (made(2, 2) + made(2, 3), 2, r'\[2, 3\]'),
    (made(3, 2), 2, 'needs 4 chains of 2, there are 3'), (made(4, 2) * 2, 2, "'c0' comes twice"),
    (made(30, 2), 200, 'labels, there are 192'), (made(9, 2), 0, 'num_objectives=0')])
def test_impossible_compositions(given_chains, objectives, message):
  with pytest.raises(ValueError, match=message):
    DependentComposer(given_chains, objectives, 0, LABELS)


@pytest.mark.parametrize('make', [link, lambda questions, length, seed: usable((), length)])
def test_single_questions_are_no_chain(make):
  with pytest.raises(ValueError, match='length=1'):
    make([], 1, 0)
