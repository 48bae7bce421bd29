"""Where single questions and their documents come from: the embedded worlds, files, tfds.

    questions = load_atlas('train')                  # list[Question]
    passages = atlas_documents()                     # list[Passage], what the retriever indexes
    products, instructions = shop_files()            # for env/shop.py
    loaded = load('hotpotqa:/data/dev.json')         # rows.Loaded: questions, passages, report
    loaded = choose(loaded, 'train', Shares(), Choice(hops=(2, 4)))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import importlib.resources
import itertools
import json
import math

from mem1_jax.data import formats, rows, tfds, verl
from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import questions as atlas_questions
from mem1_jax.data.mixture import counts
from mem1_jax.types import Passage, Question

SPLITS = ('train', 'validation', 'test')
_SHOWN_COLUMNS = 40  # of a file that lacks one
# FORMAT of `FORMAT:PATH` → the reader of its rows. JSON and Parquet are told by the file itself.
FORMATS = {
    'jsonl': formats.flashrag, 'parquet': formats.flashrag, 'flashrag': formats.flashrag,
    'nq_open': formats.nq_open, 'hotpotqa': formats.hotpotqa, '2wiki': formats.two_wiki,
    'two_wiki': formats.two_wiki, 'musique': formats.musique, 'verl': verl.questions_of,
}


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


def shop_files() -> tuple[str, str]:
  """The embedded web shop's (products, instructions), as file paths in WebShop's schema.

  Raises:
    FileNotFoundError: if the data files were not installed.
  """
  folder = importlib.resources.files('mem1_jax.data.shop')
  files = (folder / 'products.jsonl', folder / 'instructions.json')
  for file in files:
    if not file.is_file():
      raise FileNotFoundError(f'{file} is missing: install the package with its data files, or '
                              'build it with `python -m mem1_jax.data.shop.build`')
  return tuple(map(str, files))


def load(spec: str, data_dir: str | None = None, fields: str = '') -> rows.Loaded:
  """All questions of a source; `choose` takes a split and filters.

  Args:
    spec: `atlas`; `FORMAT:PATH` with one of `FORMATS`; `tfds:NAME:SPLIT` or
      `tfds:NAME/CONFIG:SPLIT`; or a path alone, if its first row can only be of one format.
    data_dir: of tfds.
    fields: columns of other names than FlashRAG's, `question=query,id=qid` (`formats.fields_of`),
      of a source with such fields; a path alone is then taken for one.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: the source needs a package that is not installed.
    ValueError: no good row, a format that is unknown or cannot be told, or fields that it does
      not take or no row has.
  """
  columns = formats.fields_of(fields)
  if columns and not _takes_fields(spec):
    raise ValueError(f'data.fields {fields!r}: source {spec!r} has fields of its own; leave it '
                     'empty there, or read rows as jsonl:PATH, parquet:PATH or tfds:NAME:SPLIT')
  if spec == 'atlas':
    questions = tuple(q for split in SPLITS for q in load_atlas(split))
    return rows.Loaded(questions, tuple(atlas_documents()), (),
                       rows.Report('atlas', len(questions), 0))
  name, colon, path = spec.partition(':')
  if name == 'tfds':
    found, path, parse = tfds.rows(path, data_dir), spec, formats.flashrag
  elif colon and name in FORMATS:
    found, parse = rows.read_rows(path), FORMATS[name]
  elif colon and name.isidentifier() and len(name) > 1:  # one letter is a drive
    raise ValueError(f'source {spec!r}: format {name!r} is unknown; choose atlas, tfds or one of '
                     f'{sorted(FORMATS)}')
  else:
    found, path = rows.read_rows(spec), spec
    parse = formats.flashrag if columns else _guessed(spec)
  if not columns:
    return rows.gather(path, found, parse)
  return rows.gather(path, _with_columns(path, found, columns),
                     lambda row: parse(formats.renamed(row, columns)))


def _takes_fields(spec: str) -> bool:
  """Whether columns of a source may have other names: those of FlashRAG's formats may."""
  name, colon, _ = spec.partition(':')
  return spec != 'atlas' and (not colon or FORMATS.get(name, formats.flashrag) is formats.flashrag)


def _with_columns(path: str, found: Iterator[rows.Row], fields: Mapping[str, str]
                  ) -> Iterator[rows.Row]:
  """The same rows. Raises ValueError for a column without a value in any of them."""
  head, missing = [], set(fields.values())
  for row in found:
    head.append(row)
    missing = {column for column in missing if formats.value_at(row[1], column) is None}
    if not missing:
      break
  records = [record for _, record in head if isinstance(record, dict)]
  if missing and records:
    there = sorted({column for record in records for column in formats.columns_of(record)})
    more = f' and {len(there) - _SHOWN_COLUMNS} more' if len(there) > _SHOWN_COLUMNS else ''
    shown = ', '.join(there[:_SHOWN_COLUMNS])
    raise ValueError(f'{path}: no row has anything in {", ".join(sorted(missing))}, which '
                     f'data.fields names; its columns are {shown}{more}')
  return itertools.chain(head, found)


