"""One reader per data set's fields: a row's record → its question, documents, decomposition.

    flashrag   question, golden_answers (or answer, answers); id, hops, chain, found, relations
    nq_open    question, answer: [accepted answers]                                    (NQ-open)
    hotpotqa   question, answer; _id, supporting_facts, context          (hotpotqa.github.io)
    two_wiki   the same, and evidences                       (github.com/Alab-NII/2wikimultihop)
    musique    question, answer, answer_aliases, answerable, paragraphs, question_decomposition
               (github.com/StonyBrookNLP/musique)

Fields behind `;` may be missing, and a row without an id gets one made of its text. Every reader
takes a dict and raises ValueError with what is wrong in it. `verl.py` reads one more. Rows whose
columns have other names are given FlashRAG's by `renamed`:

    question=query,golden_answers=answer.value      {"query": …, "answer": {"value": …}}
"""

from collections.abc import Iterator, Mapping, Sequence
import hashlib
from typing import Any

from mem1_jax.data.chains import Chain
from mem1_jax.data.rows import Parsed, shown
from mem1_jax.types import Passage, Question

_NEEDED = ('question', 'golden_answers')
FIELDS = ('id', *_NEEDED, 'hops', 'chain', 'found', 'relations')  # that `renamed` can give


def flashrag(row: dict) -> Parsed:
  """FlashRAG's fields (https://arxiv.org/abs/2405.13576), or near ones, and those of `Question`."""
  text = text_of(row, 'question')
  accepted = answers_of(row, 'golden_answers', 'answers', 'answer')
  lists = {name: _names(row[name], name) for name in ('chain', 'found', 'relations')
           if row.get(name) is not None}
  return Parsed((Question(id_of(row, text), text, accepted, hops_of(row.get('hops', 1)), **lists),))


def nq_open(row: dict) -> Parsed:
  text = text_of(row, 'question')
  if not isinstance(row.get('answer'), list):
    raise ValueError(f'answer is {shown(row.get("answer"))}, not a list of texts')
  return Parsed((Question(id_of(row, text), text, answers_of(row, 'answer')),))


def hotpotqa(row: dict) -> Parsed:
  """Hops are the documents of its supporting facts; two where those are not given."""
  text, accepted = text_of(row, 'question'), answers_of(row, 'answer')
  hops = len(set(_titles(row.get('supporting_facts')))) or 2
  return Parsed((Question(id_of(row, text), text, accepted, hops),), _context(row.get('context')))


def two_wiki(row: dict) -> Parsed:
  """Hops are its evidences, (subject, relation, object) each; else as HotpotQA's."""
  text = text_of(row, 'question')
  aliases = _texts(row.get('answer_aliases') or [], 'answer_aliases')
  evidences = row.get('evidences') or []
  if not isinstance(evidences, list):
    raise ValueError(f'evidences is {shown(evidences)}, not a list')
  hops = len(evidences) or len(set(_titles(row.get('supporting_facts')))) or 2
  question = Question(id_of(row, text), text, _different(answers_of(row, 'answer') + aliases), hops)
  return Parsed((question,), _context(row.get('context')))


def musique(row: dict) -> Parsed:
  """Its decomposition is a chain; a row that cannot be answered from its paragraphs is left out."""
  text = text_of(row, 'question')
  answerable = row.get('answerable', True)
  if not isinstance(answerable, bool):
    raise ValueError(f'answerable is {shown(answerable)}, not true or false')
  if not answerable:
    return Parsed()
  aliases = _texts(row.get('answer_aliases') or [], 'answer_aliases')
  accepted = _different(answers_of(row, 'answer') + aliases)
  id_ = id_of(row, text)
  steps = _steps(row.get('question_decomposition'), id_, accepted)
  paragraphs = row.get('paragraphs') or []
  if not isinstance(paragraphs, list) or not all(isinstance(p, dict) for p in paragraphs):
    raise ValueError(f'paragraphs is {shown(paragraphs)}, not a list of objects')
  passages = tuple(Passage(text_of(p, 'title'), text_of(p, 'paragraph_text')) for p in paragraphs)
  question = Question(id_, text, accepted, max(1, len(steps)))
  return Parsed((question,), passages, Chain(id_, steps) if len(steps) > 1 else None)


