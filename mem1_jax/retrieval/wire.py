r"""Search-R1's protocol as text (https://github.com/PeterGriffinJin/Search-R1), read and written.

    POST /retrieve  {"queries": ["…", …], "topk": 3, "return_scores": true}
    200             {"result": [[{"document": {"id": "7", "contents": "\"Title\"\nText"},
                                  "score": 1.5}, …], …]}

`topk` may be left out, null or 0, for the server's own; without `return_scores` each item is the
document itself. Fields that are not known are passed over. A document may have `title` and `text`
as well as `contents`, or instead. Whatever is wrong is a ValueError that says where.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
from typing import Any

from mem1_jax import types


@dataclasses.dataclass(frozen=True)
class Request:
  """What a client asks. `top_k` is None where it leaves that to the server."""

  queries: tuple[str, ...]
  top_k: int | None
  has_scores: bool


def write_request(queries: Sequence[str], top_k: int) -> bytes:
  """The body of a request with scores, to the byte as `requests.post(url, json=…)` writes it."""
  return json.dumps({'queries': list(queries), 'topk': top_k, 'return_scores': True}).encode()


def read_request(body: bytes) -> Request:
  """What a body asks.

  Raises:
    ValueError: it is not of the protocol.
  """
  message = read_object(body, 'a body like {"queries": ["…"], "topk": 3}')
  queries, top_k = message.get('queries'), message.get('topk')
  has_scores = message.get('return_scores', False)
  if not isinstance(queries, list):
    raise ValueError(f'queries is {_short(queries)}; send a list of strings')
  for i, query in enumerate(queries):
    if not isinstance(query, str):
      raise ValueError(f'queries[{i}] is {_short(query)}; send a string')
  if not _is_int(top_k) and top_k is not None:
    raise ValueError(f'topk is {_short(top_k)}; send a whole number ≥ 1, or leave it out')
  if top_k and top_k < 1:
    raise ValueError(f'topk is {top_k}; send a whole number ≥ 1, or leave it out')
  if not isinstance(has_scores, bool):
    raise ValueError(f'return_scores is {_short(has_scores)}; send true or false')
  return Request(tuple(queries), top_k or None, has_scores)


def write_result(passages: Sequence[types.Passage], has_scores: bool) -> bytes:
  """The list of one query.

  Raises:
    ValueError: a score is not finite.
  """
  items: list[dict[str, Any]] = [_document(passage) for passage in passages]
  if has_scores:
    items = [{'document': item, 'score': passage.score} for item, passage in zip(items, passages)]
  return json.dumps(items, allow_nan=False).encode()


def write_reply(results: Sequence[bytes]) -> bytes:
  """The body of a reply, of what `write_result` wrote of each query."""
  return b'{"result": [' + b', '.join(results) + b']}'


def read_reply(body: bytes) -> list[list[types.Passage]]:
  """The passages of each query.

  Raises:
    ValueError: it is not of the protocol.
  """
  results = read_object(body, 'a reply like {"result": […]}').get('result')
  if not isinstance(results, list):
    raise ValueError(f'result is {_short(results)}, not a list')
  return [_read_result(result, f'result[{i}]') for i, result in enumerate(results)]


def read_document(document: Any) -> types.Passage:
  """The passage of `{"id": …, "contents": "\\"Title\\"\\nText"}`, or of `title` and `text`.

  Raises:
    ValueError: it has neither.
  """
  if not isinstance(document, dict):
    raise ValueError(f'{_short(document)} is no document')
  number = document.get('id')
  id_ = str(number) if isinstance(number, str) or _is_int(number) else ''
  title, text = document.get('title', ''), document.get('text')
  if not isinstance(title, str) or not isinstance(text, str):
    contents = document.get('contents')
    if not isinstance(contents, str):
      raise ValueError(f'a document has {_short(sorted(document))}; it needs contents, or title '
                       'and text, which are strings')
    title, is_titled, text = contents.partition('\n')
    is_quoted = len(title) > 1 and title[0] == title[-1] == '"'
    if not is_titled and not is_quoted:
      title, text = '', title
    title = title[1:-1] if is_quoted else title
  return types.Passage(title, text, id=id_)


def _document(passage: types.Passage) -> dict[str, str]:
  title = passage.title.replace('\n', ' ')  # the first line break ends it
  return {'id': passage.id or title, 'contents': f'"{title}"\n{passage.text}'}


def _read_result(result: Any, where: str) -> list[types.Passage]:
  if not isinstance(result, list):
    raise ValueError(f'{where} is {_short(result)}, not a list')
  passages = []
  for item in result:
    is_scored = isinstance(item, dict) and 'document' in item
    try:
      passage = read_document(item['document'] if is_scored else item)
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error
    score = item.get('score', 0.0) if is_scored else 0.0
    if not _is_number(score):
      raise ValueError(f'{where}: score is {_short(score)}, no finite number')
    passages.append(dataclasses.replace(passage, score=float(score)))
  return passages


def read_object(body: bytes, wanted: str) -> dict[str, Any]:
  """A JSON object. Raises ValueError, saying what is `wanted`, where it is none."""
  try:
    message = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'no JSON ({error}); wanted is {wanted}') from error
  if not isinstance(message, dict):
    raise ValueError(f'{_short(message)} is no object; wanted is {wanted}')
  return message


def _is_int(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  try:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)
  except OverflowError:  # an integer beyond floats
    return False


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:60]}…'