def _guessed(path: str) -> Callable[[dict], rows.Parsed]:
  """The reader of a file, by the fields of its first row that is an object."""
  record = next((record for _, record in rows.read_rows(path) if isinstance(record, dict)), None)
  try:
    name = formats.guess(record or {})
  except ValueError as error:
    raise ValueError(f'source {path!r}: {error}; write FORMAT:{path} with one of '
                     f'{sorted(FORMATS)}') from error
  return FORMATS[name]


@dataclasses.dataclass(frozen=True)
class Shares:
  """Shares of all questions in each split, of any sum.

  Raises:
    ValueError: one is negative, or all are 0.
  """

  train: float = 0.9
  validation: float = 0.05
  test: float = 0.05

  def __post_init__(self):
    shares = dataclasses.astuple(self)
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
      raise ValueError(f'shares {shares} must be ≥ 0, and one of them above 0')


def split_of(question: Question, shares: Shares) -> str:
  """The split of a question, by a hash of its text, whatever its case and spaces.

  It is the same on every machine, and stays so when rows are added: a text cannot be in two
  splits, not even of different files.
  """
  normalized = ' '.join(question.text.casefold().split())
  digest = hashlib.blake2b(normalized.encode(), digest_size=8, person=b'mem1 split').digest()
  point = int.from_bytes(digest, 'big') / 2**64 * math.fsum(dataclasses.astuple(shares))
  for split, share in zip(SPLITS, dataclasses.astuple(shares)):
    if point < share:
      return split
    point -= share
  return max(SPLITS, key=lambda split: getattr(shares, split))  # a rounding error away from 1


@dataclasses.dataclass(frozen=True)
class Choice:
  """Which questions to take: inclusive ranges; None takes all.

  Attributes:
    hops: look-ups.
    question_chars: characters of the text.
    answer_chars: characters of the longest accepted answer.

  Raises:
    ValueError: a range has its end before its start.
  """

  hops: tuple[int, int] | None = None
  question_chars: tuple[int, int] | None = None
  answer_chars: tuple[int, int] | None = None

  def __post_init__(self):
    for name, bounds in dataclasses.asdict(self).items():
      if bounds and bounds[0] > bounds[1]:
        raise ValueError(f'{name}={bounds} is no range; give (fewest, most)')

  def takes(self, question: Question) -> bool:
    measured = (question.hops, len(question.text), max(map(len, question.answers)))
    return all(bounds is None or bounds[0] <= value <= bounds[1]
               for value, bounds in zip(measured, dataclasses.astuple(self)))


def choose(loaded: rows.Loaded, split: str, shares: Shares, choice: Choice) -> rows.Loaded:
  """The questions of one split ('' for all) that the choice takes, and their chains.

  All passages stay: search has to find among those of other questions. The atlas has splits
  of its own, by its documents (`load_atlas`).

  Raises:
    ValueError: an unknown split, or no question is left.
  """
  if split:
    _check_split(split)
  inside = [q for q in loaded.questions if not split or split_of(q, shares) == split]
  questions = tuple(q for q in inside if choice.takes(q))
  if not questions:
    raise ValueError(f'{loaded.report.path}: of {len(loaded.questions)} questions {len(inside)} '
                     f'are in split {split or "(all)"!r}, and {choice} takes none; widen it')
  ids = {question.id for question in questions}
  report = dataclasses.replace(loaded.report, num_unsuitable=len(inside) - len(questions))
  return rows.Loaded(questions, loaded.passages,
                     tuple(chain for chain in loaded.chains if chain.id in ids), report)


def blend(sources: Mapping[str, Sequence[Question]], weights: Sequence[float]) -> list[Question]:
  """As many questions as the weights allow, for tasks that ask questions of several sources.

  Each source gives its weight's share, to the hundredth; which of its questions these are is
  told by a hash of their ids. Ids become `NAME/ID`. (`mixture.Mixture` mixes whole tasks.)

  Raises:
    ValueError: not as many weights as sources, one that is not positive or rounds to nothing,
      or too few questions for one block of them.
  """
  if len(sources) != len(weights):
    raise ValueError(f'{len(sources)} sources and {len(weights)} weights; give one to each')
  shares = counts(weights)
  num_blocks = min(len(questions) // share for questions, share in zip(sources.values(), shares))
  if not num_blocks:
    raise ValueError(f'weights {tuple(weights)} need {shares} questions of {list(sources)}, there '
                     f'are {[len(questions) for questions in sources.values()]}; give more')
  return [dataclasses.replace(question, id=f'{name}/{question.id}')
          for (name, questions), share in zip(sources.items(), shares)
          for question in sorted(questions, key=_draw)[:num_blocks * share]]


def _draw(question: Question) -> bytes:
  return hashlib.blake2b(question.id.encode(), digest_size=8, person=b'mem1 blend').digest()