def _steps(decomposition: Any, id_: str, accepted: tuple[str, ...]) -> tuple[Question, ...]:
  """The single questions that it is made of; the last one's answers are the question's own."""
  decomposition = decomposition or []
  if not isinstance(decomposition, list) or not all(isinstance(s, dict) for s in decomposition):
    raise ValueError(f'question_decomposition is {shown(decomposition)}, not a list of objects')
  steps = [Question(f'{id_}/{k}', text_of(step, 'question'), answers_of(step, 'answer'))
           for k, step in enumerate(decomposition, 1)]
  if steps:
    last = steps[-1]
    steps[-1] = Question(last.id, last.text, _different(last.answers + accepted))
  return tuple(steps)


def guess(row: dict) -> str:
  """The format of a record, by its fields.

  Raises:
    ValueError: they are none's, or several's.
  """
  if 'reward_model' in row:
    return 'verl'
  if 'question_decomposition' in row:
    return 'musique'
  if 'evidences' in row:
    return 'two_wiki'
  if 'supporting_facts' in row or row.get('type') in ('bridge', 'comparison'):
    return 'hotpotqa'
  if 'golden_answers' in row:
    return 'flashrag'
  if isinstance(row.get('answer'), list) and row.keys() == {'question', 'answer'}:
    return 'nq_open'
  raise ValueError(f'fields {sorted(row)} are of no format that can be told')


def fields_of(text: str) -> dict[str, str]:
  """{field: column} of `FIELD=COLUMN,…`, as the knob data.fields has it; {} of ''.

  Raises:
    ValueError: another form, a field that is none of `FIELDS`, or one that comes twice.
  """
  found: dict[str, str] = {}
  for pair in text.split(',') if text.strip() else ():
    name, _, column = map(str.strip, pair.partition('='))
    if not (name and column):
      raise ValueError(f'data.fields {text!r}: {pair!r} is not FIELD=COLUMN; write it like '
                       'question=query,golden_answers=answer.value')
    if name not in FIELDS:
      raise ValueError(f'data.fields {text!r}: field {name!r} is unknown; choose from '
                       f'{", ".join(FIELDS)} (the column comes behind =)')
    if name in found:
      raise ValueError(f'data.fields {text!r}: field {name!r} comes twice; drop one')
    found[name] = column
  return found


def renamed(row: dict, fields: Mapping[str, str]) -> dict:
  """The row with what its columns hold in the fields; a field whose column is empty is not there.

  Raises:
    ValueError: there is no question, or no answer.
  """
  found = {name: value_at(row, column) for name, column in fields.items()}
  for name in _NEEDED:
    if name in found and found[name] is None:
      raise ValueError(f'column {fields[name]} ({name}) is missing')
  return {name: value for name, value in (row | found).items()
          if value is not None or name not in found}


def value_at(record: Any, column: str) -> Any:
  """What stands in a column; None if nothing does.

  `a.b` goes into objects, and into each of a list of them: their values, one after another.
  """
  if isinstance(record, list):
    found = [value_at(item, column) for item in record]
    return [one for value in found if value is not None
            for one in (value if isinstance(value, list) else [value])] or None
  if not isinstance(record, dict):
    return None
  if column in record:
    return record[column]
  head, dot, rest = column.partition('.')
  return value_at(record.get(head), rest) if dot else None


def columns_of(record: dict) -> Iterator[str]:
  """The columns of a record as `value_at` takes them, down to what is no object."""
  for name, value in record.items():
    inner = value[0] if isinstance(value, list) and value else value
    if isinstance(inner, dict) and inner:
      yield from (f'{name}.{column}' for column in columns_of(inner))
    else:
      yield name


def text_id(text: str) -> str:
  """An id for a question that has none: the same wherever, and in whatever row, its text stands."""
  normalized = ' '.join(text.casefold().split())
  return hashlib.blake2b(normalized.encode(), digest_size=8).hexdigest()


