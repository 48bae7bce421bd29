"""The builder's own ranking: which titles a search cannot tell apart."""

from mem1_jax import types
from mem1_jax.data.atlas import rank


def test_a_title_that_another_document_wins_is_found():
  passages = [types.Passage('Mexico', 'A country in North America with a long text about it.'),
              types.Passage('Mexico Mexico', 'Mexico.'), types.Passage('Oslo', 'A city.')]
  assert rank.not_first(passages) == ['Mexico']
