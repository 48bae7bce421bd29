"""The goods of a web shop, read from WebShop's own files (https://arxiv.org/abs/2207.01206).

    items_shuffle*.json    products: name, bullets, description, category, prices, options
    items_ins_v2*.json     asin → attributes, and an instruction for a synthetic goal
    items_human_ins.json   asin → instructions that people wrote, with attributes and options
    reviews.json           reviews and ratings

A file may also hold one product a line (`.jsonl`), and a product what the other three say of
it. An entry that makes no sense is left out, counted and named by file and place. What others
wrote is cleaned here, once: no control characters, one space between words.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import os
import pathlib
import re
from typing import Any
import unicodedata

Path = str | os.PathLike[str]

DEFAULT_PRICE = 100.0  # dollars, where the file gives none, as the official code has it
MAX_ASIN, MAX_OPTIONS = 10, 16  # characters; kinds of options (size, color, …) of one product
_REPORTED = 5  # bad entries that a warning tells of
_ASIN = re.compile(rf'[A-Za-z0-9]{{1,{MAX_ASIN}}}')
_CHUNK, _MAX_ENTRY = 2**20, 2**26  # characters that are read at a time, and of one entry
_BLANK, _GAP = re.compile(r'\s*'), re.compile(r'[\s,]*')
_AMOUNT = re.compile(r'\d[\d,]*(?:\.\d+)?')


@dataclasses.dataclass(frozen=True)
class Product:
  """One product.

  Attributes:
    asin: its code, ≤ 10 letters and digits.
    features: its bullet points.
    query: what one searches for to find such things, `console tables`.
    category: its department, `garden`.
    product_category: from the general to the special, `Home › Furniture › Tables`.
    attributes: what the reward knows of it, `solid wood`; not shown in its title.
    options: (name, values) pairs, lower case, such as ('size', ('small', 'large')).
    price: dollars; of a range, a random number in it that is always the same.
    price_tag: as the page shows it, `$19.99 to $27.99`.
    rating: of 5; `N.A.` where unknown.
  """

  asin: str
  name: str
  description: str = ''
  features: tuple[str, ...] = ()
  query: str = ''
  category: str = ''
  product_category: str = ''
  attributes: tuple[str, ...] = ()
  options: tuple[tuple[str, tuple[str, ...]], ...] = ()
  price: float = DEFAULT_PRICE
  price_tag: str = f'${DEFAULT_PRICE}'
  rating: str = 'N.A.'
  reviews: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Wish:
  """An instruction that one product fulfils; `options` is None where any of its options may do."""

  asin: str
  text: str
  attributes: tuple[str, ...]
  options: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """What was read.

  Attributes:
    products: in the order of the file, their codes differ.
    human: instructions that people wrote, in order.
    synthetic: those made of a product's attributes.
    problems: what was left out and why, `items.json, entry 17: …`.
  """

  products: tuple[Product, ...]
  human: tuple[Wish, ...]
  synthetic: tuple[Wish, ...]
  problems: tuple[str, ...]


def draw(key: str, bound: int) -> int:
  """A number in [0, bound) that depends on the key alone."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'big') % bound


def clean(text: Any) -> str:
  """On one line, without control characters, marks of direction and broken surrogates."""
  if not isinstance(text, str):
    raise ValueError(f'{_shown(text)} is no text')
  words = ''.join(' ' if c.isspace() else c for c in text
                  if c.isspace() or unicodedata.category(c)[0] != 'C')
  return ' '.join(words.split())


