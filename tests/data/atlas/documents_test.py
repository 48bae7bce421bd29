"""Documents: the same words for the same entity, every fact literally in them."""

import collections

from mem1_jax.data.atlas import documents
from mem1_jax.types import value_in

OSLO = {'kind': 'city', 'name': 'Oslo', 'facts': {
    'country': ['Norway'], 'population': ['580 thousand'], 'airport': ['Gardermoen Airport']}}


def test_a_document_holds_every_fact_and_not_its_title():
  passage = documents.render(OSLO)
  assert passage.title == 'Oslo' and passage == documents.render(OSLO)
  for relation, (value,) in OSLO['facts'].items():
    assert value_in(passage.text, relation) == value
  assert 'Oslo' not in passage.text


def test_wordings_and_orders_vary_with_the_name():
  texts = collections.Counter(
      documents.render(OSLO | {'name': f'City {chr(65 + i)}'}).text for i in range(26))
  assert len(texts) > 10


def test_draw_is_a_fixed_function_of_its_key():
  draws = [documents.draw(f'key/{i}', 7) for i in range(200)]
  assert set(draws) == set(range(7)) and draws[:3] == [documents.draw(f'key/{i}', 7)
                                                       for i in range(3)]
