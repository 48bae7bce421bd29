"""What a shopper is sent for: a product's attributes, options and a price limit, in words.

Instructions that people wrote are one goal each. A synthetic one makes a goal for every
combination of the product's options, or for some of them where there are many:

    Find me long sleeve, cotton shirts with color: red, and size: small, and price lower than
    40.00 dollars

The limit is the larger of two of the next four multiples of 10 dollars above the price, up to
990, as in the official code; all that is drawn depends on the seed and the product alone.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import math
import random

from mem1_jax.env.shop import Catalogue, Product, Wish, draw
from mem1_jax.types import Question

KINDS = ('human', 'synthetic', 'both')
SPLITS = ('train', 'validation', 'test')
PRICE_STEPS = tuple(10.0 * i for i in range(1, 100))  # dollars
# The official split: after a shuffle with this seed, so many goals to test and to validate.
OFFICIAL_SEED, OFFICIAL_TEST, OFFICIAL_VALIDATION = 233, 500, 1000


@dataclasses.dataclass(frozen=True)
class Goal:
  """What the reward compares a purchase with (env/shop_reward.py).

  Attributes:
    asin, name, query, product_category: of the product that the instruction was made from.
    attributes: asked for, ≥ 1.
    options: values asked for, such as `red` and `small`.
    price_upper: dollars; inf for no limit.
  """

  asin: str
  name: str
  query: str
  product_category: str
  attributes: tuple[str, ...]
  options: tuple[str, ...] = ()
  price_upper: float = math.inf


def make_goals(catalogue: Catalogue, kind: str, seed: int, max_combinations: int
               ) -> tuple[Question, ...]:
  """The goals of a catalogue as questions of one answer, the product's code, in a fixed order.

  Args:
    kind: human or synthetic instructions, or both: synthetic for products without human ones.
    seed: of price limits and of combinations.
    max_combinations: of the options of a synthetic instruction, ≥ 1; it is drawn which.

  Raises:
    ValueError: an unknown kind, a bound below 1, or no goal at all.
  """
  if kind not in KINDS or max_combinations < 1:
    raise ValueError(f'kind={kind!r} and max_combinations={max_combinations}: need one of {KINDS}'
                     ' and at least 1')
  written = {wish.asin for wish in catalogue.human}
  wishes = list(catalogue.human) if kind != 'synthetic' else []
  if kind != 'human':
    wishes += [w for w in catalogue.synthetic if kind == 'synthetic' or w.asin not in written]
  products = {product.asin: product for product in catalogue.products}
  numbers = dict.fromkeys(products, 0)
  goals = []
  for wish in wishes:
    for options in _option_sets(wish, products[wish.asin], seed, max_combinations):
      number, numbers[wish.asin] = numbers[wish.asin], numbers[wish.asin] + 1
      goals.append(_question(wish, products[wish.asin], options, number, seed))
  if not goals:
    raise ValueError(f'the catalogue of {len(products)} products has no {kind} instruction; give'
                     ' its file of instructions, or another kind')
  return tuple(goals)


def split(goals: Sequence[Question], name: str, is_official: bool) -> tuple[Question, ...]:
  """The goals of a split.

  A product's goals are all in one of the splits, by a hash of its code: 70 % train, 10 %
  validation, 20 % test. The official split is for the full set of human goals: shuffled with
  the official seed, 500 to test, 1,000 to validate, and the rest to train.

  Raises:
    ValueError: an unknown split, or too few goals for it.
  """
  if name not in SPLITS:
    raise ValueError(f'split {name!r} is unknown; choose one of {SPLITS}')
  if is_official:
    mixed = list(goals)
    random.Random(OFFICIAL_SEED).shuffle(mixed)
    ends = (OFFICIAL_TEST, OFFICIAL_TEST + OFFICIAL_VALIDATION)
    found = {'test': mixed[:ends[0]], 'validation': mixed[ends[0]:ends[1]],
             'train': mixed[ends[1]:]}[name]
  else:
    found = [goal for goal in goals if _split_of(goal.answers[0]) == name]
  if not found:
    raise ValueError(f'split {name!r} of {len(goals)} goals is empty; give more goals'
                     + (', or split by products' if is_official else ''))
  return tuple(found)


def _split_of(asin: str) -> str:
  number = draw(f'webshop/split/{asin}', 100)
  return 'train' if number < 70 else 'validation' if number < 80 else 'test'


def _option_sets(wish: Wish, product: Product, seed: int, limit: int
                 ) -> list[tuple[tuple[str, str], ...]]:
  """The options of each goal: (name, value) pairs in the order of the names, '' for no name."""
  if wish.options is not None:
    return [tuple(('', value.lower()) for value in wish.options)]
  options = sorted(product.options)
  num = math.prod(len(values) for _, values in options)
  chosen, tries = dict.fromkeys(range(num) if num <= limit else ()), itertools.count()
  while len(chosen) < min(num, limit):
    chosen[draw(f'{seed}/{wish.asin}/options/{next(tries)}', num)] = None
  return [_combination(options, number) for number in sorted(chosen)]


def _combination(options: Sequence[tuple[str, tuple[str, ...]]], number: int
                 ) -> tuple[tuple[str, str], ...]:
  """Number `number` of all combinations, the last option running fastest."""
  found = []
  for name, values in reversed(options):
    number, index = divmod(number, len(values))
    found.append((name, values[index]))
  return tuple(reversed(found))


def _question(wish: Wish, product: Product, options: tuple[tuple[str, str], ...], number: int,
              seed: int) -> Question:
  key = f'{product.asin}/{number if wish.options is not None else 0}'
  limit = _price_upper(product.price, f'{seed}/{key}/limit')
  text = wish.text
  if wish.options is None and options:
    text += ' with ' + ', and '.join(f'{name}: {value}' for name, value in options)
  if limit < math.inf:
    text += f', and price lower than {limit:.2f} dollars'
  goal = Goal(product.asin, product.name, product.query, product.product_category,
              wish.attributes, tuple(value for _, value in options), limit)
  # To search, to open the product, to choose each option; buying is the answer.
  return Question(f'webshop/{product.asin}/{number}', text, (product.asin,), 2 + len(options),
                  domain='webshop', goal=goal)


def _price_upper(price: float, key: str) -> float:
  steps = [step for step in PRICE_STEPS if step > price][:4]
  pairs = list(itertools.combinations(steps, 2))
  return max(pairs[draw(key, len(pairs))]) if pairs else math.inf
