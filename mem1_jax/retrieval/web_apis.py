"""Search of the open web: APIs that answer with titles, snippets and URLs, as JSON.

    serper    POST {"q": …, "num": …}, X-API-KEY → {"organic": [{title, link, snippet}, …], …}
    searxng   GET /search?q=…&format=json        → {"results": [{title, url, content}, …]}
    a file    any other, as a JSON object of the fields of `WebApi`:

    {"url": "https://api.example.com/v1/search", "is_post": true, "header": "Authorization",
     "key": "Bearer {key}", "ask": {"query": "{query}", "max_results": "{top_k}"},
     "results": [{"path": "data.items", "title": "name", "text": ["extract"], "url": "link"}]}

A key comes from the environment and goes into a header: it is in no config, log, error or record.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any
import urllib.parse

from mem1_jax import types
from mem1_jax.retrieval import wire
from mem1_jax.retrieval.client import RemoteConfig, RemoteRetriever
from mem1_jax.retrieval.endpoint import Request, check_secret

KEY = 'MEM1_SEARCH_API_KEY'  # of the environment, since configs are written into run folders
_HERE = ('localhost', '127.0.0.1', '::1')


@dataclasses.dataclass(frozen=True)
class Results:
  """Where in a reply results are, and what of each is read.

  Attributes:
    path: keys down to a list of objects, or to one, with dots between them.
    title, url: keys of a result.
    text: keys of a result, the first of which with something in it is its snippet.
    is_needed: a reply without this is none.
  """

  path: str
  title: str = 'title'
  text: tuple[str, ...] = ('snippet',)
  url: str = 'url'
  is_needed: bool = True


@dataclasses.dataclass(frozen=True)
class WebApi:
  """A `client.Api` of one query a request.

  Attributes:
    url: of the server; '' where it has to be given.
    path: where requests go, of a URL without a path.
    ask: what is sent: `"{query}"` and `"{top_k}"` stand for those, anywhere in it.
    is_post: `ask` is the body, as JSON; otherwise the parameters of the URL.
    header: of the key; '' for none.
    key: what stands in that header: `{key}` for the key.
    results: in the order in which they are told.
  """

  url: str
  ask: Mapping[str, Any]
  results: tuple[Results, ...]
  path: str = '/search'
  is_post: bool = False
  header: str = ''
  key: str = '{key}'

  is_far = True

  def __post_init__(self):
    if '{query}' not in json.dumps(self.ask):
      raise ValueError('ask has no "{query}" in it; say where the query goes')
    if self.header and '{key}' not in self.key:
      raise ValueError('key has no "{key}" in it; a key comes from the environment')
    if not self.results:
      raise ValueError('results has 0 entries; say where in a reply results are')

  def write(self, queries: Sequence[str], top_k: int) -> Request:
    """The request of one query. Raises ValueError where there are several."""
    if len(queries) != 1:
      raise ValueError(f'{len(queries)} queries in one request; web APIs take 1: max_queries=1')
    asked = _filled(self.ask, {'{query}': _plain(queries[0]), '{top_k}': top_k})
    if self.is_post:
      return Request(json.dumps(asked).encode())
    return Request(params={name: str(value) for name, value in asked.items()})

  def read(self, reply: bytes, top_k: int) -> list[list[types.Passage]]:
    """The best `top_k` results: `id` is the URL. Raises ValueError where it is no reply."""
    message = wire.read_object(reply, f'a reply with {self.results[-1].path}')
    found = [passage for results in self.results for passage in _read(message, results)]
    return [found[:top_k]]


SERPER = WebApi(
    'https://google.serper.dev/search', {'q': '{query}', 'num': '{top_k}'}, (
        Results('answerBox', text=('answer', 'snippet'), url='link', is_needed=False),
        Results('knowledgeGraph', text=('description',), url='descriptionLink', is_needed=False),
        Results('organic', url='link')), is_post=True, header='X-API-KEY')
SEARXNG = WebApi('', {'q': '{query}', 'format': 'json'}, (Results('results', text=('content',)),))
APIS = {'serper': SERPER, 'searxng': SEARXNG}


def read_api(file: pathlib.Path) -> WebApi:
  """The API that a JSON file describes.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it describes none; names the file.
  """
  try:
    fields = dict(json.loads(file.read_text('utf-8')))
    results = tuple(Results(**{**entry, 'text': tuple(entry.get('text', Results.text))})
                    for entry in fields.pop('results'))
    return WebApi(results=results, **fields)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f'{file} describes no search API ({type(error).__name__}: {error}); it is an '
                     'object of url, ask, results, is_post, header and key') from error


def make_web_retriever(api: WebApi, config: RemoteConfig, *, url: str = '', variable: str = KEY,
                       **parts: Any) -> RemoteRetriever:
  """A retriever over an API, with the key that the environment has for it.

  Args:
    api: see `APIS` and `read_api`.
    config: of limits; a request has one query, whatever it says.
    url: in place of the API's own.
    variable: of the environment, that holds the key.
    parts: for tests (`RemoteRetriever`).

  Raises:
    ValueError: no URL, no key or a key that is none, or httpx is not installed.
  """
  if not (url or api.url):
    raise ValueError('the search API has no URL; give the one of your server')
  key = check_secret(os.environ.get(variable, ''), variable) if api.header else ''
  if api.header and not key:
    raise ValueError(f'the search API wants a key; export it as {variable}')
  parts_of_url = urllib.parse.urlsplit(url or api.url)
  if key and parts_of_url.scheme != 'https' and parts_of_url.hostname not in _HERE:
    raise ValueError(f'the key would go to {parts_of_url.hostname} for everyone on the way to '
                     'read; give a URL of https')
  headers = {api.header: api.key.replace('{key}', key)} if api.header else {}
  return RemoteRetriever([url or api.url], dataclasses.replace(config, max_queries=1), api=api,
                         headers=headers, secret=key, **parts)


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
  """The template with words in place of strings that are their names, and nowhere else."""
  if isinstance(value, Mapping):
    return {name: _filled(entry, words) for name, entry in value.items()}
  if isinstance(value, list | tuple):
    return [_filled(entry, words) for entry in value]
  return words.get(value, value) if isinstance(value, str) else value


def _read(message: Mapping[str, Any], results: Results) -> list[types.Passage]:
  entries = _down(message, results.path)
  if entries is None and not results.is_needed:
    return []
  entries = [entries] if isinstance(entries, Mapping) else entries
  if not isinstance(entries, list):
    raise ValueError(f'{results.path} is no list of results')
  passages = [passage for entry in entries if (passage := _passage(entry, results))]
  if entries and not passages and results.is_needed:
    raise ValueError(f'none of {len(entries)} entries of {results.path} has {results.title}, '
                     f'{results.url} and a text')
  return passages


def _passage(entry: Any, results: Results) -> types.Passage | None:
  """A result; None for what has neither text nor title to show, or no page to open."""
  if not isinstance(entry, Mapping):
    return None
  title, url = (_string(_down(entry, key)) for key in (results.title, results.url))
  text = next(filter(None, (_string(_down(entry, key)) for key in results.text)), '')
  if not url.startswith(('http://', 'https://')):
    if results.is_needed or not text:
      return None
    url = ''  # a direct answer may be nobody's page
  return types.Passage(title or url or 'Answer', text, id=url) if title or text else None


def _down(value: Any, path: str) -> Any:
  for key in path.split('.'):
    value = value.get(key) if isinstance(value, Mapping) else None
  return value


def _string(value: Any) -> str:
  return _plain(' '.join(value.split())) if isinstance(value, str) else ''


def _plain(text: str) -> str:
  """Without halves of surrogate pairs, which JSON can spell and nothing else."""
  return text.encode('utf-8', 'replace').decode()