def load(products: Path, *, instructions: Path | None = None, human: Path | None = None,
         reviews: Path | None = None, seed: int, max_products: int | None = None) -> Catalogue:
  """Reads a catalogue.

  Args:
    products: `items_shuffle*.json`, or one product a line.
    instructions: `items_ins_v2*.json`.
    human: `items_human_ins.json`.
    reviews: `reviews.json`.
    seed: of the prices of products that cost from … to ….
    max_products: only so many entries of the file, the first; None for all.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a file is not JSON of the right shape, or has no good product.
  """
  notes, stories = _mapping(instructions), _mapping(human)
  rated = _elements(pathlib.Path(reviews)) if reviews else ()
  opinions = {r.get('asin'): r for r in rated if isinstance(r, dict)}
  found: dict[str, Product] = {}
  problems, written, made = [], [], []
  for where, entry in _entries(pathlib.Path(products), max_products):
    try:
      product = _product(_checked(entry, found), notes, opinions, seed)
    except ValueError as error:
      problems.append(f'{where}: {error}')
      continue
    found[product.asin] = product
    for wishes, read, told in ((written, _human, stories), (made, _synthetic, notes)):
      try:
        wishes += read(product.asin, entry, told.get(product.asin))
      except ValueError as error:
        problems.append(f'{where}, its instructions: {error}')
  _report(products, len(found), problems)
  return Catalogue(tuple(found.values()), tuple(written), tuple(made), tuple(problems))


def _report(path: Path, num_found: int, problems: Sequence[str]):
  told = '; '.join(problems[:_REPORTED])
  if not num_found:
    raise ValueError(f'{path} has no good product and {len(problems)} bad ones: {told or "none"};'
                     " give a file of products in WebShop's schema")
  if problems:
    logging.warning('%d bad entries, %d products stay: %s%s', len(problems), num_found, told,
                    '; …' if len(problems) > _REPORTED else '')


# Files.


def _mapping(path: Path | None) -> dict:
  """asin → what the file says of it; nothing without a file."""
  if not path:
    return {}
  try:
    value = json.loads(pathlib.Path(path).read_text('utf-8'))
  except ValueError as error:  # JSON, or UTF-8
    raise ValueError(f"{path} is no JSON: {error}; give one of WebShop's files") from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} holds a {type(value).__name__}, not {{asin: …}}; give one of'
                     " WebShop's files of instructions")
  return value


def _elements(path: pathlib.Path) -> Iterator[Any]:
  """The elements of a list in JSON, one after another: the file of all products has 5 GB."""
  with path.open(encoding='utf-8-sig', errors='replace') as file:
    text = file.read(_CHUNK).lstrip()
    if not text.startswith('['):
      raise ValueError(f"{path} is no list in JSON, it begins with {_shown(text[:60])}; give one of"
                       " WebShop's files")
    at, number = 1, 0
    while text[(at := _GAP.match(text, at).end()):at + 1] != ']':
      try:
        value, end = json.JSONDecoder().raw_decode(text, at)
      except ValueError:  # it is cut off here, or wrong
        end = len(text)
      if text[(k := _BLANK.match(text, end).end()):k + 1] in (',', ']'):  # not cut
        yield value
        at, number = end, number + 1
        continue
      more = file.read(_CHUNK)
      text, at = text[at:] + more, 0
      if not more or len(text) > _MAX_ENTRY:
        raise ValueError(f'{path} is no JSON from entry {number} on: {_shown(text[:60])}; give one'
                         " of WebShop's files")


def _entries(path: pathlib.Path, limit: int | None) -> Iterator[tuple[str, Any]]:
  """(place in the file, entry) of each product."""
  if path.suffix != '.jsonl':
    for number, entry in enumerate(itertools.islice(_elements(path), limit)):
      yield f'{path.name}, entry {number}', entry
    return
  with path.open(encoding='utf-8', errors='replace', newline='\n') as file:
    for number, line in enumerate(itertools.islice(file, limit), start=1):
      try:
        entry = json.loads(line)
      except ValueError:
        entry = line.rstrip('\n')
      yield f'{path.name}, line {number}', entry


# Entries.


def _checked(entry: Any, found: Mapping[str, Product]) -> dict:
  if not isinstance(entry, dict):
    raise ValueError(f'{_shown(entry)} is no product')
  asin = entry.get('asin')
  if not isinstance(asin, str) or not _ASIN.fullmatch(asin) or asin == 'nan':
    raise ValueError(f'asin {_shown(asin)} is not 1 to {MAX_ASIN} letters and digits')
  if asin in found:
    raise ValueError(f'asin {asin} comes twice')
  return entry


