"""The atlas as it is loaded: splits, chains, wordings, documents. Other sources by their names."""

import collections
import dataclasses
import importlib.resources
import json
import string

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.data import rows, sources
from mem1_jax.data.chains import Chain
from mem1_jax.data.sources import Choice, Shares
from mem1_jax.types import Question

SPLITS = sources.SPLITS


@pytest.fixture(scope='module')
def texts():
  """{title: text} of all documents."""
  return {passage.title: passage.text for passage in sources.atlas_documents()}


def edges(split):
  """The look-ups of a split: (document, what it yields)."""
  return {edge for question in sources.load_atlas(split)
          for edge in zip(question.chain, question.found, strict=True)}


def test_there_are_enough_documents_with_unique_titles(texts):
  passages = sources.atlas_documents()
  assert len(passages) >= 3000
  assert len(texts) == len(passages)
  assert len({title.casefold() for title in texts}) == len(passages)
  assert sum(len(sources.atlas_documents(split)) for split in SPLITS) == len(passages)


def test_there_are_enough_questions_of_every_length():
  for split, least in zip(SPLITS, (3000, 300, 600), strict=True):
    counts = [sum(q.hops == hops for q in sources.load_atlas(split)) for hops in (1, 2, 3)]
    assert min(counts) >= least, (split, counts)
  assert len(sources.load_atlas('train')) >= 5000


@pytest.mark.parametrize('split', SPLITS)
def test_every_chain_can_be_read_in_the_documents_of_its_split(split):
  texts = {passage.title: passage.text for passage in sources.atlas_documents(split)}
  for question in sources.load_atlas(split):
    assert question.hops == len(question.chain) == len(question.found)
    assert question.found[-1] == question.answers[0]
    assert question.chain[1:] == question.found[:-1]  # what is found is what is searched next
    assert question.chain[0] in question.text
    assert not set(question.found) & set(question.chain[:1])  # the answer is not the subject
    for title, found in zip(question.chain, question.found, strict=True):
      assert f' {found}' in texts[title], question


def test_no_chain_or_document_is_shared_by_two_splits():
  for one, other in (('train', 'test'), ('train', 'validation'), ('validation', 'test')):
    assert not edges(one) & edges(other)
    titles = [{p.title for p in sources.atlas_documents(split)} for split in (one, other)]
    assert not titles[0] & titles[1]


def test_held_out_wordings_appear_in_half_of_the_test_questions_only():
  def wordings(questions):
    """Texts without their subject: `What is the capital of {}?`."""
    return {q.text.replace(q.chain[0], '{}') for q in questions}

  train, test = sources.load_atlas('train'), sources.load_atlas('test')
  held_out = [q for q in test if sources.is_held_out_wording(q)]
  seen = [q for q in test if not sources.is_held_out_wording(q)]
  assert 0.45 < len(held_out) / len(test) < 0.55
  assert not any(map(sources.is_held_out_wording, train + sources.load_atlas('validation')))
  assert not wordings(held_out) & wordings(train)
  assert len(wordings(seen) - wordings(train)) <= 0.02 * len(wordings(seen))
  assert not any("'s " in q.text for q in train)


def test_ids_and_texts_are_unique_and_printable_ascii(texts):
  questions = [question for split in SPLITS for question in sources.load_atlas(split)]
  assert len({question.id for question in questions}) == len(questions)
  for split in SPLITS:
    split_texts = [question.text for question in sources.load_atlas(split)]
    assert len(set(split_texts)) == len(split_texts)
  allowed = set(string.printable) - set('\n\t\r\x0b\x0c<>')  # nor anything that could be a tag
  assert set(''.join(q.text + ''.join(q.answers) for q in questions)) <= allowed
  assert set(''.join(texts) + ''.join(texts.values())) <= allowed


