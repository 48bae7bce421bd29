"""`main index`: files → folder → retriever; killed and resumed; real documents where they are."""

import json
import sys

import numpy as np
import pytest

from mem1_jax import index, main, types
from mem1_jax.retrieval import bm25_index, documents, nearest, store
from tests.retrieval.dense import bert_small

WORDS = 'sea fjord capital norway oslo river bridge harbour'.split()
PASSAGES = [types.Passage(WORDS[i % 8], ' '.join(WORDS[j % 8] for j in range(i, i + 1 + i % 9)))
            for i in range(23)]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('files')
  lines = [json.dumps({'contents': f'"{p.title}"\n{p.text}'}) for p in PASSAGES[:20]]
  lines[5:5] = ['{"bad"', '[]']
  (folder / 'a.jsonl').write_text('\n'.join(lines) + '\nbad\n')
  (folder / 'b.json').write_text(json.dumps({f'{p.title}{i}': [p.text, ' more']
                                             for i, p in enumerate(PASSAGES[20:])} | {'bad': 3}))
  return [folder / 'a.jsonl', folder / 'b.json']


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
  return str(bert_small.write(tmp_path_factory.mktemp('encoder')))


def build(files, out, encoder, is_resumed=False, said=None, **options):
  options = {'shard_size': 5, 'batch_tokens': 128} | options
  return index.build(files, out, index.Options(encoder, **options), is_resumed,
                     (said if said is not None else []).append)


def contents(folder):
  return {file.name: file.read_bytes() for file in sorted((folder / 'shards').iterdir())}


@pytest.fixture(scope='module')
def whole(files, encoder, tmp_path_factory):
  out, said = tmp_path_factory.mktemp('out') / 'index', []
  manifest = build(files, out, encoder, said=said)
  return out, manifest, said


def test_an_index_has_all_passages_and_says_what_it_lacks(whole, files):
  out, manifest, said = whole
  assert (manifest['num_passages'], manifest['num_bad'], manifest['num_cut']) == (23, 4, 0)
  assert manifest == {key: value for key, value in store.read_manifest(out).items()
                      if key != 'format'}
  assert [shard.num_passages for shard in store.shards(out)] == [5, 5, 5, 5, 3]
  assert len(said) == 5 and said[0].startswith(f'skipped: {files[0]}:6: ')
  assert '23 passages, 23 of them new' in said[-1] and '4 documents skipped' in said[-1]
  found = list(store.Passages(out))
  assert found[:20] == PASSAGES[:20] and found[20].title == f'{PASSAGES[20].title}0'
  assert found[20].text == f'{PASSAGES[20].text} more'


@pytest.mark.parametrize('engine', ['numpy', 'faiss'])
def test_a_retriever_over_it(engine, whole, encoder):
  if engine == 'faiss':
    pytest.importorskip('faiss')
  dense = index.open_retriever(whole[0], engine=engine)
  in_memory = index.over(index.SentenceEncoder(encoder), list(dense.passages), engine='numpy')
  for query in ('oslo harbour', 'the river'):
    found, expected = dense.search([query], 4)[0], in_memory.search([query], 4)[0]
    assert len(found) == 4
    assert found[0].score == pytest.approx(expected[0].score, abs=2e-3)  # float16
  assert dense.search(['?'], 4) == [[]]


def test_killed_and_resumed_is_the_same_to_the_bit(whole, files, encoder, tmp_path, monkeypatch):
  out, written = tmp_path / 'index', store.write_shard

  def killed(folder, number, *args, **kwargs):
    if number == 3:
      (folder / 'shards' / '00003.npy').write_bytes(b'half of it')
      raise KeyboardInterrupt
    return written(folder, number, *args, **kwargs)

  monkeypatch.setattr(store, 'write_shard', killed)
  with pytest.raises(KeyboardInterrupt):
    build(files, out, encoder)
  monkeypatch.setattr(store, 'write_shard', written)
  assert len(store.shards(out)) == 3
  with pytest.raises(ValueError, match='is not whole; go on with `main index --resume`'):
    index.open_retriever(out)
  said = []
  manifest = build(files, out, encoder, is_resumed=True, said=said)
  assert manifest == whole[1] and contents(out) == contents(whole[0])
  assert '23 passages, 8 of them new' in said[-1]
  again = build(files, out, encoder, is_resumed=True)
  assert again == manifest and contents(out) == contents(whole[0])


