"""Our server: the protocol to the byte, limits, batches, health, metrics, and how it stops."""

import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from mem1_jax import types
from mem1_jax.retrieval import server as server_lib
from mem1_jax.retrieval import wire
from tests.retrieval import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMITS = server_lib.Limits(top_k=2, max_top_k=5, max_queries=8, max_query_chars=20,
                           max_body_bytes=1000, max_batch=16, max_waiting=12, stuck_s=0.05)


@pytest.fixture(scope='module')
def shared():
  shelf = servers.Shelf()
  with servers.running(shelf, LIMITS) as url:
    yield shelf, url


@pytest.fixture
def shelf(shared):
  shared[0].calls.clear()
  yield shared[0]
  shared[0].gate.set()


@pytest.fixture
def url(shared, shelf):
  return shared[1]


def post(url, body, path='/retrieve', **headers):
  """(status, JSON of the reply), by nothing but the standard library."""
  if not isinstance(body, bytes):
    body = json.dumps(body).encode()
  request = urllib.request.Request(
      url + path, body, {'Content-Type': 'application/json'} | headers, method='POST')
  try:
    with urllib.request.urlopen(request, timeout=10) as reply:
      return reply.status, json.load(reply)
  except urllib.error.HTTPError as error:
    return error.code, json.load(error)


def get(url, path):
  try:
    with urllib.request.urlopen(url + path, timeout=10) as reply:
      return reply.status, reply.read().decode()
  except urllib.error.HTTPError as error:
    return error.code, error.read().decode()


def until(condition):
  end = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.002)


def test_a_client_written_from_the_protocol_alone(url):
  """What Search-R1's own does: `result`, `document`, `contents`, title on the first line."""
  status, reply = post(url, {'queries': ['oslo', 'moss'], 'topk': 3, 'return_scores': True})
  assert status == 200 and list(reply) == ['result'] and len(reply['result']) == 2
  text = ''
  for i, item in enumerate(reply['result'][1]):
    content = item['document']['contents']
    title, *lines = content.split('\n')
    text += f'Doc {i + 1}(Title: {title}) ' + '\n'.join(lines) + '\n'
  assert text == ('Doc 1(Title: "moss 0") text of moss\nDoc 2(Title: "moss 1") text of moss\n'
                  'Doc 3(Title: "moss 2") text of moss\n')
  scores = [item['score'] for item in reply['result'][0]]
  assert scores == sorted(scores, reverse=True) and reply['result'][0][0]['document']['id'] == '0'


def test_without_scores_documents_come_as_they_are(url):
  assert post(url, {'queries': ['oslo', '']}) == (200, {'result': [
      [{'id': str(i), 'contents': f'"oslo {i}"\ntext of oslo'} for i in range(2)], []]})


def test_search_r1s_request_to_the_byte(url, shelf):
  """As `requests.post(url, json=payload)` puts it on the wire."""
  host, port = url.removeprefix('http://').split(':')
  body = b'{"queries": ["What is \\u00fc?"], "topk": 3, "return_scores": true}'
  with socket.create_connection((host, int(port)), timeout=10) as connection:
    connection.sendall(
        f'POST /retrieve HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: python-requests/2.32.3\r\n'
        'Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n'
        f'Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n'.encode() + body)
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    (result,), = json.load(reply).values()
  assert reply.status == 200 and reply.getheader('Content-Type') == 'application/json'
  assert shelf.calls == [(('What is ü?',), 3)] and len(result) == 3


@pytest.mark.parametrize('ask, top_k', [
    ({}, 2), ({'topk': None}, 2), ({'topk': 0}, 2), ({'topk': 5}, 5), ({'unknown': [1]}, 2)])
def test_what_a_request_may_leave_out(url, shelf, ask, top_k):
  status, reply = post(url, {'queries': ['a']} | ask)
  assert (status, len(reply['result'][0])) == (200, top_k) and shelf.calls == [(('a',), top_k)]


def test_no_query_no_result(url):
  assert post(url, {'queries': []}) == (200, {'result': []})


