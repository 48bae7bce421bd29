"""Pages: what is fetched, from where, and what servers that mean harm get."""

import contextlib
import gzip
import http.server
import shutil
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest

from mem1_jax import types
from mem1_jax.retrieval import web_address, web_pages
from mem1_jax.retrieval.web_pages import PageConfig, WebPages
from tests.retrieval.servers import PAGE

PUBLIC = '93.184.216.34'
HTML = {'Content-Type': 'text/html; charset=utf-8'}


class World:
  """Hosts with addresses, and answers by URL; requests are kept (a fake)."""

  def __init__(self, pages, addresses={}, **config):
    self.pages, self.addresses, self.requests, self.looked_up = pages, addresses, [], []
    gate = web_address.Gate(self.resolve)
    self.made = WebPages(PageConfig(**config), gate=gate,
                         make_transport=lambda: httpx.MockTransport(lambda r: self.handle(r)))

  def resolve(self, host, port):
    self.looked_up.append(host)
    found = self.addresses.get(host, [PUBLIC])
    return found(len(self.looked_up)) if callable(found) else found

  def handle(self, request):
    self.requests.append(request)
    answer = self.pages[f'{request.headers["Host"]}{request.url.raw_path.decode()}']
    if isinstance(answer, Exception):
      raise answer
    if isinstance(answer, str):
      answer = httpx.Response(200, headers=HTML, content=iter([answer.encode()]))
    return answer

  def open(self, *urls):
    return self.made.open(urls)

  def reason(self, url):
    page, = self.open(url)
    assert isinstance(page, types.Unavailable)
    return page.reason.partition(':')[0], page.is_lasting


def counted(pages):
  return {name: n for name, n in pages.counts.items() if n}


def response(status=200, body=b'', **headers):
  headers = {name.replace('_', '-'): value for name, value in headers.items()}
  return httpx.Response(status, headers={'Content-Type': 'text/html'} | headers,
                        content=iter([body]))


def test_a_page_is_its_title_and_main_text():
  world = World({'a.org/oslo?x=1': PAGE})
  page, again = world.open('https://a.org/oslo?x=1#part', 'https://a.org/oslo?x=1#part')
  assert page == again and page.id == 'https://a.org/oslo?x=1#part'
  assert page.title.startswith('Oslo') and 'capital and most populous' in page.text
  assert 'cookies' not in page.text
  request, = world.requests
  # To the address that was checked, under the name that was asked for; nothing about us.
  assert str(request.url) == f'https://{PUBLIC}/oslo?x=1'
  assert request.extensions['sni_hostname'] == 'a.org'
  assert {name: request.headers[name] for name in request.headers} == {
      'host': 'a.org', 'user-agent': 'mem1_jax', 'accept-encoding': 'gzip', 'connection': 'close',
      'accept': 'text/html,application/xhtml+xml,text/plain;q=0.9'}


def test_pages_are_kept_and_outages_are_not():
  world = World({'a.org/': PAGE, 'b.org/': httpx.ConnectError('x'), 'c.org/': response(404)})
  urls = [f'https://{host}.org/' for host in 'abc']
  for _ in range(2):
    found = world.open(*urls)
  assert [isinstance(page, types.Unavailable) for page in found] == [False, True, True]
  assert [page.is_lasting for page in found[1:]] == [False, True]
  assert counted(world.made) == {'asked': 6, 'cache_hits': 2, 'unavailable': 4, 'requests': 4,
                                 'connection_errors': 2, 'bad_status': 1}


@pytest.mark.parametrize('answer, reason', [
    (response(404), ('bad_status', True)), (response(500), ('bad_status', False)),
    (response(429), ('bad_status', False)), (response(204), ('bad_status', False)),
    (response(302), ('bad_status', False)),
    (response(Content_Type='application/pdf'), ('no_text', True)),
    (response(Content_Type='image/svg+xml'), ('no_text', True)),
    (response(Content_Type=''), ('no_text', True)), (response(), ('no_text', True)),
    (response(Content_Encoding='br'), ('garbage', True)),
    (response(body=b'no', Content_Encoding='gzip'), ('garbage', True)),
    (httpx.ReadTimeout('x'), ('timeouts', False)), (httpx.ConnectTimeout('x'), ('timeouts', False)),
    (httpx.RemoteProtocolError('x'), ('connection_errors', False)),
    (OSError('x'), ('connection_errors', False))])
def test_what_cannot_be_read(answer, reason):
  world = World({'a.org/': answer})
  assert world.reason('http://a.org/') == reason
  assert world.made.counts[reason[0]] == 1


def test_plain_text_is_taken_as_it_is():
  world = World({'a.org/': response(body=' <b> Oslo\n'.encode(), Content_Type='Text/Plain')})
  assert world.open('http://a.org/') == [types.Passage('', '<b> Oslo', id='http://a.org/')]


