"""Pages: literal ones, where buttons lead, and names that try to look like something else."""

import dataclasses
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax.env import shop, shop_pages
from mem1_jax.env.shop_pages import View, button_key, render
from tests.env.small_shop import MUG, PRODUCTS, SHIRT, pages

BRACKETS = re.compile(r'\[ ([^\[\]]*)\]')


def show(view, **changes):
  return render(view, pages(**changes))


def click(page, name):
  return page.buttons[button_key(name)]


def test_before_a_search():
  page = show(View())
  assert page == shop_pages.Page(' Nothing is in view: search for products.', {}, 0)


def test_results():
  page = show(View(PRODUCTS[:6]))
  assert page.text == (' Page 1 (Total results: 6)\n'
                       ' [ next >] [ back to search]\n'
                       ' [ A10] Norva long sleeve cotton shirt $12.99\n'
                       ' [ V13] Wick leak proof steel mug $20.0\n'
                       ' [ B10] Tilo plain shirt 10 $19.0\n'
                       ' [ B11] Tilo plain shirt 11 $20.0')
  following = click(page, 'next >')
  assert following == View(PRODUCTS[:6], 1)
  assert show(following).text == (' Page 2 (Total results: 6)\n'
                                  ' [ < prev] [ back to search]\n'
                                  ' [ B12] Tilo plain shirt 12 $21.0\n'
                                  ' [ B13] Tilo plain shirt 13 $22.0')
  assert click(show(following), '< prev') == View(PRODUCTS[:6], 0)
  assert click(show(following), 'b12') == View(PRODUCTS[:6], 1, PRODUCTS[4])
  assert click(page, 'Back  to search') == View()
  assert show(View(())).text == ' Page 1 (Total results: 0)\n [ back to search]'
  assert ' [ next >]' not in show(View(PRODUCTS[:4])).text


def test_a_product():
  view = View(PRODUCTS[:6], 1, SHIRT)
  page = show(view)
  assert page.text == (
      ' Norva long sleeve cotton shirt\n'
      ' code: A10. Price: $12.99. Rating: 4.5.\n'
      ' [ description] [ features] [ reviews] [ < prev] [ back to search] [ buy now]\n'
      ' size: [ small] [ medium] [ large]\n'
      ' color: [ red] [ light blue] [ black]')
  assert click(page, '< prev') == View(PRODUCTS[:6], 1)  # what was chosen is forgotten there
  assert click(page, 'buy now') == dataclasses.replace(view, is_bought=True)
  chosen = click(show(click(page, 'red')), 'small')
  assert chosen.chosen == {'color': 'red', 'size': 'small'} and view.chosen == {}
  text = show(chosen).text
  assert text.endswith(' size: [ small] [ medium] [ large], chosen: small\n'
                       ' color: [ red] [ light blue] [ black], chosen: red')
  assert click(show(chosen), 'black').chosen == {'color': 'black', 'size': 'small'}
  assert ' [ reviews] [ attributes] [ < prev]' in show(view, shows_attributes=True).text
  assert show(View(None, 0, MUG)).text.count('\n') == 2


@pytest.mark.parametrize('tab, text', [
    ('description', 'For work.'), ('features', '- Long sleeve. - Cotton.'),
    ('reviews', '- 5 Lovely: Again. - 3 So so: Hm.'), ('attributes', 'long sleeve, cotton'),
])
def test_what_is_said_of_a_product(tab, text):
  view = View(PRODUCTS, 2, SHIRT, {'color': 'red'}, {'size': 0})
  page = show(click(show(view, shows_attributes=True), tab))
  assert page.text == (f' {tab} of Norva long sleeve cotton shirt\n'
                       f' [ < prev] [ back to search]\n {text}')
  assert click(page, '< prev') == view  # options stay chosen


def test_nothing_said():
  page = show(View((), 0, MUG, tab='reviews'))
  assert page.text.endswith(' [ back to search]\n None.')


def test_a_long_text_is_turned_over_part_by_part():
  words = [f'w{i}' for i in range(60)]
  product = dataclasses.replace(SHIRT, description=' '.join(words))
  view, read = View((), 0, product, tab='description'), []
  while True:
    page = show(view)
    head, moves, body = page.text.split('\n')
    read += body.split()
    assert len(body) <= 61
    if 'more' not in page.buttons:
      break
    view = click(page, 'more')
  assert read == words
  assert head == ' description (4 of 4) of Norva long sleeve cotton shirt'
  assert moves == ' [ < prev] [ back to search]'
  assert click(page, '< prev').part == 0


