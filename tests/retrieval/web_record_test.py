"""Recorded and replayed: the same, without a network and without keys."""

import json
import threading

import httpx
import pytest

from mem1_jax import types
from mem1_jax.retrieval import web_apis, web_record
from mem1_jax.retrieval.client import RemoteConfig
from mem1_jax.retrieval.web_record import Recorder, Replay

OUTAGE, LOST = types.Unavailable('timeouts: slow'), types.Unavailable('no_text: x', True)


class Web:
  """Finds as many results as it has for any query that is not `down` (a fake)."""

  def __init__(self, size=3):
    self.size, self.calls = size, []

  def search(self, queries, top_k):
    self.calls.append(('search', tuple(queries), top_k))
    return [OUTAGE if query == 'down' else
            [types.Passage(f'{query} {i}', 'Ünï\n"x"</answer>', i / 3, f'https://a.org/{i}')
             for i in range(min(top_k, self.size))] for query in queries]

  def open(self, urls):
    self.calls.append(('open', tuple(urls)))
    return [{'down': OUTAGE, 'lost': LOST}.get(url, types.Passage('T', f'text of {url}', id=url))
            for url in urls]


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'runs' / 'web.jsonl'


def recorded(file, web=None):
  web = web or Web()
  return Recorder(web, web, file)


def test_replayed_is_what_was_recorded(file):
  recorder = recorded(file)
  found = recorder.search(['a', 'b', 'a', '?'], 2)
  pages = recorder.open(['https://a.org/0', 'lost'])
  recorder.close()
  for _ in range(2):
    replay = Replay(file)
    assert replay.search(['a', 'b', 'a'], 2) == found[:3] and replay.search(['?'], 2) == [[]]
    assert replay.open(['https://a.org/0', 'lost']) == pages == [
        types.Passage('T', 'text of https://a.org/0', id='https://a.org/0'), LOST]
    assert replay.counts == {'queries': 4, 'pages': 2, 'missing': 0}
    assert replay.metrics()['replay_queries'] == 4 and recorder.metrics() == {}  # its parts have none


def test_what_is_missing_is_an_outage(file):
  recorder = recorded(file)
  assert recorder.search(['a', 'down'], 2)[1] == recorder.open(['down'])[0] == OUTAGE
  replay = Replay(file)
  missing = [replay.search(['b', 'down'], 2), replay.search(['a'], 3), replay.open(['x', 'down'])]
  assert all(isinstance(x, types.Unavailable) and x.reason.startswith('missing: this ')
             and not x.is_lasting for found in missing for x in found)
  assert replay.counts == {'queries': 3, 'pages': 2, 'missing': 5}


def test_fewer_results_than_were_recorded(file):
  recorder = recorded(file, Web(2))
  full, = recorder.search(['a'], 5)
  replay = Replay(file)
  assert replay.search(['a'], 1) == [full[:1]]
  assert replay.search(['a'], 99) == [full]  # there was no more
  assert recorder.search(['a'], 1) and len(file.read_text().splitlines()) == 1
  with pytest.raises(ValueError, match='top_k=0'):
    replay.search(['a'], 0)


def test_a_record_is_continued_and_says_everything_once(file):
  for _ in range(3):
    recorder = recorded(file)
    recorder.search(['a', 'a', 'down'], 2)
    recorder.open(['u', 'u', 'down'])
    recorder.close()
  lines = [json.loads(line) for line in file.read_text().splitlines()]
  assert [sorted(line) for line in lines] == [['query', 'results', 'top_k'],
                                              ['text', 'title', 'url']]
  recorder = recorded(file)
  recorder.search(['a'], 3)  # more of them
  assert len(Replay(file).search(['a'], 3)[0]) == 3


def test_a_line_that_was_cut_short_is_no_trouble(file):
  recorder = recorded(file)
  recorder.search(['a'], 2)
  recorder.open(['u'])
  recorder.close()
  file.write_bytes(file.read_bytes()[:-9])
  replay = Replay(file)
  assert len(replay.search(['a'], 2)[0]) == 2 and replay.open(['u'])[0].reason
  recorder = recorded(file)
  recorder.open(['u'])
  recorder.close()
  assert Replay(file).open(['u'])[0].text == 'text of u'


@pytest.mark.parametrize('line', ['no', '[]', '7', '{}', '{"query": "a"}', '{"url": ["u"]}', '',
                                  '{"query": "a", "top_k": 1, "results": [{"title": "x"}]}'])
def test_files_that_are_no_record(file, line):
  file.parent.mkdir()
  file.write_text('{"url": "u", "title": "t", "text": "x"}\n' + line + '\n')
  for make in (Replay, recorded):
    with pytest.raises(ValueError, match='web.jsonl:2 is no line of a record'):
      make(file)


def test_there_has_to_be_one(file):
  with pytest.raises(FileNotFoundError, match='record one'):
    Replay(file)


def test_threads_write_whole_lines(file):
  recorder = recorded(file)

  def work(number):
    for i in range(30):
      recorder.search([f'q {number} {i}', f'shared {i}'], 3)

  threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(file.read_text().splitlines()) == 150
  assert Replay(file).search(['q 3 29'], 3) == Web().search(['q 3 29'], 3)


def test_no_key_is_recorded(file, monkeypatch):
  monkeypatch.setenv(web_apis.KEY, 'k3y-of-ours')

  def handle(request):  # a server that sends back what it gets
    key = request.headers['X-API-KEY']
    return httpx.Response(200, content=iter([json.dumps({'organic': [
        {'title': key, 'link': f'https://a.org/?k={key}', 'snippet': f'x {key}'}]}).encode()]))

  retriever = web_apis.make_web_retriever(web_apis.SERPER, RemoteConfig(),
                                          transport=httpx.MockTransport(handle))
  Recorder(retriever, Web(), file).search(['a'], 2)
  assert web_record.Replay(file).search(['a'], 2) == [
      [types.Passage('***', 'x ***', id='https://a.org/?k=***')]]
  assert 'k3y' not in file.read_text()
