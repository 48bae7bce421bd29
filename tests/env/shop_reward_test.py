"""The reward of a purchase: each term by hand, and what thefuzz says of likeness."""

import dataclasses
import math
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.env import shop, shop_goals
from mem1_jax.env import shop_reward as reward
from tests.env.small_shop import GOAL, MUG, SHIRT

RULES = reward.Rules()
RIGHT = {'size': 'small', 'color': 'red'}


def score(product=SHIRT, chosen=RIGHT, **changes):
  return reward.score(product, chosen, dataclasses.replace(GOAL, **changes), RULES)


def test_the_right_product_with_the_right_options_is_worth_one():
  assert score() == reward.Score(1.0, 1.0, 2, 2, True)


def test_each_missed_wish_costs_its_share():
  # 2 attributes, 2 options, the price: 5 shares
  assert score(chosen={'size': 'small'}).reward == pytest.approx(4 / 5)
  assert score(chosen={}).reward == pytest.approx(3 / 5)
  assert score(price_upper=12.98).reward == pytest.approx(4 / 5)
  assert score(price_upper=12.99).reward == 1.0  # the limit itself is within
  assert score(attributes=('long sleeve', 'waterproof')).reward == pytest.approx(4 / 5)
  assert score(chosen={}, price_upper=1.0, attributes=('silk', 'wool')) == reward.Score(
      0.0, 1.0, 0, 0, False)


def test_without_options_or_limit():
  assert score(MUG, {}, name=MUG.name, options=(), attributes=('steel',),
               price_upper=math.inf) == reward.Score(1.0, 1.0, 1, 0, True)


# Each of its twelve words is a twelfth of the title.
LONG = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda shirt'


@pytest.mark.parametrize('name, query, category, title, expected', [
    ('mug', 'mugs', 'Kitchen', SHIRT.name, 0.0),  # no word in common
    ('mug', 'shirts', SHIRT.product_category, SHIRT.name, 0.0),  # whatever else agrees
    ('shirt', 'shirts', 'x', LONG, 0.1),  # 1 of 12, below 0.1
    ('kappa shirt', 'x', 'x', LONG, 0.5),  # 2 of 12: 0.17, and nothing else agrees
    ('kappa shirt', 'shirts', 'x', LONG, 1.0),  # but the query does
    ('kappa shirt', 'x', 'Shirts › Clothing', LONG, 1.0),  # or two categories, in any order
    ('kappa shirt', 'x', 'Clothing › Hats', LONG, 0.5),  # one is not enough
    ('kappa shirt iota', 'x', 'x', LONG, 1.0),  # 3 of 12 is above 0.2
    ('a shirt', 'x', 'x', 'red green blue brown shirt', 0.5),  # 1 of 5 is not
    ('x', 'x', 'x', 'the of 24', 0.5),  # a title without a noun counts as 0.2
    ('x', 'shirts', 'x', 'the of 24', 1.0),
])
def test_type(name, query, category, title, expected):
  product = dataclasses.replace(SHIRT, name=name, query=query, product_category=category)
  goal = dataclasses.replace(GOAL, name=title)
  assert reward.type_score(product, goal, RULES) == expected
  total = reward.score(product, {}, dataclasses.replace(goal, attributes=('cotton',), options=()),
                       RULES)
  assert total.reward == expected  # attribute and price are right


def test_a_word_that_comes_twice_in_the_goals_title_counts_twice_in_its_length():
  goal = dataclasses.replace(GOAL, name='shirt shirt shirt shirt shirt hat')
  other = dataclasses.replace(SHIRT, query='x', product_category='x')
  assert reward.type_score(other, goal, RULES) == 0.5  # 1 of 6


@pytest.mark.parametrize('own, wanted, told, expected', [
    (('cotton blend',), 'cotton', {}, True),  # the words of one are among the other's
    (('easy to clean',), 'easy clean', {}, True),
    (('short sleeve',), 'loose sleeve', {}, False),
    ((), 'machine wash', {'description': 'Machine Washable.'}, True),  # letter by letter
    ((), 'machine wash', {'features': ('Soft.', 'Machine wash')}, True),
    ((), 'norva', {}, True),  # in its name
    ((), 'machine wash', {'reviews': ('machine wash',), 'category': 'machine wash'}, False),
])
def test_attributes(own, wanted, told, expected):
  product = dataclasses.replace(SHIRT, attributes=own, description='', features=())
  product = dataclasses.replace(product, **told)
  assert score(product, attributes=(wanted,)).attributes == expected