def id_of(row: dict, text: str) -> str:
  """`id` or `_id`, as text, or else `text_id`."""
  found = row.get('id') if row.get('id') is not None else row.get('_id')
  if found is None:
    return text_id(text)
  if not isinstance(found, str | int) or isinstance(found, bool) or found == '':
    raise ValueError(f'id is {shown(found)}, not a text or an integer')
  return _encodable(str(found), 'id')


def text_of(row: dict, name: str) -> str:
  """A field that must be text with something in it."""
  found = row.get(name)
  if not isinstance(found, str):
    raise ValueError(f'{name} is {shown(found)}, not text' if name in row else f'{name} is missing')
  if not found.strip():
    raise ValueError(f'{name} is empty')
  return _encodable(found, name)


def answers_of(row: dict, *names: str) -> tuple[str, ...]:
  """Accepted answers, in order and different: the first of the fields that is there.

  One text, a list, or an object with `value` and `aliases` (TriviaQA) or `text` (SQuAD).
  Empty ones are dropped; one at least must be left.
  """
  name = next((name for name in names if row.get(name) is not None), None)
  if name is None:
    raise ValueError(f'{names[0]} is missing')
  found = row[name]
  if isinstance(found, dict):
    first = [found['value']] if 'value' in found else []
    rest = found.get('aliases') or found.get('text') or []
    found = first + (rest if isinstance(rest, list) else [rest])
  accepted = _different(_texts([found] if isinstance(found, str) else found, name))
  if not accepted:
    raise ValueError(f'{name} has no answer')
  return accepted


def hops_of(value: Any) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise ValueError(f'hops is {shown(value)}, not a number ≥ 1')
  return value


def _texts(values: Any, name: str) -> tuple[str, ...]:
  """A list of texts, without the empty ones."""
  if not isinstance(values, list):
    raise ValueError(f'{name} is {shown(values)}, not text or a list of texts')
  for value in values:
    if not isinstance(value, str):
      raise ValueError(f'{name} has {shown(value)}, which is not text')
  return tuple(_encodable(value, name) for value in values if value.strip())


def _names(values: Any, name: str) -> tuple[str, ...]:
  found = _texts(values, name)
  if len(found) < len(values):
    raise ValueError(f'{name} has an empty text')
  return found


def _different(values: Sequence[str]) -> tuple[str, ...]:
  return tuple(dict.fromkeys(values))


def _encodable(text: str, name: str) -> str:
  """The text, if it is one: half a surrogate pair cannot be tokenized."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(f'{name} is not valid Unicode at character {error.start}') from None
  return text


def _titles(supporting_facts: Any) -> list[str]:
  """[[title, sentence], …], or {'title': […], …} as in the Parquet files of the Hub."""
  found = supporting_facts or []
  if isinstance(found, dict):
    titles = found.get('title') or []
    found = [[title] for title in titles] if isinstance(titles, list) else titles
  if not isinstance(found, list) or not all(
      isinstance(fact, list) and fact and isinstance(fact[0], str) for fact in found):
    raise ValueError(f'supporting_facts is {shown(supporting_facts)}, not [[title, sentence], …]')
  return [fact[0] for fact in found]


def _context(context: Any) -> tuple[Passage, ...]:
  """[[title, [sentence, …]], …], or {'title': […], 'sentences': [[…], …]}, as passages."""
  found = context or []
  if isinstance(found, dict):
    columns = [found.get('title') or [], found.get('sentences') or []]
    are_lists = all(isinstance(column, list) for column in columns)
    found = are_lists and len(columns[0]) == len(columns[1]) and [*map(list, zip(*columns))]
  if not isinstance(found, list) or not all(map(_is_paragraph, found)):
    raise ValueError(f'context is {shown(context)}, not [[title, [sentence, …]], …]')
  return tuple(
      Passage(_encodable(title, 'context'), _encodable(' '.join(map(str.strip, texts)), 'context'))
      for title, texts in found)


def _is_paragraph(value: Any) -> bool:
  return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
          and isinstance(value[1], list) and all(isinstance(text, str) for text in value[1]))