def test_an_index_that_is_there_is_neither_overwritten_nor_mixed(whole, files, encoder):
  out = whole[0]
  with pytest.raises(FileExistsError, match='has an index already; go on with it by --resume'):
    build(files, out, encoder)
  with pytest.raises(ValueError, match="begun with another template .*'{title} {text}'"):
    build(files, out, encoder, is_resumed=True, template='{text}')
  with pytest.raises(ValueError, match='begun with another shard_size, documents'):
    build(files[:1], out, encoder, is_resumed=True, shard_size=4)


def test_another_encoder_is_refused(whole, files, tmp_path):
  other = str(bert_small.write(tmp_path / 'other', seed=3))
  with pytest.raises(ValueError, match='was made with another encoder than .*other'):
    index.open_retriever(whole[0], other)
  with pytest.raises(ValueError, match='begun with another fingerprint'):
    build(files, whole[0], other, is_resumed=True)


def test_the_folder_says_how_queries_are_encoded(files, encoder, tmp_path):
  build(files, tmp_path / 'index', encoder, query_prefix='q: ', passage_prefix='p: ',
        max_length=20, stored='float32')
  dense = index.open_retriever(tmp_path / 'index')
  asker = index.SentenceEncoder(encoder, query_prefix='q: ', max_length=20)
  query = asker.encode_queries(asker.tokenize_queries(['oslo']))[0]
  best = dense.search(['oslo'], 1)[0][0]
  vectors = store.open_vectors(tmp_path / 'index')
  assert vectors.dtype == np.float32
  assert best.score == pytest.approx(float((vectors.rows(np.arange(23)) @ query).max()), rel=1e-9)


def test_an_approximate_index_can_be_added(files, encoder, tmp_path):
  pytest.importorskip('faiss')
  out = tmp_path / 'index'
  build(files, out, encoder)
  exact = index.open_retriever(out, engine='numpy').search(['oslo'], 3)
  manifest = build(files, out, encoder, is_resumed=True, kind='hnsw')
  assert manifest['kind'] == 'hnsw'
  assert index.open_retriever(out).search(['oslo'], 3) == exact  # of 23, all are candidates
  with pytest.raises(ValueError, match='ivfpq needs 9984 vectors or more'):
    build(files, out, encoder, is_resumed=True, kind='ivfpq')


def test_without_faiss(whole, files, encoder, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'faiss', None)
  assert len(index.open_retriever(whole[0]).search(['oslo'], 3)[0]) == 3
  with pytest.raises(ValueError, match=r'pip install mem1_jax\[retriever\]'):
    build(files, tmp_path / 'index', encoder, kind='hnsw')
  assert not (tmp_path / 'index').exists()


BM25 = dict(k1=1.2, b=0.75, title_weight=2, shard_size=5, say=lambda _: None)


@pytest.mark.parametrize('at', ['write_shard', 'write_array', 'write_manifest'])
def test_bm25_killed_opens_nowhere_and_begins_anew(at, files, tmp_path, monkeypatch):
  whole, out, calls = tmp_path / 'whole', tmp_path / 'index', []
  manifest = index.build_bm25(files, whole, is_resumed=False, **BM25)
  assert (manifest['num_passages'], manifest['num_bad'], manifest['k1']) == (23, 4, 1.2)
  last, written = {'write_shard': 3, 'write_array': 6, 'write_manifest': 2}[at], getattr(store, at)

  def killed(*args, **kwargs):
    calls.append(args)
    if len(calls) == last:
      raise KeyboardInterrupt
    return written(*args, **kwargs)

  monkeypatch.setattr(store, at, killed)
  with pytest.raises(KeyboardInterrupt):
    index.build_bm25(files, out, is_resumed=False, **BM25)
  monkeypatch.setattr(store, at, written)
  with pytest.raises(ValueError, match='is not whole'):
    bm25_index.open_retriever(out, k1=1.2, b=0.75, title_weight=2)
  with pytest.raises(FileExistsError, match='by --resume'):
    index.build_bm25(files, out, is_resumed=False, **BM25)
  with pytest.raises(ValueError, match='begun with another k1'):
    index.build_bm25(files, out, is_resumed=True, **BM25 | {'k1': 0.9})
  assert index.build_bm25(files, out, is_resumed=True, **BM25) == manifest
  assert contents(out) == contents(whole)
  found = [bm25_index.open_retriever(folder, k1=1.2, b=0.75, title_weight=2).search(WORDS, 9)
           for folder in (whole, out)]
  assert found[0] == found[1]
  stamp = (out / 'titles.npy').stat().st_mtime_ns
  index.build_bm25(files, out, is_resumed=True, **BM25)
  assert (out / 'titles.npy').stat().st_mtime_ns == stamp  # it was whole


