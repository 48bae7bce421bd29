"""What `<search>` asks: from a config to a retriever, and to a server of one."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mem1_jax import index, initial, progress
from mem1_jax.data import sources
from mem1_jax.retrieval import Pages, Retriever, bm25_index, documents, server, store, web_apis
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.retrieval.client import RemoteConfig, RemoteRetriever
from mem1_jax.retrieval.dense import CrossEncoder, DenseRetriever
from mem1_jax.retrieval.rerank import Reranked
from mem1_jax.retrieval.web_pages import PageConfig, WebPages
from mem1_jax.retrieval.web_record import Recorder, Replay
from mem1_jax.retrieval.web_small import SmallWeb
from mem1_jax.types import Passage

_SHOWN = 10  # documents that cannot be used, one by one
TOKEN = 'MEM1_RETRIEVER_TOKEN'  # of the environment, since configs are written into run folders


def make_retriever(config: Any, documents: Sequence[Passage] | None = None) -> Retriever:
  """Over these documents; or what `env.retriever` or `env.documents` names, where none are given.

  Raises:
    FileNotFoundError: a file, an index or the reranker is not there.
    ValueError: both are named, or what is named cannot be used.
  """
  e = config.env
  if documents is None and e.retriever and e.documents:
    raise ValueError(f'env.retriever {e.retriever!r} and env.documents {e.documents!r}: set one of '
                     'them')
  ranked = make_ranking(config, 'env.top_k', e.top_k)
  if documents is not None:
    return ranked(make_local(config, documents))
  return ranked(make_remote(config) if e.retriever
                else open_documents(config, e.documents.split(','))[0])


def make_ranking(config: Any, name: str, top_k: int) -> Callable[[Retriever], Retriever]:
  """Puts a retriever's candidates in the order of `env.reranker`; without one, nothing is done.

  All that it compiles is compiled here: later it would count as a recompile of the run.

  Args:
    name: of the knob that says …
    top_k: how many passages are asked for, at most.

  Raises:
    FileNotFoundError: the reranker is not there.
    ValueError: it is no cross-encoder, or has fewer candidates than may be asked for.
  """
  e = config.env
  if not e.reranker:
    return lambda retriever: retriever
  if top_k > e.rerank_candidates:
    raise ValueError(f'{name} {top_k} is above env.rerank_candidates {e.rerank_candidates}; raise '
                     'that, or ask for fewer passages')
  scorer = _scorer(e.reranker)
  return lambda retriever: Reranked(retriever, scorer, e.rerank_candidates)


@functools.lru_cache(maxsize=1)  # one for the worlds of all lessons
def _scorer(name: str) -> CrossEncoder:
  scorer = CrossEncoder(initial.folder(name))
  scorer.warm_up()
  return scorer


def open_documents(config: Any, files: Sequence[str]) -> tuple[Retriever, int]:
  """(a retriever over files of documents, or over the folder of an index; its passages).

  Raises:
    FileNotFoundError: there is no such file, or the folder is no index.
    ValueError: the files have no document, the index is not whole, or of another BM25 than
      `env.bm25_k1`, `env.bm25_b` and `env.title_weight` say.
  """
  paths = [pathlib.Path(file.strip()) for file in files if file.strip()]
  if len(paths) == 1 and paths[0].is_dir():
    found = _open_index(config, paths[0])
    return found, len(found.passages)
  passages = _read(paths)
  with progress.bar('passages', len(passages)) as bar:
    return make_local(config, passages, bar.advance), len(passages)


def _open_index(config: Any, folder: pathlib.Path) -> BM25Retriever | DenseRetriever:
  e = config.env
  if store.read_manifest(folder).get('kind') == bm25_index.KIND:
    return bm25_index.open_retriever(folder, k1=e.bm25_k1, b=e.bm25_b, title_weight=e.title_weight)
  found = index.open_retriever(folder)
  found.warm_up()  # what compiles later would count as a recompile of the run
  return found


def make_local(config: Any, documents: Sequence[Passage],
               on_passage: Callable[[], None] = lambda: None) -> Retriever:
  """In this process; `on_passage` is called after each that was read."""
  e = config.env
  return BM25Retriever(documents, k1=e.bm25_k1, b=e.bm25_b, title_weight=e.title_weight,
                       on_passage=on_passage)


def make_remote(config: Any) -> RemoteRetriever:
  """By the servers of `env.retriever`.

  Raises:
    ValueError: no URLs, or an outage might last longer than episodes wait, which would end them.
  """
  _check_waits(config, 1)
  e = config.env
  return RemoteRetriever(
      [url for url in e.retriever.split(',') if url.strip()],
      RemoteConfig(timeout_s=e.retriever_timeout, patience_s=e.retriever_patience),
      token=os.environ.get(TOKEN, ''))


def _check_waits(config: Any, num_calls: int):
  """That so many calls after one another are over before an episode is given up."""
  e, waits = config.env, config.rollout.reply_timeout
  if num_calls * (e.retriever_patience + e.retriever_timeout) >= waits:
    times = f'{num_calls} times ' if num_calls > 1 else ''
    raise ValueError(
        f'{times}env.retriever_patience {e.retriever_patience} + env.retriever_timeout '
        f'{e.retriever_timeout} must stay below rollout.reply_timeout {waits}, after which an '
        'episode is ended; lower them or raise that')


def make_web(config: Any, documents: Sequence[Passage] | None = None) -> tuple[Retriever, Pages]:
  """Search and pages: of a web made of these documents, of a record, or of the world.

  Raises:
    FileNotFoundError: there is no such record, or description of an API.
    ValueError: an API without URL or key, waits that may end episodes, a reranker of what is not
      searched here, or a package is missing.
  """
  w = config.web
  if documents is not None:
    ranked = make_ranking(config, 'web.top_k', w.top_k)
    web = SmallWeb(documents, ranked(make_local(config, documents)), w.small_snippet_chars)
    return web, web
  if config.env.reranker:
    raise ValueError(f'env.reranker {config.env.reranker!r} ranks passages, which search APIs and '
                     'records do not have; leave it empty')
  if w.replay:
    web = Replay(pathlib.Path(w.replay))
    return web, web
  _check_waits(config, 2)  # searches, then pages
  api = web_apis.APIS.get(w.api) or web_apis.read_api(pathlib.Path(w.api))
  e = config.env
  retriever = web_apis.make_web_retriever(api, RemoteConfig(
      timeout_s=e.retriever_timeout, patience_s=e.retriever_patience, max_concurrent=w.concurrent,
      max_per_s=w.max_per_s), url=w.url, variable=w.key_variable)
  pages = WebPages(PageConfig(timeout_s=e.retriever_timeout, patience_s=e.retriever_patience,
                              max_concurrent=w.concurrent))
  if not w.record:
    return retriever, pages
  web = Recorder(retriever, pages, pathlib.Path(w.record))
  return web, web


def serve(config: Any, files: Sequence[str], host: str, port: int, limits: server.Limits):
  """Serves files of documents, or an index (none: the embedded documents), until it is told to stop.

  Raises:
    FileNotFoundError: there is no such file, or no such reranker.
    ValueError: they have no document, `limits` allow more passages than are ranked, or nothing
      can listen there.
  """
  ranked = make_ranking(config, '--max-top-k', limits.max_top_k)
  passages = sources.atlas_documents()
  retriever, num = (open_documents(config, files) if files
                    else (make_local(config, passages), len(passages)))
  server.serve(ranked(retriever), host, port, limits, lambda url: print(
      f'{num} passages at {url}/retrieve (also /health and /metrics)', flush=True))


def _read(files: Sequence[pathlib.Path]) -> list[Passage]:
  passages, problems = [], []
  with progress.bar('documents', documents.count(files)) as bar:
    for document in documents.read(files):
      bar.advance()
      if document.passage:
        passages.append(document.passage)
      else:
        problems.append(document.problem)
  for problem in problems[:_SHOWN]:
    print(f'skipped: {problem}', file=sys.stderr)
  if problems:
    print(f'{len(problems)} documents cannot be used', file=sys.stderr)
  if not passages:
    raise ValueError(f'no document of {[str(file) for file in files]} can be used; each line is '
                     'like {"id": "7", "contents": "\\"Title\\"\\nText"} or {"title": …, "text": …}')
  return passages
