"""Encoders that run where jax runs: texts → vectors, and (query, passage) → score.

Passages are encoded in wide batches, over all devices that are given. Queries, and the pairs of a
cross-encoder, go through one program row by row, on the first device: a row's bits cannot depend
on what else was asked, which a wide product does not promise.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax import types
from mem1_jax.retrieval import tally
from mem1_jax.retrieval.dense import bert, settings, texts, weights

DTYPES = ('float32', 'bfloat16')
_AT_ONCE = 32  # rows of one call of a row-by-row program
_IN_FLIGHT = 2  # batches that are computed while the next ones are laid out
# Tokens of a batch on one device: a CPU is fastest where a layer's activations stay in its caches.
_BATCH_TOKENS, _CPU_BATCH_TOKENS = 32768, 2048


class SentenceEncoder:
  """A sentence-transformer or E5 from a folder of safetensors.

  Attributes:
    dim: width of a vector.
    max_length: tokens at which a text is cut.
    prefixes: what stands before a query, and before a passage.
    batch_tokens: of one batch of passages, padding included.
    fingerprint: equal for encoders that make the same vectors of the same texts (but for
      `prefixes`): a hash of weights, tokenizer and settings.
  """

  def __init__(
      self,
      folder: str | pathlib.Path,
      *,
      query_prefix: str | None = None,
      passage_prefix: str | None = None,
      max_length: int | None = None,
      dtype: str = 'float32',
      batch_tokens: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ):
    """Reads the folder.

    Args:
      folder: config.json, model.safetensors, tokenizer.json, maybe modules.json.
      query_prefix: None for what the folder says (`settings.prefixes`).
      passage_prefix: likewise.
      max_length: None for what the folder says.
      dtype: of parameters and products; float32 is computed in full, also where
        an accelerator would round. Norms and softmax are float32 in any case.
      batch_tokens: of one batch of passages, padding included; None for 2,048 on
        each device that is a CPU and 32,768 on each other.
      devices: over which a batch is split; None for the first.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the folder holds something else than such an encoder.
    """
    folder = pathlib.Path(folder)
    self._model = _Model(folder, max_length, dtype, devices, False)
    self._pooling = settings.pooling(folder)
    self.batch_tokens = batch_tokens or self._model.default_batch_tokens
    self.dim, self.max_length = self._model.config.dim, self._model.max_length
    own = settings.prefixes(folder)
    self.prefixes = tuple(default if asked is None else asked
                          for asked, default in zip((query_prefix, passage_prefix), own))
    self._encode, self._encode_by_row = _programs(self._model.config, self._pooling)

  @functools.cached_property
  def fingerprint(self) -> str:
    return self._model.hash(repr(self._pooling))

  def tokenize_queries(self, queries: Sequence[str]) -> texts.Tokens:
    return self._model.tokenizer([self.prefixes[0] + query for query in queries])

  def tokenize_passages(self, passages: Sequence[str]) -> texts.Tokens:
    return self._model.tokenizer([self.prefixes[1] + passage for passage in passages])

  def encode_queries(self, tokens: texts.Tokens) -> np.ndarray:
    """[Q, D] float32; a query's bits are the same whatever the others are."""
    found = self._model.by_row(self._encode_by_row, tokens.rows)
    return found.reshape(len(tokens.rows), self.dim)

  def encode_passages(self, tokens: texts.Tokens,
                      on_done: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """[N, D] float32; `on_done` hears how many more are done."""
    found = np.empty([len(tokens.rows), self.dim], np.float32)
    for indices, vectors_BD in self._passage_batches(tokens):
      found[indices] = np.asarray(vectors_BD)[:len(indices)]
      on_done(len(indices))
    return found

  def warm_up(self) -> None:
    """Compiles the programs of queries, so that none is compiled later."""
    self._model.warm_up(self._encode_by_row)

  def _passage_batches(self, tokens: texts.Tokens) -> Iterator[tuple[np.ndarray, jax.Array]]:
    model, running = self._model, collections.deque()
    for batch in texts.batches(tokens.rows, texts.LENGTHS, self.max_length, self.batch_tokens,
                               model.num_devices):
      arrays = jax.device_put((batch.tokens, batch.types, batch.lengths), model.split)
      running.append((batch.indices, self._encode(model.params, *arrays)))
      if len(running) > _IN_FLIGHT:
        yield running.popleft()
    yield from running


class CrossEncoder:
  """Scores passages against a query: a BERT or RoBERTa classifier with one label.

  Its batches are programs by row; the arguments are `SentenceEncoder`'s, and raise the same. May be
  called from several threads.
  """

  def __init__(self, folder: str | pathlib.Path, *, max_length: int | None = None,
               dtype: str = 'float32', template: str = texts.TEMPLATE,
               devices: Sequence[jax.Device] | None = None):
    self._model = _Model(pathlib.Path(folder), max_length, dtype, devices, True)
    self._template = texts.check_template(template)
    self._tally = tally.Tally('rerank', ('pairs', 'cut_pairs'), ('pairs',))
    _, self._score = _programs(self._model.config, None)

  def scores(self, query: str, passages: Sequence[types.Passage]) -> list[float]:
    """Each passage's logit; the same for a pair whatever the other passages are."""
    tokens = self._model.tokenizer(
        [(query, texts.fill(self._template, passage)) for passage in passages])
    self._tally.count('pairs', len(passages))
    self._tally.count('cut_pairs', tokens.num_cut)
    return [float(score) for score in self._model.by_row(self._score, tokens.rows)]

  @property
  def num_cut(self) -> int:
    """Pairs so far that were too long and lost their end."""
    return self._tally.counts['cut_pairs']

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`."""
    return self._tally.metrics()

  def warm_up(self) -> None:
    """Compiles all programs, so that none is compiled later."""
    self._model.warm_up(self._score)


class _Model:
  """What both encoders have: parameters on devices, a tokenizer, programs by row."""

  def __init__(self, folder: pathlib.Path, max_length: int | None, dtype: str,
               devices: Sequence[jax.Device] | None, is_classifier: bool):
    if dtype not in DTYPES:
      raise ValueError(f'dtype {dtype!r} is unknown; choose one of {DTYPES}')
    self._folder, self._dtype = folder, dtype
    self.config = settings.bert_config(folder)
    self.max_length = settings.max_length(folder, self.config, max_length)
    self.tokenizer = texts.Tokenizer(folder, self.max_length)
    devices = list(devices or jax.local_devices()[:1])
    mesh = jax.make_mesh((len(devices),), ('data',), devices=devices,
                         axis_types=(jax.sharding.AxisType.Auto,))
    self.num_devices = len(devices)
    self.default_batch_tokens = len(devices) * (
        _CPU_BATCH_TOKENS if devices[0].platform == 'cpu' else _BATCH_TOKENS)
    self.split = jax.sharding.NamedSharding(mesh, jax.P('data'))
    self.params = jax.device_put(weights.load(folder, self.config, dtype, is_classifier),
                                 jax.sharding.NamedSharding(mesh, jax.P()))
    self._first, self._first_params = devices[0], jax.tree.map(
        lambda x: x.addressable_data(0), self.params)  # the same memory

  def hash(self, more: str) -> str:
    found = hashlib.sha256(f'{more} {self.max_length} {self._dtype}'.encode())
    for name in (settings.CONFIG, weights.WEIGHTS, texts.TOKENIZER):
      with (self._folder / name).open('rb') as file:
        found.update(hashlib.file_digest(file, 'sha256').digest())
    return found.hexdigest()

  def by_row(self, program: Callable, rows: Sequence[np.ndarray]) -> np.ndarray:
    """What a program by row makes of each row."""
    found = {}
    for S in sorted({self._padded(row) for row in rows}):
      indices = [i for i, row in enumerate(rows) if self._padded(row) == S]
      for begin in range(0, len(indices), _AT_ONCE):
        part = np.array(indices[begin:begin + _AT_ONCE])
        found |= zip(part, self._run(program, texts.lay_out(rows, part, _AT_ONCE, S)))
    return np.array([found[i] for i in range(len(rows))], np.float32)

  def warm_up(self, program: Callable) -> None:
    for S in sorted({texts.padded(n, texts.QUERY_LENGTHS, self.max_length)
                     for n in (*texts.QUERY_LENGTHS, self.max_length) if n <= self.max_length}):
      self._run(program, texts.lay_out([], np.zeros([0], int), _AT_ONCE, S))

  def _padded(self, row: np.ndarray) -> int:
    return texts.padded(row.shape[1], texts.QUERY_LENGTHS, self.max_length)

  def _run(self, program: Callable, batch: texts.Batch) -> np.ndarray:
    arrays = jax.device_put(
        (batch.tokens, batch.types, batch.lengths, np.int32(len(batch.indices))), self._first)
    return np.asarray(program(self._first_params, *arrays))


@functools.cache
def _programs(config: settings.BertConfig,
              pooling: settings.Pooling | None) -> tuple[Callable, Callable]:
  """(the program of whole batches, the one of their first `num` rows, each by itself).

  Args:
    pooling: None for a classifier's scores.
  """

  def whole(params, tokens, token_types, lengths):
    if pooling is None:
      return bert.scores(params, config, tokens, token_types, lengths)
    return bert.sentence_vectors(params, config, pooling, tokens, token_types, lengths)

  def by_row(params, tokens, token_types, lengths, num):
    def one(i, found):
      row = [jax.lax.dynamic_slice_in_dim(x, i, 1) for x in (tokens, token_types, lengths)]
      return jax.lax.dynamic_update_slice_in_dim(found, whole(params, *row), i, 0)

    shape = jax.eval_shape(whole, params, tokens, token_types, lengths)
    return jax.lax.fori_loop(0, num, one, jnp.zeros(shape.shape, shape.dtype))

  return jax.jit(whole), jax.jit(by_row)