def test_limits_of_size():
  long = '<html><body><article>' + '<p>Oslo is a city of Norway, and so on.</p>' * 400
  world = World({'a.org/': long, 'b.org/': response(body=gzip.compress(long.encode()),
                                                     Content_Encoding='gzip')},
                max_bytes=2000, max_chars=300)
  for page in world.open('http://a.org/', 'http://b.org/'):
    assert len(page.text) == 300 and page.text.startswith('Oslo is a city')
  assert world.made.counts['cut_pages'] == 4  # twice by bytes, twice by characters


def moved(to, status=302):
  return httpx.Response(status, headers={'Location': to})


def test_redirects_are_followed_and_checked_anew():
  world = World({'a.org/': moved('/b', 301), 'a.org/b': moved('//c.org/x'), 'c.org/x': PAGE})
  page, = world.open('https://a.org/')
  assert page.title.startswith('Oslo') and page.id == 'https://a.org/'
  assert world.looked_up == ['a.org', 'a.org', 'c.org']


@pytest.mark.parametrize('to', [
    'http://127.0.0.1/', 'http://169.254.169.254/latest/meta-data/', 'http://inside.example/',
    'http://[::ffff:10.0.0.1]/', 'file:///etc/passwd', 'http://c.org:22/', 'http://me:you@c.org/',
    'gopher://c.org/', 'javascript:x', 'http://[', 'http://\x7f/'])
def test_redirects_to_what_is_not_public_are_refused(to):
  world = World({'a.org/': moved(to), 'c.org/': PAGE},
                {'inside.example': ['192.168.0.1'], '127.0.0.1': ['127.0.0.1'],
                 '169.254.169.254': ['169.254.169.254'], '::ffff:10.0.0.1': ['::ffff:10.0.0.1']})
  assert world.reason('http://a.org/') == ('refused', True)
  assert len(world.requests) == 1


def test_redirects_are_bounded():
  world = World({'a.org/': moved('http://a.org/')}, max_redirects=3)
  assert world.reason('http://a.org/') == ('redirects', True)
  assert len(world.requests) == 4


def test_a_name_that_changes_its_meaning_gets_nowhere():
  """The second look-up would give this machine; there is none."""
  world = World({'a.org/': PAGE}, {'a.org': lambda n: [PUBLIC] if n == 1 else ['127.0.0.1']})
  assert not isinstance(world.open('http://a.org/')[0], types.Unavailable)
  assert world.looked_up == ['a.org'] and world.requests[0].url.host == PUBLIC
  world = World({'a.org/': moved('/again'), 'a.org/again': PAGE},
                {'a.org': lambda n: [PUBLIC] if n == 1 else ['127.0.0.1']})
  assert world.reason('http://a.org/') == ('refused', True) and len(world.requests) == 1


def test_other_addresses_are_tried_where_one_cannot_be_reached():
  world = World({'a.org/': PAGE}, {'a.org': ['2606:4700::1', '1.1.1.1', '8.8.8.8']})
  handle = world.handle

  def unreached(request):
    if request.url.host != '8.8.8.8':
      raise httpx.ConnectError(f'no route to {request.url.host}')
    return handle(request)

  world.handle = unreached
  assert not isinstance(world.open('http://a.org/')[0], types.Unavailable)
  assert world.made.counts['requests'] == 3
  world.addresses = {'b.org': ['2606:4700::1']}
  assert world.reason('http://b.org/') == ('connection_errors', False)
  world.pages['c.org/'] = httpx.ReadError('x')
  world.addresses = {'c.org': ['8.8.8.8', '1.1.1.1']}  # it was reached: no second one is asked
  assert world.reason('http://c.org/') == ('connection_errors', False)
  assert world.made.counts['requests'] == 5


def test_libraries_are_named_where_they_are_not_installed(monkeypatch):
  for name in ('trafilatura', 'httpx'):
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r'mem1_jax\[web\]'):
      patch.setitem(sys.modules, name, None)
      WebPages()


def test_it_paces_itself_and_its_patience_ends():
  now = [0.0]

  def sleep(seconds):
    now[0] += seconds

  world = World({f'a.org/{i}': PAGE for i in range(9)})
  config = PageConfig(max_per_s=1.0, patience_s=3.5, timeout_s=99.0, max_concurrent=1)
  made = WebPages(config, gate=web_address.Gate(world.resolve), sleep=sleep, clock=lambda: now[0],
                  make_transport=lambda: httpx.MockTransport(world.handle))
  found = made.open([f'http://a.org/{i}' for i in range(5)])
  assert [isinstance(page, types.Unavailable) for page in found] == [False] * 4 + [True]
  assert now[0] == 3.0 and found[4].reason.startswith('timeouts')