def test_many_values_are_turned_over_and_come_round():
  product = dataclasses.replace(SHIRT, options=(('size', tuple(map(str, range(12)))),
                                                ('color', ('red',))))
  view, seen = View((), 0, product, {'color': 'red'}), []
  for _ in range(3):
    page = show(view)
    line = page.text.split('\n')[3]
    seen += BRACKETS.findall(line)[:-1]
    assert line.endswith('[ more size]')
    view = click(page, 'more size')
    assert view.chosen == {'color': 'red'}
  assert seen == list(map(str, range(12)))
  assert show(view).text == show(View((), 0, product, {'color': 'red'})).text
  assert '7' not in show(view).buttons  # only what is in view can be clicked


def test_names_that_collide_stay_apart():
  product = dataclasses.replace(SHIRT, options=(
      ('size', ('red', 'buy now', 'Reviews')), ('color', ('red', '(red)', '[red]'))))
  page = show(View((), 0, product))
  assert page.text.split('\n')[3:5] == [
      ' size: [ red] [ size: buy now] [ size: Reviews]',
      ' color: [ color: red] [ color: (red)] [ color: (red) (2)]']
  assert click(page, 'red').chosen == {'size': 'red'}
  assert click(page, 'color: red').chosen == {'color': 'red'}
  assert click(page, 'buy now').is_bought and click(page, 'reviews').tab == 'reviews'
  assert click(page, 'size: buy now').chosen == {'size': 'buy now'}


def test_long_names_are_cut_and_counted():
  product = dataclasses.replace(SHIRT, name='long ' * 30, options=(('o' * 50, ('v' * 50, 'w')),))
  page = show(View((), 0, product))
  name = ('long ' * 30)[:59].rstrip()
  assert page.text.split('\n')[0] == f' {name}…'
  assert f' {"o" * 39}…: [ {"v" * 39}…] [ w]' in page.text
  assert page.num_cut == 3
  assert click(page, 'v' * 39 + '…').chosen == {'o' * 50: 'v' * 50}
  assert show(View((product,))).num_cut == 1


def test_how_buttons_are_compared():
  assert button_key('[ Buy  Now ]') == button_key('buy now') == 'buy now'
  assert button_key('< Prev') == '< prev'


@pytest.mark.parametrize('changes', [
    {'products': 0}, {'max_name_chars': 7}, {'values': 0}, {'text_chars': 19}])
def test_bad_sizes(changes):
  with pytest.raises(ValueError, match='below'):
    pages(**changes)


EVIL = st.lists(st.sampled_from([
    '[', ']', '[ buy now]', '(', ')', ' ', 'red', 'buy now', '< prev', 'next >', 'more', '…', ': ',
    'chosen: red', 'x' * 70, '[[]]',
]) | st.text(max_size=3), max_size=6).map(lambda parts: shop.clean(''.join(parts)))


@given(names=st.lists(EVIL, min_size=3, max_size=3), values=st.lists(EVIL, min_size=1, max_size=12),
       path=st.lists(st.integers(0, 50), max_size=6))
@settings(max_examples=150, deadline=None)
def test_what_stands_in_brackets_is_what_can_be_clicked(names, values, path):
  """However products are named, and wherever one goes."""
  product = shop.Product('X1', names[0] or 'x', names[1], tuple(values), reviews=tuple(values),
                         attributes=tuple(values), rating=names[2],
                         options=((names[1], tuple(values)), (names[2], tuple(values))))
  view = View((product, SHIRT, MUG))
  for step in [0, *path]:
    page = show(view, products=2)
    named = list(map(button_key, BRACKETS.findall(page.text)))
    assert sorted(named) == sorted(page.buttons)
    assert page.text.count('[') == page.text.count(']') == len(named)
    assert len(page.text) < 3000
    assert all(line.startswith(' ') for line in page.text.split('\n'))
    view = list(page.buttons.values())[step % len(page.buttons)] if page.buttons else view
    if view.is_bought:
      break