@pytest.mark.parametrize('body, status, detail', [
    (b'{"queries": ["a"', 422, 'no JSON'), (b'', 422, 'no JSON'), ({}, 422, 'queries is None'),
    ({'queries': ['a', 1]}, 422, 'queries[1] is 1; send a string'),
    ({'queries': ['a'] * 9}, 422, '9 queries are more than 8; send them in several requests'),
    ({'queries': ['a', 'b' * 21]}, 422, 'queries[1] has 21 characters, more than 20; shorten it'),
    ({'queries': ['a'], 'topk': 6}, 422, 'topk is 6, more than 5; ask for fewer'),
    ({'queries': ['a'], 'topk': 10**30}, 422, 'more than 5'),
    ({'queries': ['a'], 'topk': -1}, 422, 'topk is -1'),
    ({'queries': ['a'], 'x': 'y' * 1000}, 413, 'more than 1000 bytes; send fewer queries')])
def test_what_exceeds_a_limit_is_refused_with_a_sentence(url, shelf, body, status, detail):
  got, reply = post(url, body)
  assert got == status and list(reply) == ['detail'] and detail in reply['detail']
  assert not shelf.calls


def test_a_body_of_unknown_length_is_limited_too(url):
  host = url.removeprefix('http://')
  connection = http.client.HTTPConnection(host, timeout=10)
  connection.request('POST', '/retrieve', iter([b' ' * 600] * 3), encode_chunked=True,
                     headers={'Transfer-Encoding': 'chunked'})
  assert connection.getresponse().status == 413
  connection.close()


def test_other_paths_and_methods(url):
  assert post(url, {}, '/other')[0] == 404
  assert get(url, '/retrieve')[0] == 405


def test_a_search_that_fails_is_a_500_and_takes_no_other_with_it(url, shelf):
  shelf.gate.clear()
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    first = pool.submit(post, url, {'queries': ['first']})
    until(lambda: shelf.calls)
    others = [pool.submit(post, url, {'queries': [query]}) for query in ('bad', 'good')]
    until(lambda: json.loads(get(url, '/health')[1])['waiting_queries'] == 2)
    shelf.gate.set()
    assert first.result(10)[0] == 200
    assert others[0].result(10) == (
        500, {'detail': 'the search failed: OSError: the index is gone'})
    assert others[1].result(10)[1]['result'][0][0]['contents'] == '"good 0"\ntext of good'
  assert {len(queries) for queries, _ in shelf.calls[1:2]} == {2}  # they were together at first


def test_concurrent_queries_are_one_search_and_find_what_they_find_alone(url, shelf):
  asks = [{'queries': [f'q{i}', f'r{i}'], 'topk': 1 + i % 2, 'return_scores': i == 3}
          for i in range(5)]
  alone = [post(url, ask) for ask in asks]
  shelf.calls.clear()
  shelf.gate.clear()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    first = pool.submit(post, url, {'queries': ['first']})
    until(lambda: shelf.calls)
    together = [pool.submit(post, url, ask) for ask in asks]
    until(lambda: json.loads(get(url, '/health')[1])['waiting_queries'] == 10)
    shelf.gate.set()
    assert [future.result(10) for future in together] == alone
    assert first.result(10)[0] == 200
  assert sorted(len(queries) for queries, _ in shelf.calls[1:]) == [2, 2, 6]  # by what they ask


def test_too_many_waiting_queries_are_refused_and_health_says_that_a_search_hangs(url, shelf):
  assert get(url, '/health')[0] == 200
  shelf.gate.clear()
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    futures = [pool.submit(post, url, {'queries': ['first']})]
    until(lambda: shelf.calls)
    futures.append(pool.submit(post, url, {'queries': ['a'] * 8}))
    until(lambda: json.loads(get(url, '/health')[1])['waiting_queries'] == 8)
    request = urllib.request.Request(f'{url}/retrieve', b'{"queries": ["a", "b", "c", "d", "e"]}')
    with pytest.raises(urllib.error.HTTPError) as error:
      urllib.request.urlopen(request, timeout=10)
    assert error.value.code == 429 and error.value.headers['Retry-After'] == '1'
    assert '8 queries wait already, at most 12' in json.load(error.value)['detail']
    until(lambda: get(url, '/health')[0] == 503)
    assert json.loads(get(url, '/health')[1])['status'] == 'stuck'
    shelf.gate.set()
    assert [future.result(10)[0] for future in futures] == [200, 200]
  status, told = get(url, '/health')
  told = json.loads(told)
  assert (status, told['status'], told['retriever']) == (200, 'ok', 'Shelf')
  assert told['uptime_s'] >= 0 and told['waiting_queries'] == 0