@contextlib.contextmanager
def local(respond, config=PageConfig(timeout_s=5.0), is_allowed=lambda address: True, tls=None):
  """`WebPages` for which every name leads to a server in this process, and the server's port.

  `tls` is of a certificate and its key, in one file.
  """
  over = threading.Event()

  class Handler(http.server.BaseHTTPRequestHandler):

    def log_message(self, *_):
      """Says nothing."""

    def do_GET(self):
      with contextlib.suppress(OSError):
        respond(self, over)

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True
  transport = None
  if tls:
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(tls)
    server.socket = here.wrap_socket(server.socket, server_side=True)
    there = ssl.create_default_context(cafile=tls)
    transport = lambda: httpx.HTTPTransport(verify=there, trust_env=False)
  server.handle_error = lambda *_: None
  threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
  port = server.server_address[1]
  gate = web_address.Gate(lambda host, port: ['127.0.0.1'], is_allowed, ports=(port,))
  pages = WebPages(config, gate=gate, make_transport=transport)
  try:
    yield pages, port
  finally:
    over.set()
    pages.close()
    server.shutdown()
    server.server_close()


def send(handler, body, kind='text/html'):
  handler.send_response(200)
  handler.send_header('Content-Type', kind)
  handler.end_headers()
  handler.wfile.write(body)


def test_a_real_server_is_read_over_its_checked_address():
  seen = []

  def respond(handler, over):
    seen.append((handler.path, handler.headers['Host'], handler.headers['Cookie']))
    handler.send_response(200)
    handler.send_header('Set-Cookie', 'a=b')
    handler.send_header('Content-Type', 'text/html')
    handler.end_headers()
    handler.wfile.write(PAGE.encode())

  with local(respond) as (pages, port):
    found = pages.open([f'http://any.example:{port}/{i}' for i in range(3)])
  assert all('capital' in page.text for page in found)
  assert sorted(seen) == [(f'/{i}', f'any.example:{port}', None) for i in range(3)]


def test_a_real_server_on_this_machine_is_not_asked():
  asked = []
  with local(lambda handler, over: asked.append(1), is_allowed=web_address.is_public) as (
      pages, port):
    page, = pages.open([f'http://any.example:{port}/'])
  assert page.reason.startswith('refused') and page.is_lasting and not asked


@pytest.mark.skipif(not shutil.which('openssl'), reason='openssl is not installed')
def test_certificates_are_checked_for_the_name_that_was_asked_for(tmp_path):
  subprocess.run(
      ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
       '-nodes', '-days', '2', '-subj', '/CN=right.example', '-addext',
       'subjectAltName=DNS:right.example', '-keyout', 'key', '-out', 'cert'],
      cwd=tmp_path, check=True, capture_output=True, timeout=60)
  (tmp_path / 'both').write_text((tmp_path / 'cert').read_text() + (tmp_path / 'key').read_text())
  with local(lambda handler, over: send(handler, PAGE.encode()), tls=tmp_path / 'both') as (
      pages, port):
    right, wrong = pages.open([f'https://{name}.example:{port}/' for name in ('right', 'wrong')])
  assert 'capital' in right.text
  assert wrong.reason.startswith('connection_errors') and 'CERTIFICATE_VERIFY' in wrong.reason


def drip(handler, over):
  """A header, byte by byte."""
  handler.wfile.write(b'HTTP/1.1 200 OK\r\nX: ')
  while not over.wait(0.02):
    handler.wfile.write(b'x')


def drip_body(handler, over):
  send(handler, b'<p>')
  while not over.wait(0.02):
    handler.wfile.write(b'x')


def hang(handler, over):
  over.wait(10)


def flood(handler, over):
  send(handler, b'<p>')
  while not over.is_set():
    handler.wfile.write(b'Oslo ' * 10_000)


@pytest.mark.parametrize('respond', [drip, drip_body, hang])
def test_servers_that_take_their_time_get_no_more_than_the_limit(respond):
  with local(respond, PageConfig(timeout_s=0.3)) as (pages, port):
    start = time.monotonic()
    page, = pages.open([f'http://a.org:{port}/'])
    assert time.monotonic() - start < 3
  assert page.reason.startswith('timeouts') and not page.is_lasting


def test_a_server_that_never_stops_is_cut():
  with local(flood, PageConfig(timeout_s=20.0, max_bytes=100_000)) as (pages, port):
    page, = pages.open([f'http://a.org:{port}/'])
    assert pages.counts['cut_pages'] >= 1
  assert page.text.startswith('Oslo Oslo')


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
  for name in ('http_proxy', 'HTTP_PROXY', 'ALL_PROXY'):
    monkeypatch.setenv(name, 'http://127.0.0.1:1')
  with local(lambda handler, over: send(handler, PAGE.encode())) as (pages, port):
    assert 'capital' in pages.open([f'http://a.org:{port}/'])[0].text


@pytest.mark.parametrize('override', [
    dict(timeout_s=0), dict(patience_s=0), dict(max_redirects=-1), dict(max_bytes=0),
    dict(max_chars=0), dict(max_concurrent=0), dict(max_per_s=-1)])
def test_bad_configs(override):
  with pytest.raises(ValueError, match=f'{next(iter(override))}='):
    PageConfig(**override)


def test_counters():
  assert set(World({}).made.counts) == set(web_pages.COUNTERS)
