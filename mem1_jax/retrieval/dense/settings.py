"""What the JSON files beside an encoder's weights say.

    config.json                       sizes of the model (transformers)
    modules.json, 1_Pooling/          what becomes of the hidden states (sentence-transformers)
    sentence_bert_config.json         the longest text
    config_sentence_transformers.json prompts, the prefixes of queries and passages

A folder without modules.json is E5's kind: the mean, normalised. What changes numbers and is not
computed here is refused.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

CONFIG = 'config.json'
E5_PREFIXES = ('query: ', 'passage: ')  # https://arxiv.org/abs/2212.03533
# The first position of a row: RoBERTa's come after the padding's id.
_FAMILIES = {'bert': False, 'roberta': True, 'xlm-roberta': True}
_ACTIVATIONS = ('gelu', 'gelu_new', 'gelu_pytorch_tanh', 'relu')
_POOLED = {'pooling_mode_mean_tokens': 'mean', 'pooling_mode_cls_token': 'cls',
           'pooling_mode_mean': 'mean', 'pooling_mode_cls': 'cls'}  # older and newer files
_NO_LIMIT = 10**9  # tokenizers without a limit say 1e30


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Sizes of a BERT or RoBERTa.

  Attributes:
    num_positions: rows of the table of positions.
    first_position: of a row's first token.
    num_types: rows of the table of token types.
    activation: one of transformers' names.
  """

  vocab_size: int
  dim: int  # D
  ffn_dim: int  # F
  num_layers: int  # L
  num_heads: int  # N
  num_positions: int
  first_position: int
  num_types: int
  activation: str
  norm_eps: float

  @property
  def max_length(self) -> int:
    """The most tokens of a row."""
    return self.num_positions - self.first_position


@dataclasses.dataclass(frozen=True)
class Pooling:
  """How hidden states become one vector: the mean of a text's tokens, or its first ('cls')."""

  kind: str
  is_normalised: bool


def read_json(file: pathlib.Path) -> Any:
  """What a file holds.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is not JSON.
  """
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing; give the folder of a sentence-transformers, E5 '
                            'or BERT checkpoint in safetensors format')
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{file} is not JSON ({error}); fetch the checkpoint again') from error


def bert_config(folder: pathlib.Path) -> BertConfig:
  """The sizes in config.json.

  Raises:
    ValueError: a missing key, or an architecture that is not computed here.
  """
  file = folder / CONFIG
  raw = read_json(file)

  def need(key):
    if raw.get(key) is None:
      raise ValueError(f'{file} lacks {key!r}; fetch the checkpoint again')
    return raw[key]

  def refuse(key, remedy):
    raise ValueError(f'{file}: {key} {raw.get(key)!r} is not supported; {remedy}')

  if need('model_type') not in _FAMILIES:
    refuse('model_type', f'use an encoder of one of {sorted(_FAMILIES)}')
  if raw.get('position_embedding_type', 'absolute') != 'absolute':
    refuse('position_embedding_type', "use an encoder with 'absolute' positions")
  if need('hidden_act') not in _ACTIVATIONS:
    refuse('hidden_act', f'use an encoder with one of {_ACTIVATIONS}')
  for key in ('is_decoder', 'add_cross_attention'):
    if raw.get(key):
      refuse(key, 'use an encoder, in which every token sees every other')
  if need('hidden_size') % need('num_attention_heads'):
    refuse('num_attention_heads', f'it must divide hidden_size {raw["hidden_size"]}')
  return BertConfig(
      need('vocab_size'), raw['hidden_size'], need('intermediate_size'),
      need('num_hidden_layers'), raw['num_attention_heads'], need('max_position_embeddings'),
      need('pad_token_id') + 1 if _FAMILIES[raw['model_type']] else 0, need('type_vocab_size'),
      raw['hidden_act'], need('layer_norm_eps'))


def pooling(folder: pathlib.Path) -> Pooling:
  """What modules.json and the folder of its pooling say.

  Raises:
    ValueError: another module, or another pooling than one of mean and cls.
  """
  file = folder / 'modules.json'
  if not file.is_file():
    return Pooling('mean', True)
  modules = {module['type'].rpartition('.')[2]: module['path'] for module in read_json(file)}
  if unknown := set(modules) - {'Transformer', 'Pooling', 'Normalize'}:
    raise ValueError(f'{file}: modules {sorted(unknown)} are not supported; use an encoder of '
                     'Transformer, Pooling and, maybe, Normalize')
  if 'Pooling' not in modules:
    raise ValueError(f'{file} has no Pooling; use an encoder that makes one vector of a text')
  file = folder / modules['Pooling'] / CONFIG
  raw = read_json(file)
  modes = [key for key, value in raw.items() if key.startswith('pooling_mode_') and value is True]
  modes += [f'pooling_mode_{raw["pooling_mode"]}'] if 'pooling_mode' in raw else []
  if len(modes) != 1 or modes[0] not in _POOLED or not raw.get('include_prompt', True):
    raise ValueError(f'{file}: pooling by {modes} with include_prompt '
                     f'{raw.get("include_prompt", True)} is not supported; use an encoder with '
                     f'one of {sorted(_POOLED)} over all tokens')
  return Pooling(_POOLED[modes[0]], 'Normalize' in modules)


def max_length(folder: pathlib.Path, config: BertConfig, asked: int | None) -> int:
  """The most tokens of a text: as asked, else what the folder says, else all positions.

  Raises:
    ValueError: more was asked than the model has positions, or less than 3.
  """
  if asked is not None:
    if not 3 <= asked <= config.max_length:
      raise ValueError(f'max_length={asked} is outside 3 to {config.max_length}, the positions of '
                       f'{folder}; choose one within')
    return asked
  limits = [config.max_length]
  for name, key in (('sentence_bert_config.json', 'max_seq_length'),
                    ('tokenizer_config.json', 'model_max_length')):
    value = read_json(folder / name).get(key) if (folder / name).is_file() else None
    if value is not None and value < _NO_LIMIT:
      limits.append(int(value))
  return min(limits)


def prefixes(folder: pathlib.Path) -> tuple[str, str]:
  """What stands before a query and before a passage.

  The prompts of config_sentence_transformers.json; without any, E5's for a checkpoint whose
  folder or `_name_or_path` has the word e5, and nothing for another.
  """
  file = folder / 'config_sentence_transformers.json'
  prompts = (read_json(file).get('prompts') or {}) if file.is_file() else {}
  if any(prompts.values()):
    return prompts.get('query') or '', prompts.get('passage') or prompts.get('document') or ''
  # The hub's cache: models--intfloat--e5-base-v2/snapshots/1c64…
  named = '/'.join((*folder.parts[-3:], read_json(folder / CONFIG).get('_name_or_path', '')))
  return E5_PREFIXES if re.search(r'(?<![a-z0-9])e5(?![a-z0-9])', named.lower()) else ('', '')
