"""What a config searches: here, or by servers; and `main serve-retriever` from end to end."""

import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import pytest

from mem1_jax import domains, index, main, search
from mem1_jax.metrics import CompileCounter
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.retrieval.client import RemoteRetriever
from mem1_jax.retrieval.dense import CrossEncoder, DenseRetriever
from mem1_jax.retrieval.rerank import Reranked
from mem1_jax.retrieval.server import Limits
from mem1_jax.types import Passage, Unavailable
from tests.retrieval import servers
from tests.retrieval.dense import bert_small
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
OSLO = Passage('Oslo', 'A city.')


def test_the_default_is_here_and_documents_that_are_given_are_searched_here():
  config = tiny_config()
  assert isinstance(search.make_retriever(config, [OSLO]), BM25Retriever)
  config.env.retriever = 'http://a'
  assert search.make_retriever(config, [OSLO]).passages == (OSLO,)
  seen = []
  search.make_local(config, [OSLO, OSLO], lambda: seen.append(1))
  assert len(seen) == 2


def test_servers_are_named_by_commas_and_get_the_token_of_the_environment(monkeypatch):
  monkeypatch.setenv(search.TOKEN, 'secret')
  config = tiny_config()
  config.env.retriever_timeout, config.env.retriever_patience = 2.0, 7.0
  with servers.Chaos('500') as broken, servers.Chaos() as whole:
    config.env.retriever = f'{broken.url}, {whole.url}/retrieve,'
    retriever = search.make_retriever(config)
    assert isinstance(retriever, RemoteRetriever)
    assert retriever.search(['a'], 1)[0][0].title == 'Norway'
  assert retriever.counts['server_errors'] == 1
  assert (retriever._config.timeout_s, retriever._config.patience_s) == (2.0, 7.0)
  assert retriever._client.headers['Authorization'] == 'Bearer secret'
  assert 'secret' not in str(config)


@pytest.mark.parametrize('knobs, message', [
    ({'env.retriever': ' ,'}, '0 URLs'), ({'env.retriever': 'there'}, 'URL of a search server'),
    ({'env.retriever_patience': 120.0}, 'retriever_patience 120.0 .* must stay below rollout.rep'),
    ({'rollout.reply_timeout': 40.0}, 'must stay below rollout.reply_timeout 40.0')])
def test_what_cannot_work_is_refused_at_once(knobs, message):
  config = tiny_config()
  config.env.retriever = 'http://a'
  config.update_from_flattened_dict(knobs)
  with pytest.raises(ValueError, match=message):
    search.make_retriever(config)


def test_the_command_serves_a_file_until_it_is_told_to_stop(tmp_path):
  path = tmp_path / 'corpus.jsonl'
  path.write_text('{"id": "7", "contents": "\\"Oslo\\"\\nA city."}\nbroken\n'
                  '{"title": "Moss", "text": "A town."}\n')
  process = subprocess.Popen(
      [sys.executable, '-m', 'mem1_jax.main', 'serve-retriever', f'--documents={path}', '--port=0',
       '--top-k=1', '--config.compilation_cache='],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
  try:
    line = process.stdout.readline()
    assert line.startswith('2 passages at http://127.0.0.1:'), process.stderr.read()
    url = line.split()[3]
    request = urllib.request.Request(url, b'{"queries": ["oslo city"]}')
    with urllib.request.urlopen(request, timeout=10) as reply:
      assert json.load(reply) == {'result': [[{'id': '7', 'contents': '"Oslo"\nA city.'}]]}
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=20)
  finally:
    process.kill()
  assert '1 documents cannot be used' in told and f'skipped: {path}:2: ' in told
  assert 'Traceback' not in told


@pytest.mark.parametrize('arguments, message', [
    (['--documents=nowhere.jsonl'], 'nowhere.jsonl is not there'),
    (['--top-k=9', '--max-top-k=4'], 'top_k=9 is above max_top_k=4')])
def test_mistakes_end_with_one_line(arguments, message, capsys):
  with pytest.raises(SystemExit) as error:
    main.run(['serve-retriever', '--config=base', *arguments])
  assert error.value.code == 2
  assert message in capsys.readouterr().err


@pytest.fixture(scope='module')
def reranker(tmp_path_factory):
  folder = tmp_path_factory.mktemp('reranker')
  return str(bert_small.write(folder, is_classifier=True, prefix='bert.', seed=3))


SEAS = [Passage(word, f'{word} by the sea') for word in ('oslo', 'moss', 'bergen', 'hamar')]


