"""From bytes to text: compression that is bounded, encodings, and what is the main text."""

import gzip
import time

import pytest

from mem1_jax.retrieval import web_text
from mem1_jax.retrieval.endpoint import Failure
from tests.retrieval.servers import PAGE


def test_the_main_text_without_its_surroundings():
  title, text = web_text.main_text(PAGE)
  assert title.startswith('Oslo')
  assert 'capital and most populous city of Norway' in text and 'Anne Lindboe' in text
  for other in ('evil', 'Random page', 'cookies', 'a{}'):
    assert other not in text


@pytest.mark.parametrize('html, expected', [
    ('', ''), ('just words', 'just words'), ('<p>hi', 'hi'), ('<html><body></body></html>', ''),
    ('<!-- x -->', ''), ('\x00\x01', None), ('<' * 5000, None), ('&#0;&#xd800;', None),
    ('<svg><script>x</script></svg>', None), ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b '
                                              'SYSTEM "file:///etc/passwd">]><a>&b;</a>', None)])
def test_pages_of_little_use_raise_nothing_else(html, expected):
  try:
    text = web_text.main_text(html)[1]
  except Failure as failure:
    assert failure.kind == 'garbage' and failure.is_final
    text = ''
  assert 'root:' not in text
  if expected is not None:
    assert text == expected or not text


def test_deep_pages_end_in_time():
  start = time.monotonic()
  for html in ('<div>' * 50_000, '<table><tr><td>' * 20_000, '<b><i>' * 30_000):
    try:
      web_text.main_text(html + 'x')
    except Failure:
      pass
  assert time.monotonic() - start < 20


def test_pages_have_only_so_many_tags():
  assert web_text.cut_tags('a<b>c') == ('a<b>c', False)
  html, is_cut = web_text.cut_tags('x' + '<br>' * 30_001)
  assert (html, is_cut) == ('x' + '<br>' * 30_000, True)
  assert web_text.cut_tags(html) == (html, False) and web_text.cut_tags('') == ('', False)


def test_compression_is_bounded():
  bomb = gzip.compress(b'x' * 10_000_000)
  assert web_text.unfold(bomb, 'gzip', 1000) == (b'x' * 1000, True)
  assert web_text.unfold(gzip.compress(b'Oslo'), 'x-gzip', 4) == (b'Oslo', False)
  assert web_text.unfold(bomb[:200], 'gzip', 10)[0] == b'x' * 10  # what came of it
  assert web_text.unfold(b'Oslo', '', 3) == (b'Osl', True)
  for body, encoding in ((b'no', 'gzip'), (b'x', 'br'), (b'x', 'gzip, gzip'), (b'x', 'zstd')):
    with pytest.raises(Failure) as raised:
      web_text.unfold(body, encoding, 10)
    assert raised.value.kind == 'garbage'


@pytest.mark.parametrize('body, charset, expected', [
    ('é'.encode(), 'utf-8', 'é'), ('é'.encode('latin-1'), 'ISO-8859-1', 'é'),
    (b'\x93x\x94', 'iso-8859-1', '“x”'), ('é'.encode('utf-8-sig'), 'latin-1', 'é'),
    ('é'.encode('utf-16'), '', 'é'), ('ж'.encode('koi8-r'), 'koi8-r', 'ж'),
    ('日'.encode('shift_jis'), 'Shift_JIS', '日'), ('日'.encode('gb18030'), 'GB2312', '日'),
    (b'<meta charset="windows-1251">\xe6', '', '<meta charset="windows-1251">ж'),
    (b'<meta http-equiv=x content="text/html; charset=euc-jp">\xc6\xfc', '',
     '<meta http-equiv=x content="text/html; charset=euc-jp">日'),
    ('é'.encode(), '', 'é'), (b'\xe9t\xe9 long', '', 'été long'), ('aaé'.encode()[:-1], '', 'aa�'),
    ('é'.encode(), 'zlib', 'é'), ('é'.encode(), 'idna', 'é'), ('é'.encode(), 'rot13', 'é'),
    ('é'.encode(), 'unicode_escape', 'é'), ('é'.encode(), '../../x', 'é'), (b'', 'utf-8', ''),
    (b'\xff', 'utf-8', '�'), (b'x', 'cp99999', 'x'), (b'x', 'utf-16-zz', 'x')])
def test_encodings(body, charset, expected):
  assert web_text.decode(body, charset) == expected
