"""A bucket of this process: gs://… for etils (by fsspec) and for tensorstore (by HTTP).

As in a real one, objects are whole or not there, and cannot be appended to.
"""

import contextlib
import http.server
import json
import os
import sys
import threading
import types
import urllib.parse
from unittest import mock

from etils.epath import backend, gpath
import fsspec
from fsspec.implementations import memory
from orbax.checkpoint._src.path import gcs_utils


class Bucket(memory.MemoryFileSystem):
  """fsspec's file system in memory under another name."""

  protocol, store, pseudo_dirs = ('gcs', 'gs'), {}, ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(os.fspath(path).removeprefix('gs://'))

  def _open(self, path, mode='rb', **options):
    if 'a' in mode or '+' in mode:
      raise NotImplementedError('an object cannot be appended to')
    return super()._open(path, mode, **options)


class _Handler(http.server.BaseHTTPRequestHandler):
  """As much of Google's JSON API as tensorstore uses."""

  protocol_version = 'HTTP/1.1'

  def _parse(self):
    url = urllib.parse.urlsplit(self.path)
    parts = url.path.split('/o', 1)
    bucket = parts[0].rsplit('/', 1)[1]
    name = urllib.parse.unquote(parts[1].removeprefix('/')) if len(parts) > 1 else ''
    query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
    return f'/{bucket}/', name, query

  def _answer(self, status, body=b'', headers=()):
    self.send_response(status)
    for name, value in [*headers, ('Content-Length', str(len(body)))]:
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)

  def _resource(self, root, name, file):
    return {'kind': 'storage#object', 'name': name, 'bucket': root.strip('/'), 'generation': '1',
            'metageneration': '1', 'size': str(len(file.getvalue())),
            'timeCreated': '2026-01-01T00:00:00Z', 'updated': '2026-01-01T00:00:00Z'}

  def do_GET(self):
    root, name, query = self._parse()
    if not name:
      names = sorted(key.removeprefix(root) for key in Bucket.store if key.startswith(root))
      items = [self._resource(root, n, Bucket.store[root + n]) for n in names
               if n.startswith(query.get('prefix', ''))]
      self._answer(200, json.dumps({'kind': 'storage#objects', 'items': items}).encode())
      return
    file = Bucket.store.get(root + name)
    if file is None:
      self._answer(404)
    elif query.get('alt') != 'media':
      self._answer(200, json.dumps(self._resource(root, name, file)).encode())
    else:
      data, status, headers = file.getvalue(), 200, [('x-goog-generation', '1')]
      if (span := self.headers.get('Range', '')).startswith('bytes='):
        first, _, last = span.removeprefix('bytes=').partition('-')
        total = len(data)
        start = int(first) if first else max(0, total - int(last))
        end = int(last) + 1 if first and last else total
        data, status = data[start:end], 206
        headers.append(('Content-Range', f'bytes {start}-{start + len(data) - 1}/{total}'))
      self._answer(status, data, headers)

  def do_POST(self):
    root, _, query = self._parse()
    data = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    with fsspec.filesystem('gcs').open(f'gs:/{root}{query["name"]}', 'wb') as file:
      file.write(data)
    stored = Bucket.store[root + query['name']]
    self._answer(200, json.dumps(self._resource(root, query['name'], stored)).encode())

  def do_DELETE(self):
    root, name, _ = self._parse()
    self._answer(204 if Bucket.store.pop(root + name, None) else 404)

  def log_message(self, *args):
    pass


def without_tensorflow():
  """etils reads buckets by fsspec meanwhile; its own switch is read once in a process."""
  return mock.patch.object(gpath, '_is_tf_installed', lambda: False)


@contextlib.contextmanager
def serving():
  """gs://… is here meanwhile; it begins empty."""
  Bucket.store.clear()
  Bucket.pseudo_dirs[:] = ['']
  server = http.server.ThreadingHTTPServer(('localhost', 0), _Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  known = mock.patch.dict(sys.modules['fsspec.registry']._registry, {'gcs': Bucket})
  backend.fsspec_backend._get_filesystem.cache_clear()
  # Orbax asks Google what kind of bucket it is, by a package that need not be here.
  kind = mock.patch.object(gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False)
  package = mock.patch.dict(sys.modules, {'google.cloud.storage': types.ModuleType('storage')})
  try:
    with known, kind, package, without_tensorflow(), mock.patch.dict(os.environ, {
        'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
        'TENSORSTORE_GCS_HTTP_URL': f'http://localhost:{server.server_port}'}):
      yield Bucket
  finally:
    server.shutdown()
    server.server_close()
    backend.fsspec_backend._get_filesystem.cache_clear()
