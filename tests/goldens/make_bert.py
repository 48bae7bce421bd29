"""Writes bert.npz: what transformers makes of the tiny random BERTs of tests/retrieval/dense.

    python -m tests.goldens.make_bert        (needs torch and transformers)
"""

import pathlib
import tempfile

import numpy as np

from tests.retrieval.dense import bert_small

FILE = pathlib.Path(__file__).with_name('bert.npz')
CLASSES = {'bert': 'Bert', 'roberta': 'Roberta'}


def load(folder, family, is_classifier=False, **overrides):
  """transformers' model of a folder that bert_small wrote, and the folder's files."""
  import transformers

  prefix = f'{family}.' if is_classifier else ''
  bert_small.write(folder, family, is_classifier=is_classifier, prefix=prefix, **overrides)
  kind = 'ForSequenceClassification' if is_classifier else 'Model'
  model_class = getattr(transformers, CLASSES[family] + kind)
  more = {'num_labels': 1} if is_classifier else {'add_pooling_layer': family == 'bert'}
  return model_class.from_pretrained(folder, attn_implementation='eager', **more).eval()


def outputs(model, family):
  """Hidden states [3, 19, D] of `bert_small.inputs`, or logits [3] of a classifier."""
  import torch

  tokens, types, lengths = bert_small.inputs(family)
  is_text = np.arange(tokens.shape[1])[None] < lengths[:, None]
  with torch.no_grad():
    found = model(input_ids=torch.tensor(tokens).long(), token_type_ids=torch.tensor(types).long(),
                  attention_mask=torch.tensor(is_text).long())
  return found.logits[:, 0].numpy() if 'logits' in found else found.last_hidden_state.numpy()


def main():
  found = {}
  for family in CLASSES:
    for is_classifier in (False, True):
      with tempfile.TemporaryDirectory() as folder:
        model = load(pathlib.Path(folder), family, is_classifier)
        found[f'{family}_scores' if is_classifier else family] = outputs(model, family)
  np.savez_compressed(FILE, **found)


if __name__ == '__main__':
  main()
