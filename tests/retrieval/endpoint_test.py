"""What a request may bring instead of a reply, and what of a URL is shown."""

import pathlib
import subprocess
import sys
import textwrap

import httpx
import pytest

from mem1_jax.retrieval import endpoint
from mem1_jax.retrieval.endpoint import Endpoint, Failure, Request
from tests.retrieval import servers


ROOT = pathlib.Path(__file__).resolve().parents[2]


def post(answer, max_bytes=100, **kwargs):
  """What an endpoint makes of `answer`, a response or an exception."""
  def handle(request):
    if isinstance(answer, Exception):
      raise answer
    return answer

  client = endpoint.make_client({}, httpx.MockTransport(handle))
  return Endpoint('http://a', client, max_bytes, **kwargs).send(Request(b'{}'), 5.0)


def drops(*chunks, status=200, **headers):
  return httpx.Response(status, headers=headers, content=iter(chunks))  # read when asked for


def test_a_reply_is_its_bytes():
  assert post(drops(b'x' * 100)) == b'x' * 100
  assert post(drops(b'a', b'b')) == b'ab'


FAILURES = {  # answer → kind, is_up, is_final, wait_s
    'slow': (httpx.ReadTimeout('t'), 'timeouts', False, False, 0),
    'far': (httpx.ConnectTimeout('t'), 'timeouts', False, False, 0),
    'refuses connections': (httpx.ConnectError('c'), 'connection_errors', False, False, 0),
    'hangs up': (httpx.RemoteProtocolError('r'), 'connection_errors', False, False, 0),
    'resets': (OSError('r'), 'connection_errors', False, False, 0),
    '500': (httpx.Response(500), 'server_errors', False, False, 0),
    '503': (httpx.Response(503, headers={'Retry-After': '7'}), 'server_errors', False, False, 7),
    '429': (httpx.Response(429, headers={'Retry-After': '3'}), 'busy', True, False, 3),
    'date': (httpx.Response(429, headers={'Retry-After': 'Fri, 01 Jan 2100'}), 'busy', True, False,
             0),
    '422': (drops(b'too many', status=422), 'refused', True, True, 0),
    '404': (httpx.Response(404), 'bad_status', False, False, 0),
    'moved': (httpx.Response(302, headers={'Location': 'http://b'}), 'bad_status', False, False, 0),
    'empty': (httpx.Response(204), 'bad_status', False, False, 0),
    'large': (drops(b'x' * 101), 'too_large', True, True, 0),
    'endless': (drops(*[b'x'] * 1000), 'too_large', True, True, 0),
    'packed': (drops(b'\x1f', **{'Content-Encoding': 'gzip'}), 'garbage', False, False, 0),
}


@pytest.mark.parametrize('name', FAILURES)
def test_failures_have_a_kind(name):
  answer, *expected = FAILURES[name]
  with pytest.raises(Failure) as raised:
    post(answer)
  failure = raised.value
  assert [failure.kind, failure.is_up, failure.is_final, failure.wait_s] == expected


def test_what_a_refusing_server_says_is_told_in_short():
  with pytest.raises(Failure, match=r"status 422: 'x{300}'$"):
    post(drops(b'x' * 10_000, status=422))


def test_a_body_that_drips_is_given_up():
  ticks = iter(range(100))
  with pytest.raises(Failure, match='does not end in time'):
    post(drops(*[b' '] * 50), clock=lambda: next(ticks))


@pytest.mark.parametrize('mode, kind', [
    ('slow', 'timeouts'), ('drips', 'timeouts'), ('500', 'server_errors'),
    ('killed', 'connection_errors'), ('huge', 'too_large')])
def test_real_servers_fail_in_the_same_ways(mode, kind):
  with servers.Chaos(mode) as chaos:
    real = Endpoint(chaos.url, endpoint.make_client({}), 1_000_000)
    with pytest.raises(Failure) as raised:
      real.send(Request(b'{"queries": ["a"]}'), 0.1 if kind == 'timeouts' else 10.0)
  assert raised.value.kind == kind