def _product(entry: dict, notes: dict, opinions: dict, seed: int) -> Product:
  asin, name = entry['asin'], clean(entry.get('name'))
  if not name:
    raise ValueError('it has no name')
  noted = notes.get(asin) if isinstance(notes.get(asin), dict) else {}
  opinion = opinions.get(asin, {})
  bullets = entry.get('small_description') or []
  prices, tag = _prices(entry.get('pricing'))
  # The official code draws this price anew at every start; here it is always the same.
  share = draw(f'{seed}/{asin}/price', 2**53) / 2**53
  return Product(
      asin, name, clean(entry.get('full_description') or ''),
      _texts(bullets if isinstance(bullets, list) else [bullets]),
      clean(entry.get('query') or '').lower(), clean(entry.get('category') or ''),
      clean(entry.get('product_category') or ''),
      _texts(noted.get('attributes', entry.get('Attributes')) or []),
      _options(entry.get('customization_options') or {}),
      prices[0] + (prices[-1] - prices[0]) * share, tag,
      _rating(opinion.get('average_rating') or entry.get('average_rating')),
      tuple(map(_review, opinion.get('reviews') or entry.get('Reviews') or [])))


def _texts(values: Any) -> tuple[str, ...]:
  """Cleaned, without blank ones."""
  if not isinstance(values, list):
    raise ValueError(f'{_shown(values)} is no list of texts')
  return tuple(text for text in map(clean, values) if text)


def _prices(pricing: Any) -> tuple[list[float], str]:
  """One price or the ends of a range, and the tag that says so: of `$19.99$27.99`, or a list."""
  if not pricing:
    return [DEFAULT_PRICE], f'${DEFAULT_PRICE}'
  amounts = pricing
  if isinstance(pricing, str):
    amounts = [float(amount.replace(',', '')) for amount in _AMOUNT.findall(pricing)]
  if not isinstance(amounts, list) or not amounts or not all(
      isinstance(a, (int, float)) and math.isfinite(a) and a >= 0 for a in amounts):
    raise ValueError(f'pricing {_shown(pricing)} is no price ≥ 0, nor two')
  prices = [float(amount) for amount in amounts[:2]]
  return prices, ' to '.join(f'${price}' for price in prices)


def _options(customization: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
  if not isinstance(customization, dict) or len(customization) > MAX_OPTIONS:
    raise ValueError(f'customization_options {_shown(customization)} are not up to {MAX_OPTIONS}'
                     ' lists under names')
  options = {}
  for name, contents in customization.items():
    if not contents:
      continue
    if not isinstance(contents, list) or not all(isinstance(c, dict) for c in contents):
      raise ValueError(f'option {_shown(name)} is {_shown(contents)}, not a list of values')
    values = (clean(content.get('value')).replace('/', ' | ').lower() for content in contents)
    options.setdefault(clean(name).lower(), {}).update(
        {' '.join(value.split()): None for value in values if value})
  return tuple((name, tuple(values)) for name, values in options.items() if name and values)


def _rating(rating: Any) -> str:
  return clean(str(rating)) if isinstance(rating, (str, int, float)) and rating else 'N.A.'


def _review(review: Any) -> str:
  """`5 Fits well: I wear it every day.`"""
  if not isinstance(review, dict):
    raise ValueError(f'{_shown(review)} is no review')
  score, title, body = (clean(str(review.get(name) or review.get(other) or '')) for name, other in (
      ('score', 'stars'), ('title', 'title'), ('body', 'review')))
  return f'{score} {title}: {body}' if title else f'{score}: {body}'


def _human(asin: str, entry: dict, told: Any) -> list[Wish]:
  """Those with attributes: the official code leaves out the others, too."""
  told = told or entry.get('instructions') or []
  if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
    raise ValueError(f'{_shown(told)} is no list of instructions')
  return [Wish(asin, clean(each.get('instruction')).strip('.'), attributes,
               _texts(each.get('instruction_options') or []))
          for each in told if (attributes := _texts(each.get('instruction_attributes') or []))]


def _synthetic(asin: str, entry: dict, told: Any) -> list[Wish]:
  told = told or {}
  if not isinstance(told, dict):
    raise ValueError(f'{_shown(told)} is no instruction with its attributes')
  text = told.get('instruction', entry.get('instruction_text'))
  attributes = told.get('instruction_attributes', entry.get('instruction_attributes'))
  return [Wish(asin, clean(text), _texts(attributes))] if text and attributes else []


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}…'
