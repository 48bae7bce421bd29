"""Tokenizers behind one small protocol: ids, bytes, and two doors for text.

`encode` is for text that we wrote: tags and labels may become single ids. The
other door, `encode_data`, is for text that others wrote: no special token, tag or
label id can come out of it, whatever it spells.

Both classes reduce to the same facts: an encoder, the bytes of each id, and the
symbols (texts that the encoder turns into one reserved id on sight).
"""

from collections.abc import Callable, Iterable, Sequence
import os
import re
from typing import Any, Protocol


class Tokenizer(Protocol):
  """What the rest of the program needs of a tokenizer.

  Attributes:
    vocab_size: ids are below it (a model may pad its embedding beyond).
    eos_id: ends a text.
    pad_id: fills rows.
    token_bytes: for each id the bytes that it adds to the text; b'' for control
      tokens. `decode` is their concatenation read as UTF-8.
  """

  vocab_size: int
  eos_id: int
  pad_id: int
  token_bytes: tuple[bytes, ...]

  def encode(self, text: str) -> list[int]:
    """Ids of trusted text; tags and labels may become single ids."""

  def encode_data(self, text: str) -> list[int]:
    """Ids of untrusted text: never a special token's, a tag's or a label's."""

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`; control tokens are nothing, broken UTF-8 is U+FFFD."""

  def save(self, folder: str | os.PathLike[str]) -> None:
    """Writes its files into an existing folder, beside an exported model."""


class SentencePieceTokenizer:
  """A SentencePiece model whose tags and labels are user-defined symbols.

  The model must return text unchanged (`normalization_rule_name=identity`,
  `remove_extra_whitespaces=false`, `add_dummy_prefix=false`, `byte_fallback=true`),
  since the memory is cut and joined at token borders. One exception is built into
  SentencePiece: U+2581 is read as a space.

  Attributes:
    symbols: the user-defined symbols, e.g. `<think>`, `[kf]`, in id order.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Raises ValueError where the model changes text or lacks eos and pad ids."""
    import sentencepiece

    self._processor = sentencepiece.SentencePieceProcessor(model_file=os.fspath(path))
    processor = self._processor
    self.vocab_size = processor.vocab_size()
    self.eos_id, self.pad_id = processor.eos_id(), processor.pad_id()
    if min(self.eos_id, self.pad_id) < 0:
      raise ValueError(f'{path} has eos id {self.eos_id} and pad id {self.pad_id};'
                       ' train it with eos_id and pad_id ≥ 0')
    types = _sentencepiece_types(processor.serialized_model_proto())
    user_defined = [i for i, kind in enumerate(types) if kind == _USER_DEFINED]
    self.symbols = tuple(processor.id_to_piece(i) for i in user_defined)
    self.token_bytes = tuple(
        b'' if types[i] in (_UNKNOWN, _CONTROL) else _piece_bytes(
            processor.id_to_piece(i), is_byte=types[i] == _BYTE)
        for i in range(self.vocab_size))
    reserved = {i for i, kind in enumerate(types) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)}
    self._data = _DataEncoder(processor.encode, self.symbols, reserved, self.token_bytes)
    _check_lossless(self, path)

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def encode_data(self, text: str) -> list[int]:
    return self._data(text)

  def decode(self, ids: Sequence[int]) -> str:
    return _decode(self.token_bytes, ids)

  def save(self, folder: str | os.PathLike[str]) -> None:
    """Writes `tokenizer.model`, for SentencePiece; transformers has no class for it."""
    with open(os.path.join(folder, 'tokenizer.model'), 'wb') as file:
      file.write(self._processor.serialized_model_proto())


class HuggingFaceTokenizer:
  """A fast Hugging Face tokenizer: byte-level BPE or SentencePiece-like BPE.

  Attributes:
    symbols: contents of the added tokens, in id order.
  """

  def __init__(self, tokenizer: Any):
    """Wraps a tokenizer.

    Args:
      tokenizer: a `PreTrainedTokenizerFast`, or a name or path of one.

    Raises:
      ValueError: not a fast tokenizer, no end-of-sequence token, or the text comes
        back changed by more than Unicode normalisation.
    """
    if isinstance(tokenizer, (str, os.PathLike)):
      import transformers

      tokenizer = transformers.AutoTokenizer.from_pretrained(os.fspath(tokenizer))
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    if backend is None or tokenizer.eos_token_id is None:
      raise ValueError(f'{type(tokenizer).__name__} has no fast backend or no eos token; load'
                       ' it with use_fast=True and set eos_token')
    self._wrapped = tokenizer
    # Copies: transformers changes the settings of its own backend as it is called.
    serialized = backend.to_str()
    self._trusted = type(backend).from_str(serialized)
    self._untrusted = type(backend).from_str(serialized)
    self._trusted.encode_special_tokens = False
    self._untrusted.encode_special_tokens = True  # what split_special_tokens=True sets
    for copy in (self._trusted, self._untrusted):
      copy.no_truncation()
      copy.no_padding()
    added = self._trusted.get_added_tokens_decoder()
    vocab = self._trusted.get_vocab(with_added_tokens=True)
    self.vocab_size = max(vocab.values()) + 1
    self.eos_id = tokenizer.eos_token_id
    self.pad_id = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    self.symbols = tuple(added[i].content for i in sorted(added))
    is_byte_level = '"ByteLevel"' in serialized
    token_bytes = [b''] * self.vocab_size  # ids without a token add nothing
    for piece, i in vocab.items():
      token_bytes[i] = _byte_level_bytes(piece) if is_byte_level else _piece_bytes(
          piece, is_byte=_BYTE_PIECE.fullmatch(piece) is not None)
    for i, token in added.items():
      token_bytes[i] = b'' if token.special else token.content.encode()
    self.token_bytes = tuple(token_bytes)
    self._data = _DataEncoder(
        lambda text: self._untrusted.encode(text, add_special_tokens=False).ids,
        self.symbols, set(added), self.token_bytes)
    _check_lossless(self, type(tokenizer).__name__)

  def encode(self, text: str) -> list[int]:
    return self._trusted.encode(text, add_special_tokens=False).ids

  def encode_data(self, text: str) -> list[int]:
    return self._data(text)

  def decode(self, ids: Sequence[int]) -> str:
    return _decode(self.token_bytes, ids)

  def save(self, folder: str | os.PathLike[str]) -> None:
    """Writes tokenizer.json and its like, the chat template included."""
    self._wrapped.save_pretrained(folder)


class MarkedTokenizer:
  """A tokenizer with control ids of its own for markers that it lacks, such as ChatML's.

  To count tokens and to make text for a model elsewhere; no model of ours has such ids.

  Args:
    tokenizer: what everything else is left to.
    markers: each becomes one id, where we write it; the last one ends a text.
  """

  def __init__(self, tokenizer: Tokenizer, markers: Sequence[str]):
    self._tokenizer = tokenizer
    self._ids = {marker: tokenizer.vocab_size + i for i, marker in enumerate(markers)}
    self._marker = re.compile('(' + '|'.join(map(re.escape, markers)) + ')')
    self.vocab_size = tokenizer.vocab_size + len(markers)
    self.eos_id, self.pad_id = self._ids[markers[-1]], tokenizer.pad_id
    self.token_bytes = (*tokenizer.token_bytes, *(b'' for _ in markers))
    self.encode_data = tokenizer.encode_data  # spells markers, as it does all else
    self.save = tokenizer.save

  def encode(self, text: str) -> list[int]:
    ids = []
    for part in self._marker.split(text):
      ids += [self._ids[part]] if part in self._ids else self._tokenizer.encode(part)
    return ids

  def decode(self, ids: Sequence[int]) -> str:
    return _decode(self.token_bytes, ids)


class _DataEncoder:
  """Encodes text so that no reserved id can come out.

  Every occurrence of a symbol is cut behind its first character and the parts are
  encoded one by one, so that no part contains a symbol. What is left (a symbol of
  one character, or one that normalisation produces) is spelled byte by byte.
  """

  def __init__(
      self,
      encode: Callable[[str], list[int]],
      symbols: Iterable[str],
      reserved: set[int],
      token_bytes: Sequence[bytes],
  ):
    self._encode = encode
    self._reserved = frozenset(reserved)
    # Lookahead: overlapping occurrences count too.
    alternatives = '|'.join(re.escape(symbol) for symbol in symbols if symbol)
    self._symbol = re.compile(f'(?={alternatives})' if alternatives else r'(?!)')
    self._byte_ids = {token[0]: i for i, token in reversed(list(enumerate(token_bytes)))
                      if len(token) == 1 and i not in reserved}

  def __call__(self, text: str) -> list[int]:
    cuts = [match.start() + 1 for match in self._symbol.finditer(text)]
    ids = []
    for start, end in zip([0, *cuts], [*cuts, len(text)]):
      part_ids = self._encode(text[start:end])
      is_safe = self._reserved.isdisjoint(part_ids)
      ids += part_ids if is_safe else self._spell(text[start:end])
    return ids

  def _spell(self, part: str) -> list[int]:
    data = part.encode()
    missing = set(data) - self._byte_ids.keys()
    if missing:
      raise ValueError(f'{part!r} cannot be spelled: the vocabulary has no token for the bytes'
                       f' {sorted(missing)}; train it with byte fallback')
    return [self._byte_ids[byte] for byte in data]


def _decode(token_bytes: Sequence[bytes], ids: Sequence[int]) -> str:
  return b''.join(token_bytes[i] for i in ids).decode('utf-8', errors='replace')


def _check_lossless(tokenizer: Tokenizer, name: object) -> None:
  """Raises ValueError where blanks are lost or added at the border of a text."""
  for probe in ('a', ' a  b ', '\na\n'):
    result = tokenizer.decode(tokenizer.encode(probe))
    if result != probe:
      raise ValueError(f'{name} turns {probe!r} into {result!r}; use a tokenizer that adds no'
                       ' prefix space and keeps white space')


# SentencePiece: pieces and their types, read from the serialized model.

# ModelProto.SentencePiece.Type
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_BYTE_PIECE = re.compile(r'<0x([0-9A-Fa-f]{2})>')


def _piece_bytes(piece: str, is_byte: bool) -> bytes:
  if is_byte:
    return bytes([int(_BYTE_PIECE.fullmatch(piece).group(1), 16)])
  return piece.replace('▁', ' ').encode()


def _sentencepiece_types(model: bytes) -> list[int]:
  """Type of each piece. Python's SentencePiece does not tell user-defined from normal.

  ModelProto is `repeated SentencePiece pieces = 1`, with `Type type = 3 [default = 1]`
  (https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto).
  """
  pieces = [value for field, value in _protobuf_fields(model) if field == 1]
  return [dict(_protobuf_fields(piece)).get(3, 1) for piece in pieces]


def _protobuf_fields(message: bytes) -> Iterable[tuple[int, Any]]:
  """(field number, value) pairs of a serialized protocol buffer."""
  at = 0
  while at < len(message):
    key, at = _varint(message, at)
    wire = key & 7
    if wire == 0:
      value, at = _varint(message, at)
    else:
      size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(message, at)
      value, at = message[at:at + size], at + size
    yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = message[at]
    value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
    if byte < 128:
      return value, at


# Byte-level BPE: GPT-2 writes each byte as one printable character.


def _byte_characters() -> dict[str, int]:
  """GPT-2's map (https://github.com/openai/gpt-2/blob/master/src/encoder.py), inverted."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {
      chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def _byte_level_bytes(piece: str) -> bytes:
  # A character outside the map stands in an added token, whose text is its own.
  return b''.join(bytes([_BYTE_OF[c]]) if c in _BYTE_OF else c.encode() for c in piece)