@pytest.mark.parametrize('url, asked, name', [
    ('http://a', 'http://a/retrieve', 'http://a'),
    (' https://a:81/ ', 'https://a:81/retrieve', 'https://a:81'),
    ('http://a:8000/retrieve', 'http://a:8000/retrieve', 'http://a:8000'),
    ('http://[::1]:8000/v2/find?key=secret', 'http://[::1]:8000/v2/find?key=secret',
     'http://[::1]:8000')])
def test_where_it_asks_and_what_it_shows(url, asked, name):
  seen = []

  def handle(request):
    seen.append(request)
    return drops(b'ok')

  headers = {'Authorization': 'Bearer secret'}
  made = Endpoint(url, endpoint.make_client(headers, httpx.MockTransport(handle)), 9)
  assert made.send(Request(b'body'), 1.0) == b'ok' and made.name == name
  request, = seen
  assert str(request.url) == asked and request.content == b'body'
  assert request.headers['Content-Type'] == 'application/json'
  assert request.headers['Authorization'] == 'Bearer secret'


@pytest.mark.parametrize('url', [
    '', 'a:8000', 'ftp://a', 'http://', 'http://a:port', 'http://[a', 'http://secret@:1',
    'http://me:secret@a:8000', 'http://secret@a', 'http://a b/secret'])
def test_urls_that_are_none_or_hold_secrets_are_refused_and_not_shown(url):
  with pytest.raises(ValueError, match='URL') as error:
    Endpoint(url, endpoint.make_client({}), 9)
  assert 'secret' not in str(error.value)


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
  for name in ('http_proxy', 'HTTP_PROXY', 'ALL_PROXY'):
    monkeypatch.setenv(name, 'http://127.0.0.1:1')
  with servers.Chaos() as chaos:
    assert b'Oslo' in Endpoint(chaos.url, endpoint.make_client({}), 999).send(
        Request(b'{"queries": ["a"]}'), 5.0)


def test_a_request_without_a_body_is_its_parameters():
  seen = []

  def handle(request):
    seen.append(request)
    return drops(b'ok')

  made = Endpoint('http://a?fixed=1', endpoint.make_client({}, httpx.MockTransport(handle)), 9,
                  path='/search')
  made.send(Request(params={'q': 'a & b'}), 1.0)
  assert seen[0].method == 'GET' and seen[0].url.path == '/search'
  assert dict(seen[0].url.params) == {'fixed': '1', 'q': 'a & b'}


@pytest.mark.parametrize('answer', [
    httpx.ConnectError('no k/y'), OSError('k%2Fy'), drops(b'bad k/y', status=400),
    drops(b'x' * 290 + b'k/y' * 9, status=422)])
def test_failures_do_not_say_the_secret(answer):
  with pytest.raises(Failure) as raised:
    post(answer, secret='k/y')
  assert '***' in str(raised.value) and 'k/' not in str(raised.value)
  assert raised.value.__cause__ is None


def test_secrets():
  assert endpoint.blot('a k/y k%2Fy b', 'k/y') == 'a *** *** b'
  assert endpoint.blot('a k/y', '') == 'a k/y'
  assert endpoint.check_secret(' k/y\n', 'KEY') == 'k/y'
  for secret in ('a b', 'a\nb', 'ä', 'a\x7fb'):
    with pytest.raises(ValueError, match='KEY of the environment is no key') as raised:
      endpoint.check_secret(secret, 'KEY')
    assert secret not in str(raised.value)


def test_without_httpx_everything_imports_and_says_what_to_install():
  code = textwrap.dedent('''
      import sys
      sys.modules.update(dict.fromkeys(('httpx', 'fastapi', 'uvicorn', 'starlette')))
      from mem1_jax.retrieval import client, server
      for make in (lambda: client.RemoteRetriever(['http://a']), lambda: server.make_app(None)):
        try:
          make()
        except ValueError as error:
          print(error)
  ''')
  run = subprocess.run([sys.executable, '-c', code], check=True, timeout=60, text=True,
                       stdout=subprocess.PIPE, cwd=ROOT)
  lines = run.stdout.splitlines()
  assert len(lines) == 2 and all('pip install "mem1_jax[retriever]"' in line for line in lines)
