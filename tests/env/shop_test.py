"""Reading WebShop's files: every field, and entries that make no sense."""

import json
import logging
import re

import pytest

from mem1_jax.data import sources
from mem1_jax.env import shop

FULL = {
    'asin': 'B07DJJXGB5', 'name': ' Face \n Spray\u200b\x07 ', 'pricing': '$19.99$27.99',
    'category': 'beauty', 'query': ' Body  Care ', 'product_category': 'Beauty › Skin › Body',
    'small_description': ['Mild. ', '', 'For all.'], 'full_description': 'A\tspray.',
    'customization_options': {
        'Scent': [{'value': 'Tea/Tree ', 'price': 0, 'image': None}, {'value': 'Mint'},
                  {'value': 'mint'}, {'value': ' '}],
        'Size': None},
    'average_rating': '4.5', 'Attributes': ['tea tree'],
    'Reviews': [{'score': 5, 'title': 'Good', 'body': 'It  works.'}, {'stars': 2, 'review': 'No.'}],
}
PLAIN = {'asin': 'A1', 'name': 'Mug'}


def write(tmp_path, products, name='items_shuffle.json', **others):
  paths = {}
  for key, value in {'products': products, **others}.items():
    paths[key] = tmp_path / (name if key == 'products' else f'{key}.json')
    paths[key].write_text(value if isinstance(value, str) else json.dumps(value), 'utf-8')
  return paths


def load(tmp_path, products, seed=0, max_products=None, **others):
  return shop.load(**write(tmp_path, products, **others), seed=seed, max_products=max_products)


def test_every_field(tmp_path):
  product, = load(tmp_path, [FULL]).products
  assert 19.99 <= product.price <= 27.99
  assert product == shop.Product(
      'B07DJJXGB5', 'Face Spray', 'A spray.', ('Mild.', 'For all.'), 'body care', 'beauty',
      'Beauty › Skin › Body', ('tea tree',), (('scent', ('tea | tree', 'mint')),), product.price,
      '$19.99 to $27.99', '4.5', ('5 Good: It works.', '2: No.'))


def test_what_may_be_missing(tmp_path):
  product, = load(tmp_path, [PLAIN]).products
  assert product == shop.Product('A1', 'Mug')
  assert (product.price, product.price_tag, product.rating) == (100.0, '$100.0', 'N.A.')
  odd, = load(tmp_path, [PLAIN | {'small_description': 'One.', 'customization_options': '',
                                  'average_rating': '', 'full_description': None}]).products
  assert odd.features == ('One.',) and odd.rating == 'N.A.'


@pytest.mark.parametrize('pricing, low, high, tag', [
    ('$12.99', 12.99, 12.99, '$12.99'), ('$1,299.00', 1299.0, 1299.0, '$1299.0'),
    ([877.8], 877.8, 877.8, '$877.8'), ([2, 6.5, 9], 2.0, 6.5, '$2.0 to $6.5'),
    ('', 100.0, 100.0, '$100.0'), ([], 100.0, 100.0, '$100.0'), (None, 100.0, 100.0, '$100.0')])
def test_prices(tmp_path, pricing, low, high, tag):
  product, = load(tmp_path, [PLAIN | {'pricing': pricing}]).products
  assert low <= product.price <= high and product.price_tag == tag


def test_a_price_in_a_range_is_always_the_same(tmp_path):
  entries = [PLAIN | {'asin': f'A{i}', 'pricing': '$10$20'} for i in range(300)]
  prices = [product.price for product in load(tmp_path, entries).products]
  again = [product.price for product in load(tmp_path, entries[::-1]).products][::-1]
  other = [product.price for product in load(tmp_path, entries, seed=1).products]
  assert prices == again != other
  assert abs(sum(prices) / 300 - 15) < 0.6 and len(set(prices)) == 300