def test_known_facts(texts):
  assert ' Oslo.' in texts['Norway'] and ' Norway' in texts['Oslo']
  assert ' symbol' in texts['Iron'] and ' Fe.' in texts['Iron']
  by_key = {q.id.split('/', 3)[3]: q for q in sources.load_atlas('test')}
  assert by_key['capital/Norway'].answers == ('Oslo',)
  assert by_key['calling code/Norway'].answers == ('+47',)


def test_a_question_is_the_same_every_time_and_lists_are_the_callers_own():
  first = sources.load_atlas('validation')
  expected = list(first)
  first.clear()
  assert sources.load_atlas('validation') == expected
  sources._questions.cache_clear()
  assert sources.load_atlas('validation') == expected


def test_an_unknown_split_is_named_in_the_error():
  with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
    sources.load_atlas('dev')
  with pytest.raises(ValueError, match="'dev'"):
    sources.atlas_documents('dev')


def test_a_shop_that_was_not_installed_says_so(monkeypatch, tmp_path):
  monkeypatch.setattr(sources.importlib.resources, 'files', lambda name: tmp_path)
  with pytest.raises(FileNotFoundError, match='products.jsonl is missing: install the package'):
    sources.shop_files()


def test_the_committed_files_are_small():
  folder = importlib.resources.files('mem1_jax.data.atlas')
  sizes = {file.name: len(file.read_bytes()) for file in folder.iterdir() if file.is_file()}
  assert {'facts.jsonl', 'tokenizer.model', 'README.md'} <= set(sizes)
  assert sum(sizes.values()) <= 2.5e6, sizes


ROWS = [{'question': f'Who is {k}?', 'answer': ['me'], 'id': f'r{k}'} for k in range(40)]


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'dev.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in ROWS) + 'nonsense\n')
  return path


@pytest.mark.parametrize('name', ['jsonl', 'nq_open', 'hotpotqa', '2wiki', 'musique', 'flashrag'])
def test_a_file_by_its_format(file, name):
  loaded = sources.load(f'{name}:{file}')
  assert len(loaded.questions) == 40
  assert loaded.report.problems[0].startswith(f'{file}:41: not JSON')


@pytest.mark.parametrize('row, hops', [
    ({'question': 'Q?', 'answer': ['A']}, 1), ({'question': 'Q?', 'golden_answers': ['A']}, 1),
    ({'question': 'Q?', 'answer': 'A', 'supporting_facts': [['a', 0], ['b', 1], ['c', 2]]}, 3),
    ({'question': 'Q?', 'answer': 'A', 'evidences': [['a', 'b', 'c']] * 4}, 4),
    ({'question': 'Q?', 'answer': 'A', 'type': 'bridge'}, 2)])
def test_a_format_is_guessed_behind_bad_rows(tmp_path, row, hops):
  path = tmp_path / 'dev.json'
  path.write_text(json.dumps([None, row]))
  loaded = sources.load(str(path))
  assert [q.hops for q in loaded.questions] == [hops] and loaded.report.num_bad == 1


def test_fields_of_other_names(tmp_path):
  path = tmp_path / 'dev.jsonl'
  path.write_text('{"query": "Q?", "label": ["A"]}\n{"query": "R?"}\n')
  for spec in (f'jsonl:{path}', str(path)):
    loaded = sources.load(spec, fields='question=query,golden_answers=label')
    assert [(q.text, q.answers) for q in loaded.questions] == [('Q?', ('A',))]
    assert loaded.report.problems == (f'{path}:2: column label (golden_answers) is missing',)


