"""Builds the embedded web shop: `products.jsonl` and `instructions.json`.

    python -m mem1_jax.data.shop.build            writes both beside this file
    python -m mem1_jax.data.shop.build --check    makes them in memory and compares every byte

26 kinds of things, ten products of each: a brand that does not exist, three attributes of
which the title names two, options, a price and a few words about it, all drawn by a hash. The
files have the schema of WebShop's items_shuffle.json and items_ins_v2.json, so that one loader
(env/shop.py) reads these and those. Texts are short: a small model shall be able to read them.
"""

import argparse
import json
import pathlib
import sys

from mem1_jax.data.atlas.documents import draw

FOLDER = pathlib.Path(__file__).parent
PRODUCTS, INSTRUCTIONS = FOLDER / 'products.jsonl', FOLDER / 'instructions.json'
PER_KIND = 10
SALT = 'shop'

BRANDS = ('Norva', 'Tilo', 'Marn', 'Kesta', 'Ondo', 'Lumo', 'Brisk', 'Halden', 'Pavo', 'Sorel',
          'Dunmar', 'Yarrow', 'Ferro', 'Calo', 'Wick', 'Zanda')
REVIEWS = ((5, 'Just right', 'It is what I was looking for.'),
           (5, 'Lovely', 'I would buy it again.'),
           (4, 'Good', 'It does what it should.'),
           (4, 'Well made', 'It came in three days.'),
           (3, 'It will do', 'I had hoped for more.'),
           (2, 'Not for me', 'It looks other than I thought.'))

_COLORS = ('black', 'white', 'red', 'blue', 'green', 'gray', 'brown', 'pink', 'yellow', 'purple')
_SIZES = ('small', 'medium', 'large', 'x-large')
_SCENTS = ('rose', 'lemon', 'lavender', 'vanilla', 'mint', 'coconut')
_FLAVORS = ('vanilla', 'lemon', 'honey', 'apple', 'cherry', 'ginger')
_ML = ('50 ml', '100 ml', '250 ml', '500 ml')
_PACKS = ('pack of 1', 'pack of 2', 'pack of 4', 'pack of 6')
_LENGTHS = ('1 m', '2 m', '3 m', '5 m')
WEAR = {'Size': _SIZES, 'Color': _COLORS}
COLORED = {'Color': _COLORS}
_CARE = ('cruelty free', 'paraben free', 'oil free', 'natural', 'for dry skin',
         'for oily skin', 'fragrance free', 'vegan')
_DEVICE = ('wireless', 'waterproof', 'noise cancelling', 'lightweight', 'foldable',
           'fast charging', 'long lasting', 'easy to clean')
_FURNITURE = ('solid wood', 'metal', 'modern', 'rustic', 'space saving', 'easy to assemble',
              'heavy duty', 'stackable')
_FOOD = ('organic', 'gluten free', 'sugar free', 'vegan', 'fair trade', 'low salt', 'kosher',
         'non gmo')
_CLOTH = ('cotton', 'linen', 'wool', 'quick drying', 'machine washable', 'stretchy',
          'handmade', 'lined')

# No product has two of a group.
CLASHES = (('cotton', 'linen', 'wool'), ('long sleeve', 'short sleeve'), ('slim fit', 'wide leg'),
           ('ankle high', 'knee high'), ('for dry skin', 'for oily skin'),
           ('for dry hair', 'for curly hair'), ('soft bristle', 'firm bristle', 'electric'),
           ('solid wood', 'metal'), ('modern', 'rustic'), ('ceramic', 'steel'),
           ('dark roast', 'mild roast'), ('ground', 'whole bean'), ('light blocking', 'sheer'))