def test_a_reranker_ranks_what_is_found_here(reranker):
  config = tiny_config()
  config.env.reranker, config.env.rerank_candidates = reranker, 4
  retriever = search.make_retriever(config, SEAS)
  compiles = CompileCounter()
  found = retriever.search(['sea', 'the sea at bergen'], 3)
  assert compiles.names == []  # whatever the lengths: all was compiled at the start
  scorer = CrossEncoder(reranker)
  for query, passages in zip(('sea', 'the sea at bergen'), found):
    scores = sorted(zip(scorer.scores(query, SEAS), SEAS), key=lambda pair: -pair[0])
    assert [(p.title, p.score) for p in passages] == [(p.title, s) for s, p in scores[:3]]
  assert retriever.metrics()['rerank_pairs'] == 8
  config.domain = 'web'
  results, = search.make_web(config, SEAS)[0].search(['sea'], 3)
  assert [p.title for p in results] == [p.title for p in found[0]]


def test_a_reranker_ranks_what_servers_find_and_no_outage(reranker):
  config = tiny_config()
  config.env.reranker = reranker
  with servers.Chaos('500', left=1) as chaos:
    config.env.retriever, config.env.retriever_patience = chaos.url, 0.1
    retriever = search.make_retriever(config)
    (found,), (outage,) = retriever.search(['a'], 1), retriever.search(['b'], 1)
  assert found[0].title == 'Norway' and found[0].score != 1.5
  assert isinstance(outage, Unavailable) and outage.reason.startswith('server_errors')


def test_a_server_ranks_too(reranker, monkeypatch):
  config, served = tiny_config(), []
  config.env.reranker = reranker
  monkeypatch.setattr(search.server, 'serve', lambda retriever, *_: served.append(retriever))
  search.serve(config, [], '', 0, Limits(max_top_k=20))
  assert isinstance(served[0], Reranked) and len(served[0].search(['Norway'], 20)[0]) == 20


@pytest.mark.parametrize('knobs, message', [
    ({'env.top_k': 21}, 'env.top_k 21 is above env.rerank_candidates 20'),
    ({'env.reranker': 'nowhere'}, 'nowhere/config.json is missing'),
    ({'domain': 'web', 'web.top_k': 30}, 'web.top_k 30 is above env.rerank_candidates 20'),
    ({'domain': 'web', 'web.api': 'serper'}, 'which search APIs and records do not have'),
    ({'domain': 'webshop'}, 'a shop has products')])
def test_a_reranker_that_cannot_be_used_is_refused_at_once(reranker, knobs, message):
  config = tiny_config()
  config.env.reranker = reranker
  config.update_from_flattened_dict(knobs)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    domains.make_environment(config)


def test_a_server_that_allows_more_than_is_ranked_is_refused(reranker, capsys):
  with pytest.raises(SystemExit):
    main.run(['serve-retriever', '--config=base', f'--config.env.reranker={reranker}'])
  assert '--max-top-k 100 is above env.rerank_candidates 20' in capsys.readouterr().err


def test_an_encoder_of_sentences_is_no_reranker(tmp_path):
  config = tiny_config()
  config.env.reranker = str(bert_small.write(tmp_path))
  with pytest.raises(ValueError, match='has no classifier, so it ranks nothing'):
    search.make_retriever(config, SEAS)


def test_a_folder_is_an_index(tmp_path):
  encoder = str(bert_small.write(tmp_path / 'encoder'))
  path = tmp_path / 'corpus.jsonl'
  path.write_text(''.join(json.dumps({'title': word, 'text': f'{word} by the sea'}) + '\n'
                          for word in ('oslo', 'norway', 'river')))
  index.build([path], tmp_path / 'index', index.Options(encoder, batch_tokens=128), False)
  retriever, num = search.open_documents(tiny_config(), [str(tmp_path / 'index')])
  assert num == 3 and retriever.search(['norway'], 3)[0]
  config = tiny_config()
  config.env.documents = str(tmp_path / 'index')
  assert isinstance(search.make_retriever(config), DenseRetriever)


def test_a_folder_is_an_index_of_bm25(tmp_path):
  path, folder = tmp_path / 'corpus.jsonl', str(tmp_path / 'index')
  path.write_text('{"id": "7", "contents": "\\"Oslo\\"\\nA city."}\n'
                  '{"title": "Moss", "text": "A town by the sea."}\n')
  main.run(['index', '--config=base', '--kind=bm25', f'--documents={path}', f'--out={folder}'])
  config = tiny_config()
  disk, memory = (search.open_documents(config, [str(place)])[0] for place in (folder, path))
  queries = ['oslo', 'a town', 'sea', 'city']
  assert disk.search(queries, 3) == memory.search(queries, 3) and disk.search(['oslo'], 1)[0]
  assert disk.search(['oslo'], 1)[0][0].id == '7'
  config.env.documents, config.env.title_weight = folder, 3
  with pytest.raises(ValueError, match='made with title_weight=2, and title_weight=3 is asked'):
    search.make_retriever(config)
