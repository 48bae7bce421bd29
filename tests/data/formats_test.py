"""Fields of each data set → questions, on rows as their owners publish them."""

import pytest

from mem1_jax.data import formats, rows, sources
from mem1_jax.data.chains import written
from mem1_jax.types import Passage, Question

HOTPOT = {
    '_id': '5a8b57f25542995d1e6f1371', 'question': 'Were Scott Derrickson and Ed Wood of the same '
    'nationality?', 'answer': 'yes', 'type': 'comparison', 'level': 'hard',
    'supporting_facts': [['Scott Derrickson', 0], ['Ed Wood', 0], ['Ed Wood', 1]],
    'context': [['Ed Wood', ['Ed Wood was a filmmaker.', ' He was American.']], ['Adam', ['A.']]]}
TWO_WIKI = {
    '_id': '8813f87c0bdd11eba7f7acde48001122', 'type': 'compositional',
    'question': 'Who is the mother of the director of film Polish-Russian War (Film)?',
    'context': [['Xawery Żuławski', ['Xawery Żuławski is a director.', 'Born in 1971.']]],
    'supporting_facts': [['Polish-Russian War (film)', 1], ['Xawery Żuławski', 2]],
    'evidences': [['Polish-Russian War', 'director', 'Xawery Żuławski'],
                  ['Xawery Żuławski', 'mother', 'Małgorzata Braunek']],
    'answer': 'Małgorzata Braunek'}
MUSIQUE = {
    'id': '2hop__482757_12019',
    'paragraphs': [{'idx': 0, 'title': 'Maria', 'paragraph_text': 'About her.',
                    'is_supporting': False}],
    'question': "When was the institute that owned The Collegian founded?",
    'question_decomposition': [
        {'id': 482757, 'question': 'The Collegian >> owned by', 'answer': 'Houston Baptist '
         'University', 'paragraph_support_idx': 5},
        {'id': 12019, 'question': 'When was #1 founded?', 'answer': '1960',
         'paragraph_support_idx': 9}],
    'answer': '1960', 'answer_aliases': ['in 1960', '1960', ''], 'answerable': True}


@pytest.mark.parametrize('text, fields', [
    ('', {}), (' ', {}), ('question=query', {'question': 'query'}),
    (' question = My Query , golden_answers=a.b,id=x=y',
     {'question': 'My Query', 'golden_answers': 'a.b', 'id': 'x=y'})])
def test_fields_by_their_columns(text, fields):
  assert formats.fields_of(text) == fields


@pytest.mark.parametrize('text, message', [
    ('query', "'query' is not FIELD=COLUMN"), ('question=', "'question=' is not"),
    ('=query', 'write it like question=query'), (',', "data.fields ',': '' is not"),
    ('qestion=query', "field 'qestion' is unknown; choose from id, question, golden_answers, hops"),
    ('id=a,id=b', "field 'id' comes twice")])
def test_no_fields(text, message):
  with pytest.raises(ValueError, match=message):
    formats.fields_of(text)


def test_renamed_rows():
  row = {'question': 'old', 'query': 'new', 'hops': 3, 'n': None, 'answer': 'A'}
  assert formats.renamed(row, {'question': 'query', 'hops': 'n'}) == {
      'question': 'new', 'query': 'new', 'n': None, 'answer': 'A'}
  with pytest.raises(ValueError, match=r'column label \(golden_answers\) is missing'):
    formats.renamed(row, {'golden_answers': 'label'})  # and its own `answer` is no substitute


@pytest.mark.parametrize('column, value', [
    ('a.b', 1), ('c.d', 2), ('c.d.e', None), ('f.g', [3, 4, 5]), ('f.h', None), ('x', None),
    ('c', {'d': 2})])
def test_columns(column, value):
  row = {'a.b': 1, 'a': {'b': 0}, 'c': {'d': 2}, 'f': [{'g': 3}, {'g': [4, 5]}, {}]}
  assert formats.value_at(row, column) == value
  assert list(formats.columns_of(row)) == ['a.b', 'a.b', 'c.d', 'f.g']