# (category, what stands before its name, what one searches for, name of one, attributes,
#  options, lowest and highest price in dollars, what it is for)
KINDS = (
    ('fashion', 'Clothing › Tops', 'shirts', 'shirt',
     ('cotton', 'linen', 'long sleeve', 'short sleeve', 'slim fit', 'machine washable',
      'v neck', 'quick drying'), WEAR, 12, 40, 'work'),
    ('fashion', 'Clothing › Bottoms', 'trousers', 'trousers',
     ('cotton', 'linen', 'slim fit', 'wide leg', 'high waist', 'machine washable', 'stretchy',
      'elastic waist'), WEAR, 18, 60, 'travel'),
    ('fashion', 'Clothing › Underwear', 'socks', 'socks',
     ('cotton', 'wool', 'ankle high', 'knee high', 'cushioned', 'machine washable',
      'quick drying', 'seamless'), WEAR, 5, 20, 'long walks'),
    ('fashion', 'Clothing › Outerwear', 'jackets', 'jacket',
     ('waterproof', 'windproof', 'hooded', 'lined', 'lightweight', 'wool', 'slim fit',
      'zip front'), WEAR, 35, 120, 'rainy days'),
    ('fashion', 'Shoes › Sports', 'running shoes', 'running shoe',
     ('non slip', 'lightweight', 'waterproof', 'rubber sole', 'arch support', 'lace up',
      'vegan', 'cushioned'), {'Size': ('38', '40', '42', '44'), 'Color': _COLORS}, 30, 110,
     'the track'),
    ('fashion', 'Clothing › Accessories', 'hats', 'hat',
     ('wool', 'cotton', 'wide brim', 'foldable', 'lined', 'handmade', 'waterproof',
      'sun blocking'), WEAR, 10, 35, 'sunny days'),
    ('beauty', 'Hair Care › Washing', 'shampoos', 'shampoo',
     ('sulfate free', 'paraben free', 'cruelty free', 'for dry hair', 'for curly hair',
      'natural', 'vegan', 'anti dandruff'), {'Scent': _SCENTS, 'Size': _ML}, 6, 25, 'every wash'),
    ('beauty', 'Bath › Washing', 'bar soaps', 'bar soap', _CARE,
     {'Scent': _SCENTS, 'Size': _PACKS}, 4, 18, 'hands and body'),
    ('beauty', 'Skin Care › Face', 'face creams', 'face cream', _CARE, {'Size': _ML}, 9, 45,
     'the evening'),
    ('beauty', 'Skin Care › Lips', 'lip balms', 'lip balm', _CARE, {'Flavor': _FLAVORS}, 3, 12,
     'cold weather'),
    ('beauty', 'Oral Care › Brushes', 'toothbrushes', 'toothbrush',
     ('soft bristle', 'firm bristle', 'bamboo', 'bpa free', 'travel size', 'electric',
      'for children', 'easy to clean'), {'Color': _COLORS, 'Size': _PACKS}, 3, 40,
     'clean teeth'),
    ('beauty', 'Fragrance › Sprays', 'perfumes', 'perfume',
     ('long lasting', 'alcohol free', 'vegan', 'travel size', 'cruelty free', 'natural',
      'refillable', 'light'), {'Scent': _SCENTS, 'Size': _ML}, 15, 80, 'evenings out'),
    ('electronics', 'Audio › Listening', 'headphones', 'headphones', _DEVICE, COLORED, 15, 120,
     'music'),
    ('electronics', 'Audio › Playing', 'speakers', 'speaker', _DEVICE, COLORED, 18, 150,
     'parties'),
    ('electronics', 'Power › Charging', 'phone chargers', 'phone charger',
     ('fast charging', 'wireless', 'dual port', 'travel size', 'lightweight', 'foldable',
      'overheat protected', 'for cars'), COLORED, 8, 40, 'phones'),
    ('electronics', 'Computers › Input', 'keyboards', 'keyboard',
     ('wireless', 'mechanical', 'quiet', 'backlit', 'compact', 'rechargeable', 'waterproof',
      'foldable'), COLORED, 15, 110, 'typing'),
    ('electronics', 'Cables › Video', 'video cables', 'video cable',
     ('gold plated', 'high speed', 'braided', 'right angle', 'flat', 'shielded', 'heavy duty',
      'flexible'), {'Size': _LENGTHS, 'Color': _COLORS}, 5, 25, 'screens'),
    ('garden', 'Furniture › Seating', 'chairs', 'chair', _FURNITURE, COLORED, 40, 180,
     'the dining room'),
    ('garden', 'Furniture › Tables', 'side tables', 'side table', _FURNITURE, COLORED, 30, 160,
     'the living room'),
    ('garden', 'Home › Floor', 'rugs', 'rug',
     ('wool', 'cotton', 'non slip', 'machine washable', 'handmade', 'modern', 'soft pile',
      'stain resistant'), WEAR, 25, 140, 'the hall'),
    ('garden', 'Home › Windows', 'curtains', 'curtains',
     ('linen', 'cotton', 'light blocking', 'machine washable', 'noise reducing', 'sheer',
      'lined', 'modern'), WEAR, 15, 80, 'the bedroom'),
    ('garden', 'Kitchen › Drinking', 'mugs', 'mug',
     ('ceramic', 'steel', 'dishwasher safe', 'handmade', 'double walled', 'stackable',
      'bpa free', 'leak proof'), COLORED, 6, 30, 'hot drinks'),
    ('garden', 'Home › Bedding', 'pillows', 'pillow', _CLOTH, WEAR, 12, 60, 'a good night'),
    ('grocery', 'Drinks › Hot', 'teas', 'tea', _FOOD,
     {'Flavor': _FLAVORS, 'Size': _PACKS}, 4, 22, 'the afternoon'),
    ('grocery', 'Drinks › Beans', 'coffees', 'coffee',
     ('organic', 'fair trade', 'dark roast', 'mild roast', 'ground', 'whole bean', 'low acid',
      'decaf'), {'Flavor': _FLAVORS, 'Size': _PACKS}, 7, 30, 'the morning'),
    ('grocery', 'Snacks › Sweet', 'cookies', 'cookies', _FOOD,
     {'Flavor': _FLAVORS, 'Size': _PACKS}, 3, 18, 'a break'),
)


