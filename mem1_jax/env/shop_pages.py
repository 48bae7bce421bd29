"""A web shop's pages: what is in view, as text, and where each button leads.

     Page 1 (Total results: 23)                     Norva long sleeve cotton shirt
     [ next >] [ back to search]                    code: A10. Price: $12.99. Rating: 4.5.
     [ A10] Norva long sleeve cotton shirt $12.99   [ description] [ features] [ reviews]
     [ A31] Tilo cotton shirt $19.99                [ < prev] [ back to search] [ buy now]
     …                                              size: [ small] [ medium] [ large], chosen: small
                                                    color: [ red] [ light blue] [ more color]

What stands in brackets is a button, and nothing else is: brackets in what others wrote become
round. A button's name follows a space, so that it is spelled as in a click of an agent. Long
texts and long lists of options are turned over part by part; only names are ever cut. Buttons
that lead on stand first: what does not fit an agent's context is cut at its end.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import textwrap

from mem1_jax.env.shop import Product
from mem1_jax.text import prompts

BUY, BACK, NEXT, PREVIOUS, MORE = 'buy now', 'back to search', 'next >', '< prev', 'more'
TABS = ('description', 'features', 'reviews', 'attributes')
_ROUND = str.maketrans('[]', '()')


@dataclasses.dataclass(frozen=True)
class PageConfig:
  """How much a page shows.

  Attributes:
    products: on a page of results (WebShop: 10).
    max_name_chars: longer names of products, options and values are cut, and counted.
    values: of an option that are in view at a time.
    text_chars: of a description, of features or reviews in view at a time.
    shows_attributes: a button lists what the reward knows of a product (WebShop: no).
  """

  products: int
  max_name_chars: int
  values: int
  text_chars: int
  shows_attributes: bool

  def __post_init__(self):
    for name, least in (('products', 1), ('max_name_chars', 8), ('values', 1), ('text_chars', 20)):
      if getattr(self, name) < least:
        raise ValueError(f'{name}={getattr(self, name)} is below {least}; raise it')


@dataclasses.dataclass(frozen=True)
class View:
  """What a shopper looks at; the first one looks at nothing yet.

  Attributes:
    results: of the last search; None before there was one.
    page: of the results, from 0.
    product: whose page it is; None for results.
    chosen: {option: value}.
    first: {option: which of its values is the first in view}, 0 where it is not in there.
    tab: one of `TABS`, or '' for the product itself.
    part: of that tab's text, from 0.
    is_bought: the product was bought, with what was chosen.
  """

  results: tuple[Product, ...] | None = None
  page: int = 0
  product: Product | None = None
  chosen: Mapping[str, str] = dataclasses.field(default_factory=dict)
  first: Mapping[str, int] = dataclasses.field(default_factory=dict)
  tab: str = ''
  part: int = 0
  is_bought: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
  """A view as the shopper reads it.

  Attributes:
    text: lines, each of which begins with a space.
    buttons: {`button_key` of what stands in brackets: the view that a click leads to}.
    num_cut: names that were cut.
  """

  text: str
  buttons: Mapping[str, View]
  num_cut: int


def button_key(name: str) -> str:
  """A button's name as clicks are compared with it: case, blanks and brackets do not matter."""
  name = ' '.join(name.translate(_ROUND).casefold().split())
  return name.removeprefix('(').removesuffix(')').strip()


def _plain(text: str) -> str:
  """What others wrote, without what could be read as a button or a tag."""
  return prompts.escape(text).translate(_ROUND)


def render(view: View, config: PageConfig) -> Page:
  """The page of a view."""
  page = _Writer(config)
  if view.product is not None and view.tab:
    _text_page(page, view)
  elif view.product is not None:
    _product_page(page, view)
  elif view.results is not None:
    _results_page(page, view)
  else:
    page.line('Nothing is in view: search for products.')
  return Page('\n'.join(page.lines), page.buttons, page.num_cut)


