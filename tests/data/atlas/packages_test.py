"""Reading the packages: names, distances, neighbours, versions."""

import pytest

from mem1_jax.data.atlas import packages


@pytest.mark.parametrize('text, name', [
    ('São Tomé', 'Sao Tome'), ('Tromsø', 'Tromso'), ('Port-au-Prince', 'Port-au-Prince'),
    ("St. John's", None), ('les Escaldes', None), ('東京', None), ('Ur', None), ('X' * 30, None)])
def test_names_become_ascii_or_are_left_out(text, name):
  assert packages.to_name(text, 24) == name


def test_distance_of_oslo_and_bergen():
  assert packages.distance_km((59.91, 10.75), (60.39, 5.32)) == pytest.approx(305, abs=3)


def test_nearest_larger_is_the_nearest_of_the_larger():
  cities = [{'id': i, 'population': p, 'at': (0.0, x), 'name': n} for i, (n, p, x) in enumerate(
      [('Far', 900, 9.0), ('Near', 800, 2.0), ('Here', 500, 0.0), ('Small', 100, 0.1)])]
  assert packages.nearest_larger(cities[2], cities)['name'] == 'Near'
  assert packages.nearest_larger(cities[0], cities) is None


def test_a_missing_or_other_package_is_named(monkeypatch):
  monkeypatch.setitem(packages.PACKAGES, 'airportsdata', '1')
  with pytest.raises(ValueError, match='airportsdata==1'):
    packages.package_file('airportsdata', 'x')