def _mixed(items, key: str) -> list:
  """The items in an order that depends on the key alone."""
  return sorted(items, key=lambda item: draw(f'{SALT}/{key}/{item}', 2**32))


def _some(items: tuple, key: str) -> list:
  """Three or more of the items, in their order."""
  kept = _mixed(items, key)[:3 + draw(f'{SALT}/{key}/count', len(items) - 2)]
  return [item for item in items if item in kept]


def _traits(attributes: tuple, kind: int) -> list[list[str]]:
  """Three attributes of each product of a kind that go together; no two titles name the same."""
  found, named, tries = [], set(), 0
  while len(found) < PER_KIND:
    some = _mixed(attributes, f'{kind}/{tries}/attributes')[:3]
    tries += 1
    clash = any(len(set(group) & set(some)) > 1 for group in CLASHES)
    if not clash and frozenset(some[:2]) not in named:
      named.add(frozenset(some[:2]))
      found.append(some)
  return found


def _pricing(low: int, high: int, key: str) -> str:
  """`$12.99`, or a range `$12.99$17.99` of one product in six."""
  price = low + draw(f'{SALT}/{key}/price', high - low)
  top = f'${price + 2 + price // 5}.99' if draw(f'{SALT}/{key}/range', 6) == 0 else ''
  return f'${price}.99{top}'


def make() -> tuple[list[dict], dict[str, dict]]:
  """(products, {asin: attributes and instruction}), a pure function of this file."""
  products, instructions = [], {}
  for kind, (category, path, query, name, attributes, options, low, high, use) in enumerate(KINDS):
    for number, traits in enumerate(_traits(attributes, kind)):
      key = f'{kind}/{number}'
      # Codes of a kind have one letter, and digits that differ early.
      asin = f'{chr(ord("A") + kind)}{(37 * number + 11 * kind) % 90 + 10}'
      brand = BRANDS[draw(f'{SALT}/{key}/brand', len(BRANDS))]
      reviews = _mixed(REVIEWS, f'{key}/reviews')[:1 + draw(f'{SALT}/{key}/reviews', 3)]
      products.append({
          'asin': asin,
          'name': f'{brand} {traits[0]} {traits[1]} {name}',
          'pricing': _pricing(low, high, key),
          'category': category,
          'product_category': f'{path} › {query.capitalize()}',
          'query': query,
          'small_description': [f'{trait.capitalize()}.' for trait in traits],
          'full_description': f'For {use}. By {brand}.',
          'customization_options': {
              option: [{'value': value} for value in _some(values, f'{key}/{option}')]
              for option, values in options.items()},
          'average_rating': round(sum(score for score, *_ in reviews) / len(reviews), 1),
          'Reviews': [{'score': score, 'title': title, 'body': body}
                      for score, title, body in reviews]})
      # One goal in three asks for what the title does not say.
      wanted = traits[:2] if draw(f'{SALT}/{key}/wanted', 3) else traits[1:]
      instructions[asin] = {'attributes': traits,
                            'instruction': f'Find me {", ".join(wanted)} {query}',
                            'instruction_attributes': wanted}
  return products, instructions


def contents() -> dict[pathlib.Path, str]:
  """What stands in each file."""
  products, instructions = make()
  lines = [f'{json.dumps(asin)}: {json.dumps(told)}' for asin, told in instructions.items()]
  return {PRODUCTS: ''.join(f'{json.dumps(product)}\n' for product in products),
          INSTRUCTIONS: '{\n' + ',\n'.join(lines) + '\n}\n'}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--check', action='store_true', help='compare with the committed files only')
  is_check, made = parser.parse_args().check, contents()
  for path, text in made.items():
    if not is_check:
      path.write_text(text, 'ascii')
      print(f'{path}: {len(text)} bytes')
    elif path.read_text('ascii') != text:
      print(f'{path} differs from what it is built to: run without --check', file=sys.stderr)
      return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