class _Writer:
  """A page being written."""

  def __init__(self, config: PageConfig):
    self.config = config
    self.lines: list[str] = []
    self.buttons: dict[str, View] = {}
    self.num_cut = 0

  def line(self, *parts: str):
    self.lines.append(f' {" ".join(parts)}')

  def name(self, text: str, limit: int = 0) -> str:
    """A name that others chose, without brackets, of `limit` or `max_name_chars` at most."""
    text, limit = _plain(text), limit or self.config.max_name_chars
    if len(text) <= limit:
      return text
    self.num_cut += 1
    return text[:limit - 1].rstrip() + '…'

  def button(self, name: str, view: View, option: str = '') -> str:
    """A button; where the page has one of that name already, it is called after its option, too."""
    number, label = 1, name
    while button_key(label) in self.buttons:
      label = f'{option}: {name}' if number == 1 else f'{option}: {name} ({number})'
      number += 1
    self.buttons[button_key(label)] = view
    return f'[ {label}]'


def _results_page(page: _Writer, view: View):
  size, total = page.config.products, len(view.results)
  page.line(f'Page {view.page + 1} (Total results: {total})')
  moves = []
  if view.page:
    moves.append(page.button(PREVIOUS, View(view.results, view.page - 1)))
  if (view.page + 1) * size < total:
    moves.append(page.button(NEXT, View(view.results, view.page + 1)))
  page.line(*moves, page.button(BACK, View()))
  for product in view.results[view.page * size:(view.page + 1) * size]:
    page.line(page.button(product.asin, View(view.results, view.page, product)),
              page.name(product.name), product.price_tag)


def _product_page(page: _Writer, view: View):
  product = view.product
  # These buttons first: no option of a product can take their names.
  tabs = [tab for tab in TABS if tab != 'attributes' or page.config.shows_attributes]
  fixed = [page.button(tab, dataclasses.replace(view, tab=tab, part=0)) for tab in tabs]
  fixed += [page.button(PREVIOUS, View(view.results, view.page)), page.button(BACK, View()),
            page.button(BUY, dataclasses.replace(view, is_bought=True))]
  page.line(page.name(product.name, page.config.text_chars))
  rating = page.name(product.rating)
  page.line(f'code: {product.asin}. Price: {product.price_tag}. Rating: {rating}.')
  page.line(*fixed)
  for name, values in product.options:
    _option_line(page, view, name, values)


def _option_line(page: _Writer, view: View, name: str, values: tuple[str, ...]):
  """`size: [ small] [ large] [ more size], chosen: small`: some values, and a way to the others."""
  shown, first, size = page.name(name), view.first.get(name, 0), page.config.values
  buttons = [page.button(page.name(value), dataclasses.replace(
      view, chosen={**view.chosen, name: value}), shown) for value in values[first:first + size]]
  if len(values) > size:
    following = first + size if first + size < len(values) else 0
    buttons.append(page.button(f'{MORE} {shown}', dataclasses.replace(
        view, first={**view.first, name: following}), shown))
  line = f'{shown}: {" ".join(buttons)}'
  if name in view.chosen:
    line += f', chosen: {page.name(view.chosen[name])}'
  page.line(line)


@functools.lru_cache(maxsize=256)
def _parts(text: str, size: int) -> tuple[str, ...]:
  """The text in parts of whole words, where they are shorter than a part."""
  return tuple(textwrap.wrap(text, size, break_on_hyphens=False)) or ('None.',)


def _text_page(page: _Writer, view: View):
  product = view.product
  texts: dict[str, Callable[[], str]] = {
      'description': lambda: product.description,
      'features': lambda: ' '.join(f'- {each}' for each in product.features),
      'reviews': lambda: ' '.join(f'- {each}' for each in product.reviews),
      'attributes': lambda: ', '.join(product.attributes),
  }
  parts = _parts(_plain(texts[view.tab]()), page.config.text_chars)
  of = f' ({view.part + 1} of {len(parts)})' if len(parts) > 1 else ''
  page.line(f'{view.tab}{of} of {page.name(product.name)}')
  moves = []
  if view.part + 1 < len(parts):
    moves.append(page.button(MORE, dataclasses.replace(view, part=view.part + 1)))
  page.line(*moves, page.button(PREVIOUS, dataclasses.replace(view, tab='', part=0)),
            page.button(BACK, View()))
  page.line(parts[view.part])
