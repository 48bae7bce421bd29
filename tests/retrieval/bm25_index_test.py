"""BM25 on disk finds what BM25 in memory finds, to the bit, and opens only where it is whole."""

import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.retrieval import bm25, bm25_index, documents, store

KNOBS = dict(k1=1.3, b=0.6, title_weight=2)
WORDS = 'sea fjord capital norway oslo river bridge harbour'.split()
PASSAGES = [
    types.Passage('Oslo', 'The capital of Norway.', id='7'), types.Passage('', 'A river; a river.'),
    types.Passage("Oslo's", 'A harbour.'), types.Passage('?', '!'), types.Passage('ÓSLO', 'Twin.'),
    *(types.Passage(WORDS[i % 8], ' '.join(WORDS[j % 8] for j in range(i, i + 1 + i % 9)),
                    id=str(i)) for i in range(23))]
QUERIES = ['oslo', 'Oslo harbour', 'river', 'the capital of norway', '?', '', 'zzz', "sea's bridge",
           'fjord fjord sea', '\ud800 sea']


def build(folder, passages=PASSAGES, shard_size=5, **knobs):
  """An index of these passages, and of a bad document behind the third."""
  knobs = KNOBS | knobs
  found = [documents.Document(passage, documents.Place(0, i, i)) for i, passage in
           enumerate(passages)]
  found[3:3] = [documents.Document(None, documents.Place(0, 3, 3), 'bad')]
  store.write_manifest(folder, {'kind': 'bm25', 'is_whole': False} | knobs)
  counts = bm25_index.build(found, folder, shard_size=shard_size, **knobs)
  store.write_manifest(folder, {'kind': 'bm25', 'is_whole': True} | knobs | counts)
  return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return build(tmp_path_factory.mktemp('indices') / 'index')


def assert_finds_the_same(folder, passages=PASSAGES, queries=QUERIES, **knobs):
  disk = bm25_index.open_retriever(folder, **KNOBS | knobs)
  memory = bm25.BM25Retriever(passages, **KNOBS | knobs)
  assert list(disk.passages) == list(memory.passages)
  for top_k in (1, 3, 99):
    assert disk.search(queries, top_k) == memory.search(queries, top_k)  # scores and ids, too


def test_it_finds_what_memory_finds(folder):
  assert_finds_the_same(folder)
  found = bm25_index.open_retriever(folder, **KNOBS).search(['oslo'], 99)[0]
  titled = [bm25.words(passage.title) == ('oslo',) for passage in found]
  assert sum(titled) == 6 and all(titled[:6]) and len(found) > 6
  assert {('Oslo', '7'), ("Oslo's", ''), ('ÓSLO', '')} < {(p.title, p.id) for p in found}
  manifest = store.read_manifest(folder)
  assert (manifest['num_passages'], manifest['num_bad']) == (28, 1)
  assert [(shard.num_passages, shard.num_bad) for shard in store.shards(folder)] == [
      (5, 1), *[(5, 0)] * 4, (3, 0)]


@settings(max_examples=20, deadline=None)
@given(corpus=st.lists(st.tuples(*[st.lists(st.sampled_from(WORDS), max_size=4)] * 2), min_size=1),
       queries=st.lists(st.lists(st.sampled_from(WORDS), max_size=4), min_size=1),
       k1=st.sampled_from([0.0, 0.9, 1.2]), b=st.sampled_from([0.0, 0.4, 1.0]))
def test_any_corpus(tmp_path_factory, corpus, queries, k1, b):
  passages = [types.Passage(' '.join(title), ' '.join(text)) for title, text in corpus]
  if any(passage.title or passage.text for passage in passages):
    folder = build(tmp_path_factory.mktemp('any'), passages, k1=k1, b=b)
    assert_finds_the_same(folder, passages, [' '.join(query) for query in queries], k1=k1, b=b)


def test_scores_and_passages_stay_on_disk(folder):
  disk = bm25_index.open_retriever(folder, **KNOBS)
  assert isinstance(disk.passages, store.Passages)
  for name in ('data', 'indices', 'indptr'):
    assert disk._scores.scores[name].filename  # a memory map


def test_titles_of_one_hash_are_told_from_each_other(tmp_path, monkeypatch):
  monkeypatch.setattr(bm25_index, '_hash', lambda title: len(title))
  assert_finds_the_same(build(tmp_path / 'index'))


def test_an_index_is_the_same_whenever_it_is_built(folder, tmp_path):
  again = build(tmp_path / 'index')
  files = sorted(file.relative_to(folder) for file in folder.rglob('*') if file.is_file())
  assert len(files) > 20
  for file in files:
    assert (again / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize('knob, value', [('k1', 0.9), ('b', 0.75), ('title_weight', 1)])
def test_other_settings_are_refused_by_name(folder, knob, value):
  with pytest.raises(ValueError, match=f'was made with {knob}={KNOBS[knob]}, and {knob}={value} is '
                     'asked for; ask with its own .*env.bm25_k1'):
    bm25_index.open_retriever(folder, **KNOBS | {knob: value})


def test_what_is_not_whole_or_another_kind_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='is no index'):
    bm25_index.open_retriever(tmp_path, **KNOBS)
  store.write_manifest(tmp_path, {'kind': 'flat', 'is_whole': True})
  with pytest.raises(ValueError, match='no index of kind bm25'):
    bm25_index.open_retriever(tmp_path, **KNOBS)
  folder = build(tmp_path / 'index')
  manifest = store.read_manifest(folder)
  store.write_manifest(folder, manifest | {'is_whole': False})
  with pytest.raises(ValueError, match='not whole; begin again with `main index --kind bm25 --res'):
    bm25_index.open_retriever(folder, **KNOBS)
  store.write_manifest(folder, manifest)
  pathlib.Path(folder / 'shards' / '00005.json').unlink()
  with pytest.raises(ValueError, match='is damaged: it has 25 of 28 passages, and scores of 28'):
    bm25_index.open_retriever(folder, **KNOBS)


def test_documents_without_a_word(tmp_path):
  with pytest.raises(ValueError, match='none of the 1 passages has a word'):
    build(tmp_path / 'index', [types.Passage('?', '!')])
  with pytest.raises(ValueError, match='not whole'):
    bm25_index.open_retriever(tmp_path / 'index', **KNOBS)
