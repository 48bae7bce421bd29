"""Trains the atlas tokenizer, a SentencePiece BPE model, on the text of the training split.

    python -m mem1_jax.data.atlas.train_tokenizer            writes tokenizer.model beside this file
    python -m mem1_jax.data.atlas.train_tokenizer --check    trains again and compares every byte
    python -m mem1_jax.data.atlas.train_tokenizer --sizes    mean tokens per text for some sizes

Ids 0, 1, 2 are padding, end of sequence and unknown; then comes one id for each tag
and each label, then 256 for bytes, in which characters that the text lacks are
spelled. Text is taken as it is (identity normalisation, no dummy prefix), so decoding
gives back every byte. A word that follows a space holds that space: write a name
after a space wherever it stands, and its tokens are the same everywhere.
"""

import argparse
import io
import pathlib
import sys

import sentencepiece

from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS

MODEL = pathlib.Path(__file__).with_name('tokenizer.model')
VOCAB_SIZE = 1024
TAGS = ('<think>', '</think>', '<search>', '</search>', '<information>', '</information>',
        '<answer>', '</answer>')
# What environments and agents say around the facts, often enough to become words.
ENVIRONMENT = (
    'Turns left: 12.', 'Last turn: answer now.', ' No results.', ' Invalid action: ',
    ' is unknown.', ' unknown', '; ', ': ', ' = ', ' @ ', ' ?', ' (1) ',
)
ENVIRONMENT_REPEATS = 200


def corpus() -> list[str]:
  """The texts to train on, each after a space, as it follows a label or a tag."""
  texts = [f' {question.text}' for question in sources.load_atlas('train')]
  for passage in sources.atlas_documents('train'):
    texts.append(f' {passage.title}: {passage.text}')
  return texts + list(ENVIRONMENT) * ENVIRONMENT_REPEATS


def train(texts: list[str], vocab_size: int) -> bytes:
  """The serialized model; a pure function of its arguments (and SentencePiece's version)."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts), model_writer=model, model_type='bpe', vocab_size=vocab_size,
      pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=[*TAGS, *LABELS],
      byte_fallback=True, split_digits=True, normalization_rule_name='identity',
      add_dummy_prefix=False, remove_extra_whitespaces=False, character_coverage=1.0,
      num_threads=1, minloglevel=2)
  return model.getvalue()


def print_sizes(sizes=(768, 1024, 1280, 1536, 2048)) -> None:
  """Mean tokens per document (with its title), question and title, on both splits."""
  texts = corpus()
  print('vocabulary  split  document  question  title')
  for size in sizes:
    processor = sentencepiece.SentencePieceProcessor(model_proto=train(texts, size))
    for split in ('train', 'test'):
      passages = sources.atlas_documents(split)
      groups = ([f'{p.title}: {p.text}' for p in passages],
                [q.text for q in sources.load_atlas(split)], [p.title for p in passages])
      means = [sum(map(len, processor.encode([f' {t}' for t in group]))) / len(group)
               for group in groups]
      print(f'{size:10d}  {split:5s}  {means[0]:8.1f}  {means[1]:8.1f}  {means[2]:5.2f}')


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--check', action='store_true', help='compare with the committed file only')
  parser.add_argument('--sizes', action='store_true', help='print mean tokens for some sizes')
  arguments = parser.parse_args()
  if arguments.sizes:
    print_sizes()
    return 0
  content = train(corpus(), VOCAB_SIZE)
  if not arguments.check:
    MODEL.write_bytes(content)
    print(f'{MODEL}: {VOCAB_SIZE} pieces, {len(content)} bytes')
    return 0
  if content != MODEL.read_bytes():
    print(f'{MODEL} differs from what the trainer makes: run it without --check', file=sys.stderr)
    return 1
  print(f'{MODEL}: same bytes')
  return 0


if __name__ == '__main__':
  sys.exit(main())