@pytest.mark.parametrize('name', ['rows.jsonl', 'rows.json', 'rows.parquet'])
def test_nested_columns_of_every_kind_of_file(tmp_path, name):
  records = [{'qid': k, 'ask': {'text': f'Who is {k}?'},
              'answer': {'value': 'me', 'aliases': ['I']}, 'notes': [{'short': ['a', 'b']},
                                                                     {'short': ['c']}]}
             for k in range(3)]
  path = tmp_path / name
  if path.suffix == '.parquet':
    pyarrow = pytest.importorskip('pyarrow')
    import pyarrow.parquet
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
  else:
    path.write_text(json.dumps(records) if path.suffix == '.json'
                    else '\n'.join(map(json.dumps, records)))
  for column, answers in (('answer', ('me', 'I')), ('answer.value', ('me',)),
                          ('notes.short', ('a', 'b', 'c'))):
    fields = f'question=ask.text,golden_answers={column},id=qid'
    loaded = sources.load(f'jsonl:{path}', fields=fields)
    assert loaded.questions == tuple(Question(str(k), f'Who is {k}?', answers) for k in range(3))


def test_a_column_that_no_row_has(tmp_path):
  path = tmp_path / 'dev.jsonl'
  path.write_text('nonsense\n{"query": "Q?", "answer": {"value": "A"}}\n'
                  '{"query": "R?", "n": null}\n')
  with pytest.raises(ValueError, match=r'dev.jsonl: no row has anything in answer.text, which '
                     r'data.fields names; its columns are answer.value, n, query$'):
    sources.load(f'jsonl:{path}', fields='question=query,golden_answers=answer.text')
  late = sources.load(f'jsonl:{path}', fields='question=query,golden_answers=answer.value')
  assert [q.text for q in late.questions] == ['Q?']
  assert (late.report.num_bad, late.report.problems[0][:len(f'{path}:1:')]) == (2, f'{path}:1:')
  path.write_text('')
  with pytest.raises(ValueError, match='has no rows'):
    sources.load(f'jsonl:{path}', fields='question=query')


@pytest.mark.parametrize('spec', ['atlas', 'hotpotqa:x', 'nq_open:x', 'musique:x', 'verl:x'])
def test_sources_with_fields_of_their_own(spec):
  with pytest.raises(ValueError, match=f"data.fields 'question=query': source '{spec}' has fields"):
    sources.load(spec, fields='question=query')


def test_what_cannot_be_loaded(tmp_path):
  path = tmp_path / 'dev.json'
  path.write_text('[{"question": "Q?", "answer": "A"}]')
  with pytest.raises(ValueError, match=r'no format that can be told; write FORMAT:.*dev.json'):
    sources.load(str(path))
  assert len(sources.load(f'jsonl:{path}').questions) == 1
  with pytest.raises(ValueError, match="format 'trivia' is unknown; choose atlas, tfds or one of"):
    sources.load(f'trivia:{path}')
  for spec in ('hotpotqa:absent.json', 'absent.jsonl'):
    with pytest.raises(FileNotFoundError, match='absent'):
      sources.load(spec)


def test_the_atlas_is_a_source():
  loaded = sources.load('atlas')
  assert len(loaded.questions) == sum(len(sources.load_atlas(split)) for split in SPLITS)
  assert len({q.id for q in loaded.questions}) == len(loaded.questions)
  assert len(loaded.passages) == len(sources.atlas_documents())


@pytest.mark.shared_data
def test_real_files(shared_data):
  dev = sources.load(f'hotpotqa:{shared_data}/hotpotqa/dev_7405.json')
  assert len(dev.questions) == 7405 and str(dev.report).startswith(dev.report.path)
  assert (dev.report.num_bad, dev.report.num_repeated) == (0, 0)
  nq = sources.load(f'{shared_data}/nq_open/dev_3610.jsonl')
  assert len(nq.questions) == 3610 and {q.hops for q in nq.questions} == {1}
  some = sources.load(f'{shared_data}/hotpotqa/questions_100.json')
  corpus = json.loads((shared_data / 'hotpotqa' / 'corpus_994.json').read_text())
  assert len(some.questions) == 100 and {p.title for p in some.passages} == set(corpus)


def file_of(count):
  """Questions as a file of `count` rows gives them."""
  return rows.Loaded(tuple(asked(count)), (), (), rows.Report('f', count, 0))


