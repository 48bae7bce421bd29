"""The embedded shop is what its script makes, and what it promises."""

import collections
import itertools

from mem1_jax.data import sources
from mem1_jax.data.shop import build


def test_the_files_are_what_the_script_makes():
  for path, text in build.contents().items():
    assert path.read_text('ascii') == text, path
  assert [str(path) for path in build.contents()] == list(sources.shop_files())


def test_products_differ_and_are_varied():
  products, instructions = build.make()
  assert len(products) == 260 and len(build.KINDS) == 26
  for key in ('asin', 'name'):
    assert len({product[key] for product in products}) == 260
  assert set(instructions) == {product['asin'] for product in products}
  categories = collections.Counter(product['category'] for product in products)
  assert set(categories) == {'fashion', 'beauty', 'electronics', 'garden', 'grocery'}
  assert min(categories.values()) >= 30
  assert sum(product['pricing'].count('$') == 2 for product in products) > 20
  assert {len(product['Reviews']) for product in products} == {1, 2, 3}


def test_what_is_asked_for_is_what_the_product_has():
  products, instructions = build.make()
  hidden = 0
  for product in products:
    told = instructions[product['asin']]
    assert set(told['instruction_attributes']) < set(told['attributes'])
    assert told['instruction'].endswith(product['query'])
    for group in build.CLASHES:
      assert len(set(group) & set(told['attributes'])) < 2
    hidden += any(wanted not in product['name'] for wanted in told['instruction_attributes'])
  assert 60 < hidden < 110  # one in three has to be looked for


def test_codes_of_a_kind_differ_early():
  products, _ = build.make()
  for kind in range(len(build.KINDS)):
    codes = [p['asin'] for p in products[kind * build.PER_KIND:(kind + 1) * build.PER_KIND]]
    assert len({code[0] for code in codes}) == 1
    assert all(len(code) == 3 for code in codes)
    assert max(sum(a[:2] == b[:2] for b in codes) for a in codes) <= 3


def test_options_have_three_values_or_more():
  products, _ = build.make()
  sizes = [len(values) for product in products
           for values in product['customization_options'].values()]
  assert min(sizes) >= 3 and max(sizes) == 10
  assert all(len(set(v['value'] for v in values)) == len(values) for product in products
             for values in product['customization_options'].values())


def test_no_two_options_share_a_value():
  products, _ = build.make()
  for product in products:
    sets = [{v['value'] for v in values} for values in product['customization_options'].values()]
    assert not any(a & b for a, b in itertools.combinations(sets, 2))
