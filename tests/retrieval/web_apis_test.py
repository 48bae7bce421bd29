"""APIs of web search: what is asked, what is read, and keys that show up nowhere."""

import dataclasses
import json
import logging
import pickle
import urllib.parse

import httpx
import pytest

from mem1_jax import types
from mem1_jax.retrieval import web_apis
from mem1_jax.retrieval.client import RemoteConfig
from mem1_jax.retrieval.web_apis import SEARXNG, SERPER
from tests.retrieval import servers

KEY = 'k3y-that/nobody+sees'
OSLO = {'title': 'Oslo', 'link': 'https://a.org/oslo', 'snippet': 'Capital  of\nNorway.'}
FOUND = types.Passage('Oslo', 'Capital of Norway.', id='https://a.org/oslo')


def retriever(answer, monkeypatch, api=SERPER, url='', **config):
  """A retriever, and the requests that it makes; `answer` is of a request."""
  seen = []

  def handle(request):
    seen.append(request)
    reply = answer(request) if callable(answer) else answer
    if isinstance(reply, Exception):
      raise reply
    return reply if isinstance(reply, httpx.Response) else httpx.Response(
        200, content=iter([reply if isinstance(reply, bytes) else json.dumps(reply).encode()]))

  monkeypatch.setenv('MEM1_SEARCH_API_KEY', f' {KEY}\n')
  config = RemoteConfig(**{'backoff_s': 0.0, 'max_rounds': 1, 'max_queries': 1} | config)
  return web_apis.make_web_retriever(
      api, config, url=url, transport=httpx.MockTransport(handle)), seen


def test_serper_is_asked_and_read(monkeypatch):
  made, seen = retriever({
      'searchParameters': {}, 'organic': [OSLO, {'title': 'No page'}, 'x', OSLO],
      'answerBox': {'title': 'Norway / Capital', 'answer': 'Oslo', 'link': 'https://b.org'},
      'knowledgeGraph': {'title': 'Oslo', 'type': 'City', 'description': 'A city.',
                         'descriptionLink': 'https://c.org'}}, monkeypatch)
  assert made.search(['capital of norway'], 3) == [[
      types.Passage('Norway / Capital', 'Oslo', id='https://b.org'),
      types.Passage('Oslo', 'A city.', id='https://c.org'), FOUND]]
  request, = seen
  assert (request.method, str(request.url)) == ('POST', 'https://google.serper.dev/search')
  assert json.loads(request.content) == {'q': 'capital of norway', 'num': 3}
  assert request.headers['X-API-KEY'] == KEY
  assert made.search(['nothing'], 9)[0][2:] == [FOUND, FOUND]


def test_a_direct_answer_may_have_no_page(monkeypatch):
  made, _ = retriever({'organic': [OSLO], 'answerBox': {'answer': '4'},
                       'knowledgeGraph': {'title': 'Oslo'}}, monkeypatch)
  assert made.search(['2 + 2'], 3) == [[types.Passage('Answer', '4'), FOUND]]


def test_searxng_is_asked_and_read(monkeypatch):
  made, seen = retriever({'results': [
      {'title': 'Oslo', 'url': 'https://a.org/oslo', 'content': 'Capital of Norway.'}] * 9},
      monkeypatch, SEARXNG, 'http://127.0.0.1:8888')
  assert made.search(['a & b=c {top_k}'], 2) == [[FOUND] * 2]
  request, = seen
  assert request.method == 'GET' and request.url.path == '/search'
  assert dict(request.url.params) == {'q': 'a & b=c {top_k}', 'format': 'json'}
  assert not [header for header in request.headers.values() if KEY in header]


