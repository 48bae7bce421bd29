"""The builder: names, numbers, ties, and the committed bytes."""

import importlib.metadata

import pytest

from mem1_jax import types
from mem1_jax.data.atlas import build
from mem1_jax.data.atlas import packages
from mem1_jax.data.atlas import rank


@pytest.mark.parametrize('text, name', [
    ('São Tomé', 'Sao Tome'), ('Tromsø', 'Tromso'), ('Port-au-Prince', 'Port-au-Prince'),
    ("St. John's", None), ('les Escaldes', None), ('東京', None), ('Ur', None), ('X' * 30, None)])
def test_names_become_ascii_or_are_left_out(text, name):
  assert packages.to_name(text, 24) == name


@pytest.mark.parametrize('number, text', [
    (0, None), (499, None), (999, '1 thousand'), (34_400, '34 thousand'), (344_000, '340 thousand'),
    (994_999, '990 thousand'), (995_000, '1.0 million'), (1_234_567, '1.2 million'),
    (9_949_999, '9.9 million'), (13_400_000, '13 million')])
def test_populations_keep_two_digits(number, text):
  assert build.to_population(number) == text


def test_distance_of_oslo_and_bergen():
  assert packages.distance_km((59.91, 10.75), (60.39, 5.32)) == pytest.approx(305, abs=3)


def test_nearest_larger_is_the_nearest_of_the_larger():
  cities = [{'id': i, 'population': p, 'at': (0.0, x), 'name': n} for i, (n, p, x) in enumerate(
      [('Far', 900, 9.0), ('Near', 800, 2.0), ('Here', 500, 0.0), ('Small', 100, 0.1)])]
  assert packages.nearest_larger(cities[2], cities)['name'] == 'Near'
  assert packages.nearest_larger(cities[0], cities) is None


def test_a_title_that_another_document_wins_is_found():
  passages = [types.Passage('Mexico', 'A country in North America with a long text about it.'),
              types.Passage('Mexico Mexico', 'Mexico.'), types.Passage('Oslo', 'A city.')]
  assert rank.not_first(passages) == ['Mexico']


def test_a_missing_or_other_package_is_named(monkeypatch):
  monkeypatch.setitem(packages.PACKAGES, 'airportsdata', '1')
  with pytest.raises(ValueError, match='airportsdata==1'):
    packages.package_file('airportsdata', 'x')


def test_the_builder_makes_the_committed_bytes():
  for package, version in packages.PACKAGES.items():
    try:
      found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found = None
    if found != version:
      pytest.skip(f'{package} is {found}: the builder needs {version}')
  assert build.build() == build.FACTS.read_bytes()