def test_the_command_writes_bm25(files, tmp_path, capsys):
  arguments = ['index', '--config=base', '--documents', *map(str, files), '--out',
               str(tmp_path / 'index'), '--kind=bm25', '--config.env.bm25_k1=0.9']
  main.run(arguments)
  captured = capsys.readouterr().err
  assert 'index 27/27 · ' in captured and '23 passages; 4 documents skipped' in captured
  assert captured.count('skipped: ') == 4
  manifest = store.read_manifest(tmp_path / 'index')
  assert (manifest['kind'], manifest['k1'], manifest['b']) == ('bm25', 0.9, 0.75)
  for more, message in ((['--encoder=x', '--resume'], '--kind bm25 has no encoder'),
                        (['--kind=flat'], '--kind flat needs --encoder'),
                        (['--resume', '--config.env.bm25_b=2.0'], '0 ≤ b ≤ 1'),
                        (['--resume', '--shard-size=0'], 'shard_size=0 is below 1')):
    with pytest.raises(SystemExit):
      main.run([*arguments, *more])
    assert message in capsys.readouterr().err


def test_an_index_of_one_kind_is_not_taken_for_another(whole, files, encoder, tmp_path):
  with pytest.raises(ValueError, match='begun with another kind, k1, b, title_weight'):
    index.build_bm25(files, whole[0], is_resumed=True, **BM25)
  index.build_bm25(files, tmp_path / 'index', is_resumed=False, **BM25)
  with pytest.raises(ValueError, match='is an index of kind bm25; open it with'):
    index.open_retriever(tmp_path / 'index')
  with pytest.raises(ValueError, match='begun with another encoder|another stored'):
    build(files, tmp_path / 'index', encoder, is_resumed=True)


def test_only_bad_documents(encoder, tmp_path):
  (tmp_path / 'a.jsonl').write_text('bad\n' * 12)
  said = []
  with pytest.raises(ValueError, match='none of the 12 documents of .*a.jsonl can be used'):
    build([tmp_path / 'a.jsonl'], tmp_path / 'index', encoder, said=said)
  assert len(said) == 10  # the first ones


@pytest.mark.parametrize('options, message', [
    (dict(kind='lsh'), "kind 'lsh'"), (dict(stored='int8'), "stored 'int8'"),
    (dict(shard_size=0), 'shard_size=0'), (dict(template='x'), 'it needs {text}')])
def test_options_out_of_range(options, message):
  with pytest.raises(ValueError, match=message):
    index.Options('x', **options)
  with pytest.raises(ValueError, match="engine 'x' is unknown"):
    index._exact(nearest.Vectors([np.ones([1, 2])]), 'x')


def test_the_command(files, encoder, tmp_path, capsys):
  arguments = ['index', '--config=base', '--documents', *map(str, files), '--encoder', encoder,
               '--out', str(tmp_path / 'index'), '--shard-size=9', '--batch-tokens=128']
  main.run(arguments)
  captured = capsys.readouterr()
  assert 'index 27/27 · ' in captured.err and '23 passages, 23 of them new' in captured.err
  assert store.read_manifest(tmp_path / 'index')['template'] == '{title} {text}'
  with pytest.raises(SystemExit):
    main.run(arguments)
  assert 'mem1 index: ' in capsys.readouterr().err
  main.run([*arguments, '--resume'])