@pytest.mark.parametrize('chosen, wanted, expected', [
    ({'size': 'small', 'color': 'red'}, ('small', 'red'), 2),
    ({'size': 'large'}, ('x-large',), 0),  # sizes must be equal: alike is not enough
    ({'Size': '3 inch (pack of 2)'}, ('3 inch (pack of 1)',), 0),
    ({'style': '3 inch (pack of 2)'}, ('3 inch (pack of 1)',), 1),  # alike
    ({'color': 'dark blue (new)'}, ('light blue',), 1),  # both are blue
    ({'color': 'navy'}, ('blue',), 0),
    ({'color': 'black1901'}, ('black',), 1),
    ({'style': 'cotton'}, ('wool',), 1),  # not what was wanted, but in the title
    ({'style': 'cotton', 'material': 'sleeve'}, ('wool',), 2),
    ({}, ('wool',), 0),
])
def test_options(chosen, wanted, expected):
  assert reward.num_options(SHIRT, chosen, wanted, RULES) == expected


def test_no_more_options_are_met_than_are_wanted():
  chosen = {'style': 'cotton', 'material': 'sleeve'}
  assert score(chosen=chosen, options=('wool',)).options == 1
  assert score(chosen=chosen, options=()) == reward.Score(1.0, 1.0, 2, 0, True)


def test_colours_are_tried_in_their_order_where_words_begin():
  assert RULES.color('red and black') == 'black'
  assert RULES.color('striped') == 'striped' and RULES.color('reddish') == 'red'
  assert RULES.color('10.5') == '10.5'
  assert list(reward.COLORS) == sorted(reward.COLORS)
  assert reward.Rules(colors=('dark',)).color('dark red') == 'dark'


@pytest.mark.parametrize('a, b, expected', [
    ('a b', 'b a', 100), ('cotton', 'soft cotton', 100), ('x', '', 0), ('', '', 0), ('!', '?', 0),
    ('Cotton-Blend', 'cotton blend', 100), ('café', 'caf', 100),
    ('abcdefg', 'abcdefz', 86),  # 12 of 14 letters: 85.7, rounded to above 85
])
def test_likeness(a, b, expected):
  assert reward.similarity(a, b) == expected


WORDS = st.lists(st.sampled_from(['red', 'small', 'cotton', 'shirt', 'mug', 'x-large', '']),
                 max_size=4)


@given(name=WORDS, told=WORDS, chosen=WORDS, attributes=WORDS, options=WORDS,
       limit=st.floats(0, 30))
@settings(max_examples=100, deadline=None)
def test_rewards_are_shares(name, told, chosen, attributes, options, limit):
  product = shop.Product('X1', ' '.join(name), ' '.join(told), price=15.0)
  goal = shop_goals.Goal('A1', 'cotton shirt', 'shirts', 'x › y', tuple(attributes),
                         tuple(options), limit)
  found = reward.score(product, {f'o{i}': value for i, value in enumerate(chosen)}, goal,
                       RULES)
  assert 0 <= found.reward <= 1 and found.type in (0, 0.1, 0.5, 1)


def test_without_rapidfuzz_an_error_says_what_to_install(monkeypatch):
  for name in [name for name in sys.modules if name.split('.')[0] == 'rapidfuzz']:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'rapidfuzz', None)
  with pytest.raises(ImportError, match="pip install 'rapidfuzz"):
    reward.similarity('a', 'b')


def test_words_of_a_title():
  assert reward.title_words('NORVA T-Shirt for Men, 2022 new (pack of 4)') == (
      'norva', 'shirt', 'men', 'pack')


def test_without_spacy_an_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'spacy', None)
  with pytest.raises(ImportError, match='pip install spacy'):
    reward.spacy_nouns('en_core_web_lg')


def test_nouns_by_a_tagger(monkeypatch):
  class Token:
    def __init__(self, text):
      self.text, self.pos_ = text, {'Red': 'ADJ', 'for': 'ADP'}.get(text, 'PROPN')

  spacy = type(sys)('spacy')
  spacy.load = lambda model, exclude: lambda title: map(Token, title.split())
  monkeypatch.setitem(sys.modules, 'spacy', spacy)
  assert reward.spacy_nouns('some')('Red Shirts for Men') == ('shirts', 'men')
