"""The tokenizer inside a GGUF file, for byte-level BPE vocabularies (Qwen2, SmolLM).

transformers builds the same one from `gguf_file=`, but since version 5 only where PyTorch is.
"""

import os
from typing import Any

# Isolated matches are merged separately (tokenizer.json of Qwen/Qwen2.5-0.5B).
_QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_CONTROL, _USER_DEFINED = 3, 4  # token types of llama.cpp
_SPLITS = ('qwen2', 'smollm')


def load(path: str | os.PathLike[str]) -> Any:
  """A `PreTrainedTokenizerFast` with the file's chat template.

  Raises:
    ValueError: another kind of tokenizer, or a damaged file.
  """
  try:
    import gguf
  except ImportError as error:
    raise ValueError(f'{path} needs the package gguf; pip install "mem1_jax[gguf]"') from error
  import transformers

  try:
    fields = gguf.GGUFReader(path).fields
  except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
    raise ValueError(f'{path} is cut short or no GGUF file ({error}); fetch it again') from error
  facts = {name.removeprefix('tokenizer.ggml.'): field for name, field in fields.items()}

  def fact(name, default=None):
    return facts[name].contents() if name in facts else default

  for name, allowed in (('model', ('gpt2',)), ('pre', _SPLITS)):
    if fact(name) not in allowed:
      raise ValueError(f'{path}: tokenizer.ggml.{name} = {fact(name)!r} is not one of {allowed}; '
                       'save its tokenizer.json with transformers and give that folder')
  tokens = fact('tokens')
  special = {f'{name}_token': tokens[fact(f'{key}_token_id')] for name, key in (
      ('bos', 'bos'), ('eos', 'eos'), ('pad', 'padding'), ('unk', 'unknown'))
      if f'{key}_token_id' in facts}
  return transformers.PreTrainedTokenizerFast(
      tokenizer_object=_backend(tokens, fact('merges'), fact('token_type'), fact('pre')),
      chat_template=fact('tokenizer.chat_template'), clean_up_tokenization_spaces=False, **special)


def _backend(tokens: list[str], merges: list[str], kinds: list[int], pre: str):
  from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
  from tokenizers import pre_tokenizers

  backend = Tokenizer(models.BPE(
      vocab={token: i for i, token in enumerate(tokens)},
      merges=[tuple(merge.split(' ')) for merge in merges]))
  if pre == 'qwen2':
    backend.normalizer = normalizers.NFC()
    first = pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior='isolated')
  else:
    first = pre_tokenizers.Digits(individual_digits=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([
      first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre != 'qwen2')])
  backend.decoder = decoders.ByteLevel()
  for kind, add in ((_CONTROL, backend.add_special_tokens), (_USER_DEFINED, backend.add_tokens)):
    add([AddedToken(token, normalized=False, special=kind == _CONTROL)
         for token, its_kind in zip(tokens, kinds) if its_kind == kind])
  return backend