def test_instructions_and_reviews_from_their_own_files(tmp_path):
  found = load(
      tmp_path, [FULL, PLAIN],
      instructions={'A1': {'attributes': ['steel', 'light'], 'instruction': 'Find me steel mugs',
                           'instruction_attributes': ['steel']},
                    'B07DJJXGB5': {'attributes': []}},
      human={'A1': [{'instruction': 'i need a mug. ', 'instruction_attributes': ['light'],
                     'instruction_options': ['Red'], 'worker_id': 'W'},
                    {'instruction': 'no attribute', 'instruction_attributes': []}]},
      reviews=[{'asin': 'A1', 'average_rating': '3.1', 'reviews': [{'stars': 3, 'review': 'So.'}]}])
  full, mug = found.products
  assert (mug.attributes, mug.rating, mug.reviews) == (('steel', 'light'), '3.1', ('3: So.',))
  assert full.attributes == ()  # the file of instructions knows better
  assert found.synthetic == (shop.Wish('A1', 'Find me steel mugs', ('steel',)),)
  assert found.human == (shop.Wish('A1', 'i need a mug', ('light',), ('Red',)),)
  assert found.problems == ()


def test_instructions_within_products(tmp_path):
  entry = PLAIN | {'instruction_text': 'Find me mugs', 'instruction_attributes': ['steel'],
                   'instructions': [{'instruction': 'a mug', 'instruction_attributes': ['light']}]}
  found = load(tmp_path, [entry])
  assert found.synthetic == (shop.Wish('A1', 'Find me mugs', ('steel',)),)
  assert found.human == (shop.Wish('A1', 'a mug', ('light',), ()),)


BAD = [
    (7, '7 is no product'), ({'name': 'x'}, 'asin None is not 1 to 10'),
    (PLAIN | {'asin': 'A' * 11}, 'asin'),
    (PLAIN | {'asin': 'buy now'}, 'asin'), (PLAIN | {'asin': 'nan'}, 'asin'),
    (PLAIN | {'name': None}, 'None is no text'), (PLAIN | {'name': ' \x00'}, 'it has no name'),
    (PLAIN | {'pricing': 'cheap'}, "pricing 'cheap' is no price"),
    (PLAIN | {'pricing': [-1.0]}, 'pricing'), (PLAIN | {'pricing': ['$1']}, 'pricing'),
    (PLAIN | {'customization_options': ['red']}, 'customization_options'),
    (PLAIN | {'customization_options': {f'o{i}': [] for i in range(17)}}, 'up to 16'),
    (PLAIN | {'customization_options': {'color': 'red'}}, "option 'color' is 'red'"),
    (PLAIN | {'customization_options': {'color': [{'price': 1}]}}, 'None is no text'),
    (PLAIN | {'small_description': [1]}, '1 is no text'), (PLAIN | {'Reviews': ['x']}, 'no review'),
    (PLAIN | {'Attributes': 'red'}, 'no list of texts'),
]


@pytest.mark.parametrize('entry, message', BAD)
def test_a_bad_product_is_left_out_counted_and_named(tmp_path, caplog, entry, message):
  with caplog.at_level(logging.WARNING):
    found = load(tmp_path, [PLAIN | {'asin': 'B1'}, entry, PLAIN | {'asin': 'C1'}])
  assert [product.asin for product in found.products] == ['B1', 'C1']
  problem, = found.problems
  assert problem.startswith('items_shuffle.json, entry 1: ')
  assert re.search(message, problem)
  assert f'1 bad entries, 2 products stay: {problem}' in caplog.text


def test_a_code_that_comes_twice(tmp_path):
  found = load(tmp_path, [PLAIN, PLAIN | {'name': 'Other'}])
  assert [product.name for product in found.products] == ['Mug']
  assert found.problems == ('items_shuffle.json, entry 1: asin A1 comes twice',)


def test_bad_instructions_leave_the_product(tmp_path):
  found = load(tmp_path, [PLAIN, PLAIN | {'asin': 'A2'}], human={'A1': 'buy', 'A2': [{}]},
               instructions={'A1': [1], 'A2': {'instruction': 5, 'instruction_attributes': ['x']}})
  assert len(found.products) == 2 and not found.human + found.synthetic
  assert [problem.partition(':')[0] for problem in found.problems] == [
      'items_shuffle.json, entry 0, its instructions'] * 2 + [
          'items_shuffle.json, entry 1, its instructions']