def test_any_other_api_is_a_file(monkeypatch, tmp_path):
  file = tmp_path / 'api.json'
  file.write_text(json.dumps({
      'url': 'https://api.example.com/v1/find', 'is_post': True, 'header': 'Authorization',
      'key': 'Bearer {key}', 'ask': {'in': [{'text': '{query}'}], 'n': '{top_k}', 'lang': 'en'},
      'results': [{'path': 'data.items', 'title': 'name', 'text': ['long', 'meta.short'],
                   'url': 'at'}]}))
  made, seen = retriever({'data': {'items': [
      {'name': 'Oslo', 'at': 'https://a.org/oslo', 'meta': {'short': 'Capital of Norway.'}}]}},
      monkeypatch, web_apis.read_api(file))
  assert made.search(['oslo'], 4) == [[FOUND]]
  assert json.loads(seen[0].content) == {'in': [{'text': 'oslo'}], 'n': 4, 'lang': 'en'}
  assert str(seen[0].url) == 'https://api.example.com/v1/find'
  assert seen[0].headers['Authorization'] == f'Bearer {KEY}'


@pytest.mark.parametrize('text', [
    '[]', '{', '{}', '{"url": "x", "ask": {}, "results": []}',
    '{"url": "x", "ask": {"q": "{query}"}, "results": []}',
    '{"url": "x", "ask": {"q": "{query}"}, "results": [{"path": "a", "link": "b"}]}',
    '{"url": "x", "ask": {"q": "{query}"}, "results": ["a"]}',
    '{"url": "x", "ask": {"q": "{query}"}, "results": [{"path": "a"}], "api_key": "b"}'])
def test_files_that_describe_none(tmp_path, text):
  (tmp_path / 'api.json').write_text(text)
  with pytest.raises(ValueError, match='api.json describes no search API'):
    web_apis.read_api(tmp_path / 'api.json')


@pytest.mark.parametrize('reply', [
    b'', b'<html>', b'[]', b'null', b'{"organic": null}', b'{"organic": "x"}', b'{}',
    b'{"message": "Unauthorized."}', b'{"organic": [{}]}', b'{"organic": [[], 1, null, "x"]}',
    b'{"organic": [{"title": 1, "link": ["https://a"], "snippet": {}}]}', b'\xff\xfe',
    b'[' * 100_000, b'{"organic": [{"title": "a", "link": "javascript:x", "snippet": "b"}]}'])
def test_garbage_is_an_outage(monkeypatch, reply):
  made, _ = retriever(reply, monkeypatch)
  unavailable, = made.search(['x'], 3)
  assert isinstance(unavailable, types.Unavailable) and unavailable.reason.startswith('garbage')


def test_a_bad_result_does_not_take_others_with_it(monkeypatch):
  made, _ = retriever({'answerBox': [{}], 'knowledgeGraph': {'title': []}, 'organic': [
      None, {'title': 'x', 'link': 'ftp://a'}, OSLO | {'snippet': 3}, OSLO]}, monkeypatch)
  assert made.search(['x'], 3) == [[types.Passage('Oslo', '', id='https://a.org/oslo'), FOUND]]
  made, _ = retriever({'organic': []}, monkeypatch)
  assert made.search(['x'], 3) == [[]]  # which is no outage


def test_half_a_surrogate_pair(monkeypatch):
  made, _ = retriever(b'{"organic": [{"title": "\\ud800", "link": "https://a", "snippet": "b"}]}',
                      monkeypatch)
  (found,), = made.search(['\ud800x'], 3)
  assert found.title == '?'


def test_queries_run_side_by_side_and_keep_their_order(monkeypatch):
  def answer(request):
    query = json.loads(request.content)['q']
    return {'organic': [OSLO | {'title': query}]} if query != 'bad' else httpx.Response(400)

  made, seen = retriever(answer, monkeypatch, max_concurrent=4)
  queries = [f'q{i}' for i in range(9)] + ['bad', 'q3', '?']
  found = made.search(queries, 1)
  assert [x[0].title for x in found[:9]] == queries[:9] and found[10] == found[3]
  assert isinstance(found[9], types.Unavailable) and found[11] == [] and len(seen) == 10