def asked(count):
  return [Question(f'q{k}', f'Who is {k}?', ('me',), 1 + k % 4) for k in range(count)]


def test_shares_of_splits():
  found = collections.Counter(sources.split_of(q, Shares(8, 1, 1)) for q in asked(4000))
  assert abs(found['train'] - 3200) < 100 and abs(found['test'] - 400) < 80
  only = {sources.split_of(q, Shares(0, 0, 1)) for q in asked(100)}
  assert only == {'test'}


def test_a_split_depends_on_the_text_alone():
  one = asked(1)[0]
  other = dataclasses.replace(one, id='x', text='who  IS\n0?', answers=('you',))
  assert sources.split_of(one, Shares()) == sources.split_of(other, Shares())
  # On every machine, in every process, for ever.
  assert ''.join(sources.split_of(q, Shares(2, 1, 1))[1] for q in asked(12)) == 'rrerrreraere'


@given(num=st.integers(1, 60), more=st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_splits_stay_as_rows_are_added(num, more):
  few, many = ([sources.split_of(q, Shares(2, 1, 1)) for q in asked(n)] for n in (num, num + more))
  assert many[:num] == few


def test_splits_are_disjoint_and_complete():
  whole = file_of(60)
  parts = [sources.choose(whole, split, Shares(2, 1, 1), Choice()).questions for split in SPLITS]
  assert sorted(q.id for part in parts for q in part) == sorted(q.id for q in whole.questions)


def test_a_choice_counts_what_it_leaves_out():
  loaded = sources.choose(file_of(40), '', Shares(), Choice(hops=(2, 3)))
  assert {q.hops for q in loaded.questions} == {2, 3}
  assert (len(loaded.questions), loaded.report.num_unsuitable) == (20, 20)
  loaded = sources.choose(file_of(40), '', Shares(), Choice(question_chars=(0, 9)))
  assert {q.text for q in loaded.questions} == {f'Who is {k}?' for k in range(10)}
  assert sources.choose(file_of(4), '', Shares(), Choice(answer_chars=(2, 2))).report.num_good == 4


def test_chains_are_chosen_with_their_questions():
  loaded = rows.Loaded(tuple(asked(3)), (), (Chain('q1', ()), Chain('q2', ())),
                               rows.Report('f', 3, 0))
  found = sources.choose(loaded, '', Shares(), Choice(hops=(1, 2)))
  assert [one.id for one in found.chains] == ['q1']


@pytest.mark.parametrize('make, message', [
    (lambda: Shares(-1, 1, 1), r'shares \(-1, 1, 1\)'), (lambda: Shares(0, 0, 0), 'one of them'),
    (lambda: Choice(hops=(3, 2)), r'hops=\(3, 2\)')])
def test_no_shares_and_no_choice(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_choosing_nothing():
  with pytest.raises(ValueError, match=r'f: of 9 questions 9 are .*hops=\(7, 9\).* none'):
    sources.choose(file_of(9), '', Shares(), Choice(hops=(7, 9)))
  with pytest.raises(ValueError, match="'dev'"):
    sources.choose(file_of(9), 'dev', Shares(), Choice())


def test_a_blend_has_the_weights_and_no_question_twice():
  found = sources.blend({'a': asked(100), 'b': asked(30)}, (3, 1))
  names = [q.id.split('/')[0] for q in found]
  assert collections.Counter(names) == {'a': 90, 'b': 30}
  assert len({q.id for q in found}) == 120
  more = sources.blend({'a': asked(103), 'b': asked(30)}, (3, 1))
  assert len({q.id for q in found} & {q.id for q in more}) > 110  # drawn by their ids


def test_impossible_blends():
  with pytest.raises(ValueError, match='1 sources and 2 weights'):
    sources.blend({'a': asked(3)}, (1, 2))
  with pytest.raises(ValueError, match=r'need \(3, 1\) questions'):
    sources.blend({'a': asked(2), 'b': asked(9)}, (3, 1))
