"""Private addresses in every spelling, and names that lead to them."""

import socket
import threading

import pytest

from mem1_jax.retrieval import web_address
from mem1_jax.retrieval.endpoint import Failure

PUBLIC = '93.184.216.34'


@pytest.mark.parametrize('address', [
    '127.0.0.1', '127.8.8.8', '0.0.0.0', '0.1.2.3', '10.0.0.1', '172.16.0.1', '172.31.255.255',
    '192.168.1.1', '169.254.169.254', '169.254.0.1', '100.64.0.1', '100.100.100.200', '192.0.0.192',
    '192.0.2.1', '198.18.0.1', '198.51.100.1', '203.0.113.1', '224.0.0.1', '239.1.1.1', '240.0.0.1',
    '255.255.255.255', '168.63.129.16', '::1', '::', '::ffff:127.0.0.1', '::ffff:10.0.0.1',
    '::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '::127.0.0.1', '::a9fe:a9fe', '64:ff9b::7f00:1',
    '64:ff9b::169.254.169.254', '64:ff9b:1::a9fe:a9fe', '2002:7f00:1::', '2002:a9fe:a9fe::1',
    '2001:0:7f00:1::', '2001:0:4136:e378:8000:63bf:5601:5601', 'fe80::1', 'fe80::1%eth0',
    '2606:4700::1111%1', 'fc00::1', 'fd00:ec2::254', 'fec0::1', 'ff02::1', 'ff0e::1', '2001:db8::1',
    '100::1', '', 'localhost', '127.1', '0x7f.1', '2130706433', 'x' * 99])
def test_not_public(address):
  assert not web_address.is_public(address)


@pytest.mark.parametrize('address', [
    PUBLIC, '8.8.8.8', '1.1.1.1', '172.15.0.1', '172.32.0.1', '169.253.0.1', '2606:4700::1111',
    '2a00:1450:4001:81b::200e', '::ffff:8.8.8.8'])
def test_public(address):
  assert web_address.is_public(address)


def gate(*addresses, **parts):
  return web_address.Gate(lambda host, port: list(addresses), **parts)


def refusal(url, made=None):
  with pytest.raises(Failure) as raised:
    (made or gate(PUBLIC)).check(url, 5.0)
  return raised.value


@pytest.mark.parametrize('url', [
    'http://localhost/', 'http://LOCALHOST./', 'http://127.0.0.1/', 'http://127.1/',
    'http://2130706433/', 'http://0x7f000001/', 'http://0x7f.0.0.1/', 'http://0177.0.0.1/',
    'http://0/', 'http://[::1]/', 'http://[::ffff:127.0.0.1]/', 'http://[::]/',
    'http://169.254.169.254/latest/meta-data/', 'http://①②⑦.0.0.1/', 'http://127。0。0。1/'])
def test_spellings_of_this_machine_and_its_neighbours_by_the_systems_own_resolver(url):
  failure = refusal(url, web_address.Gate())
  assert failure.kind in ('refused', 'unresolved')  # the latter: this system reads no such name


def test_one_private_address_among_public_ones_is_enough():
  for addresses in ((PUBLIC, '10.0.0.1'), ('::1', PUBLIC), ('169.254.169.254',)):
    failure = refusal('http://rebind.example/', gate(*addresses))
    assert (failure.kind, failure.is_final) == ('refused', True)
    assert not any(address in str(failure) for address in addresses)


@pytest.mark.parametrize('url', [
    '', 'oslo', '//a.org', 'ftp://a.org', 'file:///etc/passwd', 'javascript:alert(1)',
    'gopher://a.org:80', 'data:text/html,x', 'http://', 'http:///x', 'http://me:secret@a.org/',
    'http://secret@a.org', 'http://a.org:22', 'http://a.org:8080', 'https://a.org:6379',
    'http://a.org:99999', 'http://a.org:0x50', 'http://[::1', 'http://a.org/\r\nHost: b',
    'http://a\x00.org', 'http://a.org/' + 'x' * 3000])
def test_urls_that_are_not_asked(url):
  failure = refusal(url)
  assert (failure.kind, failure.is_final) == ('refused', True) and 'secret' not in str(failure)


@pytest.mark.parametrize('url', [
    'http://a.org', 'https://a.org:443/x?y#z', 'HTTP://A.org:80', 'https://bücher.example/ä',
    'https://a.org:80/'])
def test_urls_that_are(url):
  assert gate(PUBLIC, '1.1.1.1').check(url, 5.0).addresses == (PUBLIC, '1.1.1.1')


def test_a_name_is_looked_up_once_and_by_its_ascii_form():
  asked = []

  def resolver(host, port):
    asked.append((host, port))
    return [PUBLIC]

  web_address.Gate(resolver).check('https://Bücher.example/', 5.0)
  assert asked == [('xn--bcher-kva.example', 443)]


@pytest.mark.parametrize('error', [socket.gaierror(-2, 'x'), UnicodeError('x'), OSError('x')])
def test_names_without_an_address(error):
  def resolver(host, port):
    raise error

  assert refusal('http://a.org', web_address.Gate(resolver)).kind == 'unresolved'
  failure = refusal('http://a.org', gate())
  assert (failure.kind, failure.is_final) == ('unresolved', False)


def test_a_look_up_that_hangs_is_given_up():
  over = threading.Event()
  made = web_address.Gate(lambda host, port: over.wait(10))
  with pytest.raises(Failure, match='no address after 0.05 s') as raised:
    made.check('http://a.org', 0.05)
  over.set()
  made.close()
  assert raised.value.kind == 'timeouts'
