"""The builder: numbers, and the committed bytes."""

import importlib.metadata

import pytest

from mem1_jax.data.atlas import build
from mem1_jax.data.atlas import packages


@pytest.mark.parametrize('number, text', [
    (0, None), (499, None), (999, '1 thousand'), (34_400, '34 thousand'), (344_000, '340 thousand'),
    (994_999, '990 thousand'), (995_000, '1.0 million'), (1_234_567, '1.2 million'),
    (9_949_999, '9.9 million'), (13_400_000, '13 million')])
def test_populations_keep_two_digits(number, text):
  assert build.to_population(number) == text


def test_the_builder_makes_the_committed_bytes():
  for package, version in packages.PACKAGES.items():
    try:
      found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found = None
    if found != version:
      pytest.skip(f'{package} is {found}: the builder needs {version}')
  assert build.build() == build.FACTS.read_bytes()