def test_metrics_are_prometheus_text(url):
  def read():
    status, text = get(url, '/metrics')
    assert status == 200
    found = {}
    for line in text.splitlines():
      if not line.startswith('#'):
        name, value = re.fullmatch(
            r'([a-z_0-9]+(?:\{[a-z]+="[^"]+"\})?) ([0-9.e+-]+)', line).groups()
        found[name.removeprefix('mem1_retriever_')] = float(value)
    families = re.findall(r'^# TYPE (\S+) (counter|gauge|histogram)$', text, re.M)
    assert len(families) == len(set(families)) == text.count('# HELP') == 7
    return found

  before = read()
  post(url, {'queries': ['a', 'b']})
  post(url, {'queries': ['bad']})
  post(url, {})
  grown = {name: value - before.get(name, 0) for name, value in read().items()}
  assert [grown[f'requests_total{{status="{s}"}}'] for s in (200, 422, 500)] == [1, 1, 1]
  assert (grown['queries_total'], grown['errors_total']) == (2, 1)
  assert (grown['batches_total'], grown['batched_queries_total']) == (2, 3)
  assert grown['request_seconds_count'] == grown['request_seconds_bucket{le="+Inf"}'] == 3
  buckets = [value for name, value in read().items() if '_bucket' in name]
  assert buckets == sorted(buckets) and len(buckets) == 14


def test_a_retriever_whose_own_back_end_is_down_is_a_503():
  class Relay:
    def search(self, queries, top_k):
      return [types.Unavailable('timeouts: nobody there')] * len(queries)

  with servers.running(Relay()) as url:
    assert post(url, {'queries': ['a']}) == (
        503, {'detail': 'search is unavailable: timeouts: nobody there'})


def test_what_is_under_way_is_answered_before_it_stops():
  shelf = servers.Shelf()
  shelf.gate.clear()
  with concurrent.futures.ThreadPoolExecutor(1) as pool, servers.running(shelf) as url:
    future = pool.submit(post, url, {'queries': ['a']})
    until(lambda: shelf.calls)
    threading.Timer(0.2, shelf.gate.set).start()
  assert future.result(10)[0] == 200
  with pytest.raises(OSError):
    get(url, '/health')


def test_it_listens_here_only_and_a_port_that_is_taken_is_said():
  server, listening, url = server_lib.make_server(servers.Shelf(), port=0)
  with listening:
    assert listening.getsockname()[0] == '127.0.0.1' and url.startswith('http://127.0.0.1:')
    port = listening.getsockname()[1]
    with pytest.raises(ValueError, match=f'cannot listen on port {port} of 127.0.0.1'):
      server_lib.make_server(servers.Shelf(), port=port)
  with pytest.raises(ValueError, match='cannot listen on port 99999'):
    server_lib.make_server(servers.Shelf(), port=99999)


@pytest.mark.parametrize('limits, message', [
    (dict(max_queries=0), 'max_queries=0 must be above 0'),
    (dict(top_k=5, max_top_k=4), 'top_k=5 is above max_top_k=4'),
    (dict(max_queries=9, max_waiting=8), 'max_queries=9 is above max_waiting=8')])
def test_bad_limits(limits, message):
  with pytest.raises(ValueError, match=message):
    server_lib.Limits(**limits)


SERVE = '''
from tests.retrieval import servers
from mem1_jax.retrieval import server
server.serve(servers.Shelf(), port=0, on_ready=lambda url: print(url, flush=True))
print('stopped', flush=True)
'''


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it(number):
  process = subprocess.Popen([sys.executable, '-c', SERVE], stdout=subprocess.PIPE, text=True,
                             cwd=ROOT)
  try:
    url = process.stdout.readline().strip()
    assert wire.read_reply(json.dumps(post(url, {'queries': ['a']})[1]).encode())[0]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=10)
  finally:
    process.kill()
  assert (rest, process.returncode) in (('stopped\n', 0), ('', -signal.SIGTERM))
