"""From the bytes of a page to its main text, by trafilatura.

See https://trafilatura.readthedocs.io.
"""

import codecs
import logging
import re
from types import ModuleType
import zlib

from mem1_jax.retrieval.endpoint import Failure

HTML, PLAIN = ('text/html', 'application/xhtml+xml'), 'text/plain'
_BOMS = {codecs.BOM_UTF8: 'utf-8', codecs.BOM_UTF16_LE: 'utf-16', codecs.BOM_UTF16_BE: 'utf-16'}
_DECLARED = re.compile(
    rb'<(?:meta|\?xml)[^>]{0,300}?(?:charset|encoding)\s*=\s*["\']?([\w.:-]{2,40})', re.IGNORECASE)
# Encodings of texts: Python knows others by name, some of them slow to decode.
_ENCODINGS = re.compile(
    r'utf-?8|utf-?16(-?[bl]e)?|(us-)?ascii|latin-?1|iso-?8859-?\d+|(windows|cp)-?\d+|koi8-?[ru]|'
    r'gbk|gb2312|gb18030|big5(-?hkscs)?|shift[-_]?jis|sjis|euc-?(jp|kr)|iso-2022-jp|macintosh|'
    r'tis-?620')
_MAX_TAGS = 30_000  # finding the main text takes up to 0.1 ms for each, and other threads wait
_DEFAULT = 'windows-1252'  # what browsers take pages for that do not say


def unfold(body: bytes, encoding: str, max_bytes: int) -> tuple[bytes, bool]:
  """At most `max_bytes` of a body as it was before it was compressed, and whether it was cut.

  Raises:
    Failure: 'garbage', it is not of that encoding, or that is not gzip.
  """
  if encoding in ('', 'identity'):
    return body[:max_bytes], len(body) > max_bytes
  if encoding not in ('gzip', 'x-gzip'):
    raise Failure('garbage', f'a page in {encoding[:20]!r}, which was not asked for', is_final=True)
  unfolder = zlib.decompressobj(31)  # gzip
  try:
    text = unfolder.decompress(body, max_bytes + 1)
  except zlib.error as error:
    raise Failure('garbage', f'a page that is not {encoding}', is_final=True) from error
  return text[:max_bytes], len(text) > max_bytes


def decode(body: bytes, charset: str) -> str:
  """The text: by its byte order mark, else by `charset`, else as it declares, else UTF-8."""
  marked = [name for mark, name in _BOMS.items() if body.startswith(mark)]
  declared = [match[1].decode('ascii') for match in [_DECLARED.search(body[:2048])] if match]
  for name in (*marked, charset, *declared):
    name = name.strip().strip('"\'').lower()
    if not _ENCODINGS.fullmatch(name):
      continue
    name = _DEFAULT if re.fullmatch(r'(us-)?ascii|latin-?1|iso-?8859-?1', name) else name
    try:
      return body.decode(name, 'replace').removeprefix('\ufeff')
    except (LookupError, UnicodeError):
      continue
  try:
    return body.decode('utf-8')
  except UnicodeDecodeError as error:
    if error.start > len(body) - 4:  # cut within a character
      return body.decode('utf-8', 'replace')
    return body.decode(_DEFAULT, 'replace')


def cut_tags(html: str) -> tuple[str, bool]:
  """A page up to its 30,000th tag, and whether it had more."""
  pieces = html.split('<', _MAX_TAGS + 1)
  return '<'.join(pieces[:_MAX_TAGS + 1]), len(pieces) > _MAX_TAGS + 1


def main_text(html: str) -> tuple[str, str]:
  """Title and main text of a page; '' for what it has not.

  Raises:
    Failure: 'garbage', it cannot be read.
  """
  trafilatura = import_trafilatura()
  try:
    found = trafilatura.bare_extraction(html, with_metadata=True, include_comments=False)
    title, text = (found.title or '', found.text or '') if found else ('', '')
    text = text or _all_text(html)
  except Exception as error:  # of a library in what anyone may have written
    raise Failure('garbage', f'a page that cannot be read: {type(error).__name__}',
                  is_final=True) from error
  return ' '.join(title.split()), text.strip()


def _all_text(html: str) -> str:
  """What a reader of the page might see, where it has nothing that looks like its main text."""
  import lxml.etree
  import lxml.html
  parser = lxml.html.HTMLParser(encoding='utf-8', remove_comments=True, remove_pis=True)
  try:
    tree = lxml.html.document_fromstring(html.encode('utf-8', 'replace'), parser=parser)
  except lxml.etree.ParserError:  # nothing is in it
    return ''
  lxml.etree.strip_elements(tree, 'head', 'script', 'style', 'noscript', 'template',
                            with_tail=False)
  return ' '.join(' '.join(tree.itertext()).split())


def import_trafilatura() -> ModuleType:
  """trafilatura, without a log of what it reads. Raises ValueError where it is not installed."""
  try:
    import trafilatura
  except ImportError as error:
    raise ValueError('opening web pages needs trafilatura; pip install "mem1_jax[web]"') from error
  for name in ('trafilatura', 'htmldate', 'courlan', 'justext'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  return trafilatura
