"""`main index`: documents → passages and vectors on disk, and from there to a retriever.

What is killed goes on after its last whole shard. A shard's passages alone decide how they are
laid out in batches, so the files are the same, to the bit, as if nothing had happened. An index of
BM25 has scores instead of vectors, and begins anew.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import itertools
import pathlib
import time
from typing import Any

import jax
import numpy as np

from mem1_jax import initial, metrics, progress, types
from mem1_jax.retrieval import bm25, bm25_index, documents, nearest, store
from mem1_jax.retrieval.dense import DenseRetriever, SentenceEncoder, texts

STORED = ('float16', 'float32')
ENGINES = ('faiss', 'numpy')
_SHOWN = 10  # bad documents that are shown one by one


@dataclasses.dataclass(frozen=True)
class Options:
  """How an index is made.

  Attributes:
    encoder: a folder, or hf:NAME.
    kind: flat (exact), ivfpq or hnsw (approximate, by FAISS).
    stored: dtype of the vectors on disk.
    dtype: of the encoder's products.
    template: of what it reads of a passage.
    query_prefix: None for what its folder says; likewise the next two.
    shard_size: passages of a shard: what is lost, at most, when the program is killed.
    batch_tokens: of one batch, padding included; None for what suits the devices.
  """

  encoder: str
  kind: str = 'flat'
  stored: str = 'float16'
  dtype: str = 'float32'
  template: str = texts.TEMPLATE
  query_prefix: str | None = None
  passage_prefix: str | None = None
  max_length: int | None = None
  shard_size: int = 65536
  batch_tokens: int | None = None

  def __post_init__(self):
    if self.kind not in nearest.KINDS or self.stored not in STORED:
      raise ValueError(f'kind {self.kind!r}, stored {self.stored!r}: choose one of '
                       f'{nearest.KINDS} and one of {STORED}')
    if self.shard_size < 1 or (self.batch_tokens or 1) < 1:
      raise ValueError(f'shard_size={self.shard_size}, batch_tokens={self.batch_tokens}: need at '
                       'least 1')
    texts.check_template(self.template)


@dataclasses.dataclass(frozen=True)
class _Part:
  """Passages of a shard to be, read and tokenised."""

  passages: list[types.Passage]
  tokens: texts.Tokens
  num_bad: int
  after: documents.Place


def build(files: Sequence[pathlib.Path], out: pathlib.Path, options: Options, is_resumed: bool,
          say: Callable[[str], None] = print) -> dict[str, Any]:
  """Makes the index, or what is missing of it; returns its manifest.

  Raises:
    FileNotFoundError: a file of documents or of the encoder is not there.
    FileExistsError: the folder has an index, and `is_resumed` is False.
    ValueError: it was begun with other settings, no document can be used, or FAISS is missing.
  """
  if options.kind != 'flat':
    nearest.import_faiss()  # fails before hours of encoding
  total, begun = documents.count(files), time.monotonic()
  encoder = _encoder(initial.folder(options.encoder), dataclasses.asdict(options),
                     jax.local_devices())
  settings = _settings(files, options, encoder)
  done = _begin(out, settings, is_resumed)
  num_new, num_bad = _encode(files, out, options, encoder, done, total, say)
  done = store.shards(out)
  if not done:
    raise ValueError(f'none of the {num_bad} documents of {", ".join(map(str, files))} can be '
                     'used; the reasons are shown above')
  seconds = time.monotonic() - begun
  if options.kind != 'flat' and not store.ann_file(out, options.kind).is_file():
    _build_ann(out, options.kind)
  counts = {'kind': options.kind, 'num_passages': sum(shard.num_passages for shard in done),
            'num_bad': num_bad, 'num_cut': sum(shard.num_cut for shard in done)}
  manifest = settings | counts | {'is_whole': True}
  store.write_manifest(out, manifest)
  say(f'{out}: {counts["num_passages"]} passages, {num_new} of them new, {num_new / seconds:.1f}/s;'
      f' {num_bad} documents skipped, {counts["num_cut"]} passages cut at {encoder.max_length} '
      'tokens')
  return manifest


def build_bm25(files: Sequence[pathlib.Path], out: pathlib.Path, *, k1: float, b: float,
               title_weight: int, is_resumed: bool, shard_size: int = 65536,
               say: Callable[[str], None] = print) -> dict[str, Any]:
  """Makes a BM25 index (retrieval/bm25_index.py) unless it is there whole; returns its manifest.

  Raises:
    FileNotFoundError: a file of documents is not there.
    FileExistsError: the folder has an index, and `is_resumed` is False.
    ValueError: it was begun with other settings, one is outside its range, or no document can be
      used.
  """
  bm25.check(k1, b, title_weight)
  if shard_size < 1:
    raise ValueError(f'shard_size={shard_size} is below 1; raise it')
  knobs = {'k1': k1, 'b': b, 'title_weight': title_weight, 'shard_size': shard_size}
  total = documents.count(files)
  settings = {'kind': bm25_index.KIND} | knobs | _origin(files)
  _begin(out, settings, is_resumed)
  if (manifest := store.read_manifest(out)).get('is_whole'):
    return manifest
  with progress.bar('index', total) as bar:
    counts = bm25_index.build(_told(documents.read(files), say, bar.advance), out, **knobs)
  manifest = settings | counts | {'is_whole': True}
  store.write_manifest(out, manifest)
  say(f'{out}: {counts["num_passages"]} passages; {counts["num_bad"]} documents skipped')
  return manifest


def open_retriever(folder: pathlib.Path, encoder: str = '', *, engine: str = '',
                   num_candidates: int = 100, effort: int = 64, cache_size: int = 65536,
                   devices: Sequence[jax.Device] | None = None) -> DenseRetriever:
  """The retriever over an index; passages and vectors stay on disk.

  Args:
    folder: what `build` wrote.
    encoder: a folder or hf:NAME; '' for the one that the index names.
    engine: of an exact search; '' for faiss where it is installed, else numpy.
    num_candidates: of an approximate search, that are ranked exactly.
    effort: of an approximate search: cells of ivfpq, or candidates on hnsw's way.
    cache_size: queries whose results are kept.
    devices: of the queries' encoder; the first is used, None for jax's.

  Raises:
    FileNotFoundError: the folder is no index, or the encoder is not there.
    ValueError: the index is not whole, or its encoder is another one.
  """
  manifest = store.read_manifest(folder)
  if manifest.get('kind') == bm25_index.KIND:
    raise ValueError(f'{folder} is an index of kind bm25; open it with bm25_index.open_retriever')
  if not manifest.get('is_whole'):
    raise ValueError(f'{folder} is not whole; go on with `main index --resume`')
  asker = _encoder(initial.folder(encoder or manifest['encoder']), manifest, devices)
  if asker.fingerprint != manifest['fingerprint']:
    raise ValueError(f'{folder} was made with another encoder than {encoder or "its own now is"} '
                     f'({manifest["encoder"]}, fingerprint {manifest["fingerprint"][:12]}); give '
                     'that one, or make the index anew')
  vectors, kind = store.open_vectors(folder), manifest['kind']
  if kind == 'flat':
    finder = _exact(vectors, engine)
  else:
    finder = nearest.FaissANN(vectors, nearest.load(kind, store.ann_file(folder, kind)),
                              num_candidates, effort)
  return DenseRetriever(asker, store.Passages(folder), finder, cache_size)


def over(encoder: SentenceEncoder, passages: Sequence[types.Passage],
         template: str = texts.TEMPLATE, engine: str = '') -> DenseRetriever:
  """An exact retriever over passages in memory, which are encoded now."""
  tokens = encoder.tokenize_passages([texts.fill(template, passage) for passage in passages])
  vectors = nearest.Vectors([encoder.encode_passages(tokens)])
  return DenseRetriever(encoder, tuple(passages), _exact(vectors, engine))


def _exact(vectors: nearest.Vectors, engine: str) -> nearest.Nearest:
  engine = engine or ('faiss' if nearest.has_faiss() else 'numpy')
  if engine not in ENGINES:
    raise ValueError(f'engine {engine!r} is unknown; choose one of {ENGINES}')
  return nearest.FaissFlat(vectors) if engine == 'faiss' else nearest.Flat(vectors)


def _encoder(folder: pathlib.Path, options: dict[str, Any],
             devices: Sequence[jax.Device] | None) -> SentenceEncoder:
  keys = ('query_prefix', 'passage_prefix', 'max_length', 'dtype', 'batch_tokens')
  return SentenceEncoder(folder, devices=devices, **{key: options[key] for key in keys})


def _settings(files: Sequence[pathlib.Path], options: Options,
              encoder: SentenceEncoder) -> dict[str, Any]:
  """What all shards of an index have in common."""
  query_prefix, passage_prefix = encoder.prefixes
  found = dataclasses.asdict(options) | {
      'query_prefix': query_prefix, 'passage_prefix': passage_prefix,
      'max_length': encoder.max_length, 'batch_tokens': encoder.batch_tokens, 'dim': encoder.dim,
      'fingerprint': encoder.fingerprint} | _origin(files)
  del found['kind']  # an approximate index can be added, or exchanged, later
  return found


def _origin(files: Sequence[pathlib.Path]) -> dict[str, Any]:
  return {'documents': [{'name': file.name, 'bytes': file.stat().st_size} for file in files],
          'made_with': metrics.versions() | metrics.machine()}


def _begin(out: pathlib.Path, settings: dict[str, Any], is_resumed: bool) -> list[store.Shard]:
  """The shards that are there already; writes the manifest where there is none."""
  try:
    before = store.read_manifest(out)
  except FileNotFoundError:
    store.write_manifest(out, settings | {'is_whole': False})
    return []
  if not is_resumed:
    raise FileExistsError(f'{out} has an index already; go on with it by --resume, or name '
                          'another folder')
  differing = [key for key in settings
               if key not in ('encoder', 'made_with') and before.get(key) != settings[key]]
  if differing:
    raise ValueError(f'{out} was begun with another {", ".join(differing)} ('
                     + ', '.join(f'{key}: {before.get(key)!r}' for key in differing)
                     + '); give the same ones, or name another folder')
  return store.shards(out)


def _encode(files, out, options, encoder, done, total, say) -> tuple[int, int]:
  """Adds the shards that are missing; how many passages these have, and all bad documents."""
  begin = done[-1].after if done else documents.Place()
  num_bad, num_new = sum(shard.num_bad for shard in done), 0
  num_read = num_bad + sum(shard.num_passages for shard in done)
  parts = _parts(_told(documents.read(files, begin), say), options, encoder)
  with progress.bar('index', total - num_read) as bar, futures.ThreadPoolExecutor(1) as reader:
    # The next shard is read and tokenised while this one is encoded.
    coming = reader.submit(next, parts, None)
    for number in itertools.count(len(done)):
      if (part := coming.result()) is None:
        return num_new, num_bad
      coming = reader.submit(next, parts, None)
      if part.num_bad:
        bar.advance(part.num_bad)
      num_bad, num_new = num_bad + part.num_bad, num_new + len(part.passages)
      if part.passages:
        vectors = encoder.encode_passages(part.tokens, bar.advance).astype(options.stored)
        if not np.isfinite(vectors).all():
          raise ValueError(f'shard {number} has vectors that {options.stored} cannot hold; store '
                           'them as float32, and look at the encoder if that fails, too')
        store.write_shard(out, number, part.passages, vectors, part.num_bad,
                          part.tokens.num_cut, part.after)


def _told(found: Iterator[documents.Document], say: Callable[[str], None],
          on_document: Callable[[], None] = lambda: None) -> Iterator[documents.Document]:
  """The documents; says of the first that cannot be used why, and of each that it was read."""
  num_shown = 0
  for document in found:
    if document.problem and num_shown < _SHOWN:
      say(f'skipped: {document.problem}')
      num_shown += 1
    on_document()
    yield document


def _parts(found: Iterator[documents.Document], options: Options,
           encoder: SentenceEncoder) -> Iterator[_Part]:
  """What each shard will hold (`documents.parts`)."""
  for part in documents.parts(found, options.shard_size):
    tokens = encoder.tokenize_passages([texts.fill(options.template, p) for p in part.passages])
    yield _Part(part.passages, tokens, part.num_bad, part.after)


def _build_ann(out: pathlib.Path, kind: str) -> None:
  vectors = store.open_vectors(out)
  with progress.bar(kind, len(vectors)) as bar:
    index = nearest.build(kind, vectors, bar.advance)
  store.write_whole(store.ann_file(out, kind), lambda file: nearest.save(index, file))