def one(parsed):
  question, = parsed.questions
  return question


def test_hotpotqa():
  parsed = formats.hotpotqa(HOTPOT)
  assert one(parsed) == Question(HOTPOT['_id'], HOTPOT['question'], ('yes',), 2)
  assert parsed.passages == (
      Passage('Ed Wood', 'Ed Wood was a filmmaker. He was American.'), Passage('Adam', 'A.'))


def test_hotpotqa_as_the_hub_has_it():
  nested = HOTPOT | {'supporting_facts': {'title': ['a', 'b', 'c', 'a'], 'sent_id': [0, 1, 2, 3]},
                     'context': {'title': ['Adam'], 'sentences': [['A.', 'B.']]}}
  parsed = formats.hotpotqa(nested)
  assert one(parsed).hops == 3 and parsed.passages == (Passage('Adam', 'A. B.'),)


def test_hotpotqa_with_nothing_but_a_question():
  bare = {'question': HOTPOT['question'], 'answer': 'yes', 'type': 'comparison'}
  assert one(formats.hotpotqa(bare)) == Question(
      formats.text_id(HOTPOT['question']), HOTPOT['question'], ('yes',), 2)


def test_two_wiki():
  parsed = formats.two_wiki(TWO_WIKI)
  assert one(parsed) == Question(TWO_WIKI['_id'], TWO_WIKI['question'], ('Małgorzata Braunek',), 2)
  assert parsed.passages[0].text == 'Xawery Żuławski is a director. Born in 1971.'
  four = TWO_WIKI | {'evidences': [['a', 'b', 'c']] * 4, 'answer_aliases': ['M. Braunek']}
  assert one(formats.two_wiki(four)).hops == 4
  assert one(formats.two_wiki(four)).answers == ('Małgorzata Braunek', 'M. Braunek')


def test_musique():
  parsed = formats.musique(MUSIQUE)
  assert one(parsed) == Question(MUSIQUE['id'], MUSIQUE['question'], ('1960', 'in 1960'), 2)
  assert parsed.passages == (Passage('Maria', 'About her.'),)
  first, second = written(parsed.chain.questions, ['[a]', '[b]'])
  assert first.text == 'The Collegian >> owned by'
  assert second.text == 'When was the answer to [a] founded?'
  assert first.answers == ('Houston Baptist University',) and second.answers == ('1960', 'in 1960')
  assert parsed.chain.id == MUSIQUE['id']


def test_an_unanswerable_row_is_left_out():
  loaded = rows.gather('f', iter([(1, MUSIQUE | {'answerable': False}), (2, MUSIQUE)]),
                       formats.musique)
  assert (loaded.report.num_good, loaded.report.num_left_out, loaded.report.num_bad) == (1, 1, 0)
  assert len(loaded.chains) == 1


def test_nq_open_and_flashrag():
  asked = one(formats.nq_open({'question': 'who sang it', 'answer': ['Bob', 'Bob', 'Bob Russell']}))
  assert asked == Question(formats.text_id('who sang it'), 'who sang it', ('Bob', 'Bob Russell'))
  row = {'id': 'train_0', 'question': 'Who?', 'golden_answers': ['A', 'B'], 'metadata': {'x': 1}}
  assert one(formats.flashrag(row)) == Question('train_0', 'Who?', ('A', 'B'))
  assert one(formats.flashrag({'question': 'Who?', 'answer': 'A', 'id': 7})).id == '7'
  full = {'id': 'q', 'question': 'Who?', 'answer': 'A', 'hops': 2, 'chain': ['x', 'y'],
          'found': ['y', 'A'], 'relations': ['r', 's']}
  assert one(formats.flashrag(full)) == Question('q', 'Who?', ('A',), 2, ('x', 'y'), ('y', 'A'),
                                                 ('r', 's'))


