"""Goals: their words and limits, which are drawn once and for all; splits."""

import collections
import dataclasses
import itertools
import math
import random

import pytest

from mem1_jax.env import shop, shop_goals
from tests.env.small_shop import MUG, SHIRT, SHIRTS

MADE = shop.Wish('A10', 'Find me long sleeve, cotton shirts', ('long sleeve', 'cotton'))
CUP = shop.Wish('V13', 'Find me steel mugs', ('steel',))
WRITTEN = shop.Wish('A10', 'i want a red cotton shirt', ('cotton',), ('Red',))
SHOP = shop.Catalogue((SHIRT, MUG), (WRITTEN,), (MADE, CUP), ())


def goals(kind='synthetic', seed=0, most=100, catalogue=SHOP):
  return shop_goals.make_goals(catalogue, kind, seed, most)


def test_a_synthetic_goal_for_every_combination():
  made = goals()
  assert [g.id for g in made] == [f'webshop/A10/{i}' for i in range(9)] + ['webshop/V13/0']
  assert [g.goal.options for g in made[:9]] == list(itertools.product(
      ('red', 'light blue', 'black'), ('small', 'medium', 'large')))  # color before size
  first = made[0]
  limit = first.goal.price_upper
  assert first.text == (
      'Find me long sleeve, cotton shirts with color: red, and size: small, and price lower than'
      f' {limit:.2f} dollars')
  assert first.goal == shop_goals.Goal('A10', SHIRT.name, 'shirts', SHIRT.product_category,
                                       ('long sleeve', 'cotton'), ('red', 'small'), limit)
  assert (first.answers, first.hops, first.domain) == (('A10',), 4, 'webshop')
  assert made[-1].text.startswith('Find me steel mugs, and price lower than ')
  assert {g.goal.price_upper for g in made[:9]} == {limit}  # as the official code has it


def test_human_goals_and_both():
  human, = goals('human')
  limit = f'{human.goal.price_upper:.2f}'
  assert human.text == f'i want a red cotton shirt, and price lower than {limit} dollars'
  assert (human.goal.options, human.goal.attributes, human.hops) == (('red',), ('cotton',), 3)
  assert [g.id for g in goals('both')] == ['webshop/A10/0', 'webshop/V13/0']
  assert goals('both')[0] == human


def test_limits_are_the_larger_of_two_of_the_next_four_steps():
  limits = collections.Counter(shop_goals._price_upper(12.99, str(i)) for i in range(600))
  assert set(limits) == {30.0, 40.0, 50.0}
  for limit, pairs in ((30.0, 1), (40.0, 2), (50.0, 3)):  # of the six pairs of 20, 30, 40, 50
    assert abs(limits[limit] / 600 - pairs / 6) < 0.08
  assert {shop_goals._price_upper(20.0, str(i)) for i in range(50)} == {40.0, 50.0, 60.0}
  assert shop_goals._price_upper(975.0, 'x') == 990.0
  assert shop_goals._price_upper(980.0, 'x') == math.inf  # one step is not two
  dear = dataclasses.replace(SHOP, products=(SHIRT, dataclasses.replace(MUG, price=2000.0)))
  assert goals(catalogue=dear)[-1].text == 'Find me steel mugs'


def test_some_combinations_of_many():
  few = goals(most=4)
  assert [g.answers[0] for g in few] == ['A10'] * 4 + ['V13']
  every = {g.goal.options for g in goals()[:9]}
  assert len({g.goal.options for g in few}) == 5 and {g.goal.options for g in few[:4]} < every
  vast = dataclasses.replace(SHIRT, options=tuple(
      (f'o{i}', tuple(map(str, range(50)))) for i in range(9)))
  assert len(goals(catalogue=dataclasses.replace(SHOP, products=(vast, MUG)), most=3)) == 4


def test_the_same_seed_draws_the_same():
  assert goals(most=4) == goals(most=4) != goals(seed=1, most=4)
  other = shop.Catalogue((MUG, SHIRT), (), (CUP, MADE), ())  # in another order
  assert set(goals(catalogue=other, most=4)) == set(goals(most=4))


@pytest.mark.parametrize('kind, most, catalogue', [
    ('none', 1, SHOP), ('human', 0, SHOP), ('human', 1, dataclasses.replace(SHOP, human=()))])
def test_no_goals(kind, most, catalogue):
  with pytest.raises(ValueError, match='need one of|has no human instruction'):
    goals(kind, most=most, catalogue=catalogue)


def many(num):
  wishes = tuple(shop.Wish(p.asin, 'Find me shirts', ('plain',), ()) for p in SHIRTS)
  made = goals('human', catalogue=shop.Catalogue(SHIRTS, wishes, (), ()))
  return tuple(dataclasses.replace(made[i % len(made)], id=str(i), answers=(f'A{i // 2}',))
               for i in range(num))


def test_a_split_has_all_goals_of_its_products():
  splits = {name: shop_goals.split(many(2000), name, False) for name in shop_goals.SPLITS}
  assert sum(map(len, splits.values())) == 2000
  asins = {name: {g.answers[0] for g in found} for name, found in splits.items()}
  assert not any(asins[a] & asins[b] for a, b in itertools.combinations(asins, 2))
  shares = [len(found) / 2000 for found in splits.values()]
  assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.04)


def test_the_official_split():
  everything = many(1700)
  mixed = list(everything)
  random.Random(233).shuffle(mixed)
  found = [shop_goals.split(everything, name, True) for name in ('test', 'validation', 'train')]
  assert list(map(len, found)) == [500, 1000, 200]
  assert [g for part in found for g in part] == mixed


def test_splits_that_cannot_be():
  with pytest.raises(ValueError, match="'dev' is unknown"):
    shop_goals.split(many(10), 'dev', False)
  with pytest.raises(ValueError, match="'train' of 10 goals is empty; .* or split by products"):
    shop_goals.split(many(10), 'train', True)