def test_many_bad_ones_are_counted_not_listed(tmp_path, caplog):
  with caplog.at_level(logging.WARNING):
    found = load(tmp_path, [PLAIN, *range(50)])
  assert len(found.problems) == 50 and caplog.text.count('is no product') == 5
  assert '50 bad entries' in caplog.text


@pytest.mark.parametrize('products, message', [
    ([], 'has no good product and 0 bad ones: none'), ([1, {}], 'and 2 bad ones: items_shuffle'),
    ({}, "items_shuffle.json is no list in JSON, it begins with '{}'"), ('', "begins with ''"),
    ('[1, {"a": ', 'items_shuffle.json is no JSON from entry 1 on: .{"a": '),
    ('[1, {"a" 5}, 2]', 'from entry 1 on: .{"a" 5}, 2]')])
def test_files_that_are_no_catalogue(tmp_path, products, message):
  with pytest.raises(ValueError, match=message):
    load(tmp_path, products)


@pytest.mark.parametrize('chunk', [2, 3, 7, 100])
def test_a_list_is_read_piece_by_piece(tmp_path, monkeypatch, chunk):
  values = [12, PLAIN, [], 'x, ] y', FULL, 3.5, None]
  path = tmp_path / 'list.json'
  for indent in (None, 1):
    path.write_text(f' {json.dumps(values, indent=indent)}\n')
    monkeypatch.setattr(shop, '_CHUNK', chunk)
    assert list(shop._elements(path)) == values
  path.write_text('[\n]')
  assert not list(shop._elements(path))
  monkeypatch.setattr(shop, '_MAX_ENTRY', 30)
  path.write_text(json.dumps([1, 'x' * 400, 2]))
  with pytest.raises(ValueError, match='from entry 1 on'):
    list(shop._elements(path))


def test_a_mapping_that_is_no_json(tmp_path):
  with pytest.raises(ValueError, match='instructions.json is no JSON: .*line 1'):
    load(tmp_path, [PLAIN], instructions='{"A1": ')


def test_other_files_of_the_wrong_shape(tmp_path):
  with pytest.raises(ValueError, match='instructions.json holds a list, not {asin'):
    load(tmp_path, [PLAIN], instructions=[1])
  with pytest.raises(FileNotFoundError):
    shop.load(tmp_path / 'none.json', seed=0)


def test_one_product_a_line_and_only_the_first(tmp_path):
  lines = [json.dumps(PLAIN | {'name': 'a\u2028b'}, ensure_ascii=False), '{"asin": ',
           json.dumps(PLAIN | {'asin': 'A2'}), json.dumps(PLAIN | {'asin': 'A3'})]
  found = load(tmp_path, '\n'.join(lines) + '\n', name='items.jsonl', max_products=3)
  assert [product.name for product in found.products] == ['a b', 'Mug']
  assert found.problems == ("items.jsonl, line 2: '{\"asin\": ' is no product",)
  assert len(load(tmp_path, [PLAIN, PLAIN | {'asin': 'A2'}], max_products=1).products) == 1


def test_text_is_cleaned():
  assert shop.clean(' a\x1b[31m\u202eb\u200d\ud800 \n\tc\x00 ') == 'a[31mb c'
  with pytest.raises(ValueError, match='5 is no text'):
    shop.clean(5)


def test_the_embedded_shop():
  products, instructions = sources.shop_files()
  found = shop.load(products, instructions=instructions, seed=0)
  assert len(found.products) == len(found.synthetic) == 260 and not found.problems
  assert max(len(product.name) for product in found.products) < 60
  assert all(product.attributes and product.options for product in found.products)


@pytest.mark.shared_data
def test_a_thousand_real_products(shared_data):
  folder = shared_data / 'webshop'
  found = shop.load(folder / 'products_1000.json',
                    instructions=folder / 'items_ins_v2_1000.json', seed=0)
  assert found.problems == ('products_1000.json, entry 986: it has no name',)
  assert len(found.products) == 999
  assert (len(found.synthetic), len(found.human)) == (415, 13)
  assert sum(bool(product.options) for product in found.products) == 423
