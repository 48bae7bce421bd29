"""A shop of a dozen products, made by hand."""

import functools

from mem1_jax import types
from mem1_jax.env import shop, shop_goals, shop_pages, shop_reward, webshop
from mem1_jax.retrieval.bm25 import BM25Retriever

SHIRT = shop.Product(
    'A10', 'Norva long sleeve cotton shirt', 'For work.', ('Long sleeve.', 'Cotton.'), 'shirts',
    'fashion', 'Clothing › Tops › Shirts', ('long sleeve', 'cotton'),
    (('size', ('small', 'medium', 'large')), ('color', ('red', 'light blue', 'black'))), 12.99,
    '$12.99', '4.5', ('5 Lovely: Again.', '3 So so: Hm.'))
MUG = shop.Product(
    'V13', 'Wick leak proof steel mug', 'For hot drinks.', ('Leak proof.',), 'mugs', 'garden',
    'Kitchen › Drinking › Mugs', ('leak proof', 'steel'), (), 20.0, '$20.0')
SHIRTS = tuple(shop.Product(
    f'B{number}', f'Tilo plain shirt {number}', '', (), 'shirts', 'fashion',
    'Clothing › Tops › Shirts', ('plain',), (), 9.0 + number, f'${9.0 + number}')
    for number in range(10, 20))
PRODUCTS = (SHIRT, MUG, *SHIRTS)
GOAL = shop_goals.Goal('A10', SHIRT.name, 'shirts', SHIRT.product_category,
                       ('long sleeve', 'cotton'), ('red', 'small'), 20.0)
TEXT = 'Find me long sleeve, cotton shirts with color: red, and size: small, and price lower than' \
       ' 20.00 dollars'
PAGES = dict(products=4, max_name_chars=40, values=5, text_chars=60, shows_attributes=False)


def pages(**changes) -> shop_pages.PageConfig:
  return shop_pages.PageConfig(**PAGES | changes)


def task(goal=GOAL, text=TEXT, number=0) -> types.Task:
  question = types.Question(f'webshop/{goal.asin}/{number}', text, (goal.asin,),
                            2 + len(goal.options), domain='webshop', goal=goal)
  return types.Task(f'g{number}', (question,), ('[kf]',), 'test')


@functools.cache
def retriever(products=PRODUCTS):
  return BM25Retriever(webshop.passages(products), k1=1.2, b=0.75, title_weight=1)


def environment(goods=PRODUCTS, max_turns=10, max_results=50, **changes):
  config = webshop.WebShopConfig(pages(**changes), max_results, None, max_turns)
  return webshop.WebShopEnvironment(goods, retriever(goods), config,
                                    shop_reward.Rules())


def act(kind: str, text: str) -> types.Action:
  return types.Action(types.ActionKind(kind), text)
