"""The atlas as it is loaded: splits, chains, wordings, documents."""

import importlib.resources
import string

import pytest

from mem1_jax.data import sources

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


def test_the_committed_files_are_small():
  folder = importlib.resources.files('mem1_jax.data.atlas')
  sizes = {file.name: len(file.read_bytes()) for file in folder.iterdir() if file.is_file()}
  assert {'facts.jsonl', 'tokenizer.model', 'README.md'} <= set(sizes)
  assert sum(sizes.values()) <= 2.5e6, sizes