@pytest.mark.parametrize('answer', [
    {'value': 'A', 'aliases': ['B', 'A'], 'normalized_value': 'a'}, {'text': ['A', 'B', 'A']}])
def test_answers_as_objects(answer):
  assert formats.answers_of({'answer': answer}, 'answer') == ('A', 'B')


def test_ids_of_texts_do_not_depend_on_case_and_spaces():
  assert formats.text_id('Who  is\nhe?') == formats.text_id('who is he?') != formats.text_id('who?')
  assert formats.text_id('Who?') == 'a109daa7fbe2e019'  # splits and resumed runs depend on it


@pytest.mark.parametrize('parse, row, message', [
    (formats.hotpotqa, HOTPOT | {'answer': None}, 'answer is missing'),
    (formats.hotpotqa, HOTPOT | {'supporting_facts': 'x'}, 'supporting_facts is'),
    (formats.hotpotqa, HOTPOT | {'supporting_facts': [[]]}, 'supporting_facts is'),
    (formats.hotpotqa, HOTPOT | {'context': [['A']]}, 'context is'),
    (formats.hotpotqa, HOTPOT | {'context': {'title': ['A'], 'sentences': []}}, 'context is'),
    (formats.hotpotqa, HOTPOT | {'context': [['A', [None]]]}, 'context is'),
    (formats.hotpotqa, HOTPOT | {'context': [['\ud800', []]]}, 'context is not valid Unicode'),
    (formats.hotpotqa, HOTPOT | {'supporting_facts': {'title': 'A'}}, 'supporting_facts is'),
    (formats.hotpotqa, HOTPOT | {'context': {'title': 3, 'sentences': []}}, 'context is'),
    (formats.two_wiki, TWO_WIKI | {'evidences': 'x'}, 'evidences is'),
    (formats.two_wiki, TWO_WIKI | {'answer_aliases': 'x'}, 'answer_aliases is'),
    (formats.musique, MUSIQUE | {'answerable': 'no'}, "answerable is 'no'"),
    (formats.musique, MUSIQUE | {'answer_aliases': [1]}, 'answer_aliases has 1'),
    (formats.musique, MUSIQUE | {'paragraphs': ['x']}, 'paragraphs is'),
    (formats.musique, MUSIQUE | {'paragraphs': [{'title': 'x'}]}, 'paragraph_text is missing'),
    (formats.musique, MUSIQUE | {'question_decomposition': [1]}, 'question_decomposition is'),
    (formats.musique, MUSIQUE | {'question_decomposition': [{'question': 'x'}]},
     'answer is missing'),
    (formats.nq_open, {'question': 'who', 'answer': 'me'}, "answer is 'me', not a list"),
    (formats.flashrag, {'question': 'who', 'answer': {'value': None}}, 'answer has None'),
    (formats.flashrag, {'question': 'who', 'answer': {'aliases': 5}}, 'answer has 5'),
])
def test_bad_fields_are_named(parse, row, message):
  with pytest.raises(ValueError, match=message):
    parse(row)


@pytest.mark.parametrize('row, name', [
    (HOTPOT, 'hotpotqa'), ({'question': 'x', 'answer': 'y', 'type': 'bridge'}, 'hotpotqa'),
    (TWO_WIKI, 'two_wiki'), (MUSIQUE, 'musique'),
    ({'question': 'x', 'answer': ['y']}, 'nq_open'), ({'reward_model': {}, 'question': 1}, 'verl'),
    ({'question': 'x', 'golden_answers': ['y']}, 'flashrag')])
def test_guesses(row, name):
  assert formats.guess(row) == name
  assert name in sources.FORMATS


@pytest.mark.parametrize('row', [{}, {'question': 'x', 'answer': 'y'}, {'text': 'x'}])
def test_no_guess(row):
  with pytest.raises(ValueError, match='of no format that can be told'):
    formats.guess(row)
