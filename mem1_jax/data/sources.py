"""Where single questions and their documents come from: the embedded atlas.

    questions = load_atlas('train')      # list[Question]
    passages = atlas_documents()         # list[Passage], what the retriever indexes
"""

import functools
import importlib.resources
import json

from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import questions as atlas_questions
from mem1_jax.types import Passage, Question

SPLITS = ('train', 'validation', 'test')


@functools.cache
def _entities() -> tuple[dict, ...]:
  """The lines of facts.jsonl."""
  file = importlib.resources.files('mem1_jax.data.atlas') / 'facts.jsonl'
  try:
    text = file.read_text('ascii')
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{file} is missing: install the package with its data files, or '
                            'build it with `python -m mem1_jax.data.atlas.build`') from error
  return tuple(json.loads(line) for line in text.splitlines())


def atlas_entities(split: str) -> tuple[dict, ...]:
  """What the atlas knows of a split: `kind`, `name`, `split`, `aliases` and `facts` each.

  Raises:
    ValueError: for an unknown split.
    FileNotFoundError: if the data files were not installed.
  """
  _check_split(split)
  return tuple(entity for entity in _entities() if entity['split'] == split)


def _check_split(split: str) -> None:
  if split not in SPLITS:
    raise ValueError(f'split is {split!r}, must be one of {", ".join(SPLITS)}')


@functools.cache
def _questions(split: str) -> tuple[Question, ...]:
  return tuple(atlas_questions.make_questions(list(_entities()), split))


def load_atlas(split: str) -> list[Question]:
  """The single questions of a split ('train', 'validation' or 'test'), in a fixed mixed order.

  Raises:
    ValueError: for another split.
    FileNotFoundError: if the data files were not installed.
  """
  _check_split(split)
  return list(_questions(split))


def atlas_documents(split: str | None = None) -> list[Passage]:
  """All documents of the atlas, or those of one split; titles are unique.

  Raises:
    ValueError: for an unknown split.
    FileNotFoundError: if the data files were not installed.
  """
  if split is not None:
    _check_split(split)
  return [documents.render(entity) for entity in _entities() if split in (None, entity['split'])]


def is_held_out_wording(question: Question) -> bool:
  """Whether a test question is worded with a template that training questions never use."""
  return question.id.startswith('atlas/test/heldout/')


def tokenizer_path() -> str:
  """The atlas SentencePiece model, as a file path.

  Raises:
    FileNotFoundError: if the data files were not installed.
  """
  file = importlib.resources.files('mem1_jax.data.atlas') / 'tokenizer.model'
  if not file.is_file():
    raise FileNotFoundError(f'{file} is missing: install the package with its data files, or '
                            'make it with `python -m mem1_jax.data.atlas.train_tokenizer`')
  return str(file)
