"""Folders of tiny random BERTs and RoBERTas, with a tokenizer that spells."""

import json
import string

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
VOCAB = (*SPECIAL, *string.ascii_lowercase, *(f'##{c}' for c in string.ascii_lowercase), *'!?:,')
# Nothing has its default, and no two sizes are equal.
SIZES = dict(vocab_size=len(VOCAB), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
             intermediate_size=40, max_position_embeddings=70, layer_norm_eps=1e-3,
             hidden_act='gelu')
TYPES = {'bert': 2, 'roberta': 1}


def raw_config(family='bert', **overrides):
  return SIZES | {'model_type': family, 'type_vocab_size': TYPES[family],
                  'pad_token_id': {'bert': 0, 'roberta': 1}[family]} | overrides


def tensors(raw, seed=0, is_classifier=False):
  """{name: array} without a prefix; a classifier's head as transformers' classes name it."""
  D, F, L = raw['hidden_size'], raw['intermediate_size'], raw['num_hidden_layers']
  shapes = {'embeddings.word_embeddings.weight': (raw['vocab_size'], D),
            'embeddings.position_embeddings.weight': (raw['max_position_embeddings'], D),
            'embeddings.token_type_embeddings.weight': (raw['type_vocab_size'], D)}

  def linear(name, inputs, outputs):
    shapes.update({f'{name}.weight': (outputs, inputs), f'{name}.bias': (outputs,)})

  def norm(name):
    shapes.update({f'{name}.weight': (D,), f'{name}.bias': (D,)})

  norm('embeddings.LayerNorm')
  for i in range(L):
    layer = f'encoder.layer.{i}.'
    for name in ('self.query', 'self.key', 'self.value', 'output.dense'):
      linear(f'{layer}attention.{name}', D, D)
    norm(f'{layer}attention.output.LayerNorm')
    linear(f'{layer}intermediate.dense', D, F)
    linear(f'{layer}output.dense', F, D)
    norm(f'{layer}output.LayerNorm')
  if raw['model_type'] == 'bert':
    linear('pooler.dense', D, D)
  if is_classifier and raw['model_type'] == 'bert':
    linear('classifier', D, 1)
  elif is_classifier:
    linear('classifier.dense', D, D)
    linear('classifier.out_proj', D, 1)
  # RandomState: its numbers are promised to stay what they are.
  random = np.random.RandomState(seed)
  return {name: ((1 if name.endswith('Norm.weight') else 0)
                 + 0.3 * random.standard_normal(shape)).astype(np.float32)
          for name, shape in shapes.items()}


def write(folder, family='bert', *, seed=0, is_classifier=False, prefix='', change=lambda x: x,
          pooling='mean', is_normalised=True, **overrides):
  """The folder, filled; `change` may alter {name: array} before it is written."""
  folder.mkdir(parents=True, exist_ok=True)
  raw = raw_config(family, **overrides)
  (folder / 'config.json').write_text(json.dumps(raw))
  named = {name if name.startswith('classifier') else prefix + name: array
           for name, array in tensors(raw, seed, is_classifier).items()}
  safetensors.numpy.save_file(change(named), folder / 'model.safetensors')
  tokenizer(family).save(str(folder / 'tokenizer.json'))
  if not is_classifier:
    write_modules(folder, pooling, is_normalised)
  return folder


def write_modules(folder, pooling, is_normalised, **more):
  kinds = ['Transformer', 'Pooling'] + ['Normalize'] * is_normalised
  (folder / 'modules.json').write_text(json.dumps(
      [{'idx': i, 'type': f'sentence_transformers.models.{kind}',
        'path': '' if kind == 'Transformer' else f'{i}_{kind}'} for i, kind in enumerate(kinds)]))
  (folder / '1_Pooling').mkdir(exist_ok=True)
  modes = {'mean': 'mean_tokens', 'cls': 'cls_token', 'max': 'max_tokens'}
  (folder / '1_Pooling' / 'config.json').write_text(json.dumps(
      {'word_embedding_dimension': 24} | more
      | {f'pooling_mode_{name}': mode == pooling for mode, name in modes.items()}))


def tokenizer(family='bert'):
  """Words as letters: `oslo` is o ##s ##l ##o."""
  found = tokenizers.Tokenizer(models.WordPiece(
      {token: i for i, token in enumerate(VOCAB)}, unk_token='[UNK]'))
  found.normalizer = normalizers.BertNormalizer()
  found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  second = 1 if family == 'bert' else 0
  found.post_processor = processors.TemplateProcessing(
      single='[CLS] $A [SEP]', pair=f'[CLS] $A [SEP] $B:{second} [SEP]:{second}',
      special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
  return found


def inputs(family='bert'):
  """(tokens [3, 19], types [3, 19], lengths [3]) with padding and, for BERT, pairs."""
  random = np.random.RandomState(7)
  tokens = random.randint(4, len(VOCAB), [3, 19]).astype(np.int32)
  types = (np.arange(19)[None] >= np.array([[8], [19], [3]])).astype(np.int32)
  lengths = np.array([19, 12, 5], np.int32)
  tokens[np.arange(19)[None] >= lengths[:, None]] = raw_config(family)['pad_token_id']
  return tokens, types * (TYPES[family] - 1), lengths