@pytest.mark.parametrize('answer', [
    httpx.Response(400, content=iter([f'bad key {KEY}'.encode()])), httpx.Response(403),
    httpx.Response(500), httpx.ConnectError(f'no {KEY}'), OSError(f'{KEY} is bad'),
    httpx.Response(302, headers={'Location': f'http://b/?key={KEY}'}),
    f'{{"{KEY}": []}}'.encode(), f'no JSON {KEY}'.encode(),
    json.dumps({KEY: 'x'}).replace('/', '\\/').encode(),
    json.dumps([KEY]).replace('/', '\\u002f').encode(),
    json.dumps({'organic': [OSLO | {'title': KEY}]}).replace('/nobody', '\\/nobody').encode(),
    {'organic': [{'title': urllib.parse.quote(KEY), 'link': f'https://a.org/{KEY}',
                  'snippet': urllib.parse.quote(KEY, safe='')}]},
    {'organic': [{'title': KEY, 'link': f'https://a.org/{KEY}', 'snippet': f'{KEY} {KEY}'}]}])
def test_the_key_shows_up_nowhere(monkeypatch, caplog, answer):
  with caplog.at_level(logging.DEBUG):
    made, seen = retriever(answer, monkeypatch, max_failures=1)
    found = made.search(['x'], 3)
  assert KEY in str(seen[0].headers.raw)  # it was sent
  assert KEY not in caplog.text and KEY not in repr(found) and KEY not in repr(pickle.dumps(found))
  assert KEY not in repr(made.counts) and 'nobody+sees' not in caplog.text + repr(found)


def test_failures_do_not_carry_the_key(monkeypatch):
  made, _ = retriever(httpx.ConnectError(f'no {KEY}'), monkeypatch)
  with pytest.raises(Exception) as raised:
    made._ask(['x'], 3, made._clock() + 9)
  error = raised.value
  while error:
    assert KEY not in str(error)
    error = error.__cause__


def test_the_key_is_in_no_log_of_a_real_connection(monkeypatch, caplog):
  monkeypatch.setenv('OTHER', KEY)
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  api = dataclasses.replace(SERPER, ask={'queries': ['{query}']})
  with caplog.at_level(logging.DEBUG), servers.Chaos() as chaos:
    made = web_apis.make_web_retriever(api, RemoteConfig(max_rounds=1), url=chaos.url,
                                       variable='OTHER')
    found = made.search(['private'], 1)
  assert chaos.requests == [['private']] and found[0].reason.startswith('garbage')
  assert KEY not in caplog.text and 'private' not in caplog.text


def test_a_key_is_not_sent_for_all_to_read(monkeypatch):
  monkeypatch.setenv(web_apis.KEY, KEY)
  with pytest.raises(ValueError, match='go to a.org for everyone') as raised:
    web_apis.make_web_retriever(SERPER, RemoteConfig(), url='http://a.org/search')
  assert KEY not in str(raised.value)
  with pytest.raises(ValueError, match='comes from the environment'):
    dataclasses.replace(SERPER, key=f'Bearer {KEY}')


@pytest.mark.parametrize('key', ['', '  ', 'a b', 'a\nb', 'schlüssel', 'a\x00b'])
def test_keys_that_are_none(monkeypatch, key):
  if '\x00' not in key:
    monkeypatch.setenv('OTHER', key)
  else:
    monkeypatch.setattr('os.environ', {'OTHER': key})
  with pytest.raises(ValueError, match='OTHER') as raised:
    web_apis.make_web_retriever(SERPER, RemoteConfig(), variable='OTHER')
  assert not key.strip() or key not in str(raised.value)


def test_a_url_has_to_be_given():
  with pytest.raises(ValueError, match='no URL'):
    web_apis.make_web_retriever(SEARXNG, RemoteConfig())
  with pytest.raises(ValueError, match='web APIs take 1'):
    SERPER.write(['a', 'b'], 1)
