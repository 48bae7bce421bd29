"""WebShop's reward of a purchase, in [0, 1] (https://arxiv.org/abs/2207.01206, section 3).

    reward = type · (attributes met + options met + price met) / (attributes + options + 1)

    type        1; 0.5 where neither the query, nor two categories, nor more than 0.2 of the title
                agree; 0.1 where less than 0.1 of the title does, and 0 where none of it does
    attributes  like one of the product's own (above 85 of 100 by token_set_ratio), or else word
                for word in its title, features or description
    options     chosen ones that are like a wanted one: equal for sizes, above 85 otherwise, both
                reduced to their colour where they name one; or else found in the product's texts
    price       1 if it is at most the limit

as the official code computes it (https://github.com/princeton-nlp/WebShop,
web_agent_site/engine/goal.py), with three exceptions. There an option that is found in a text
counts even where fewer are wanted, which lifts rewards above 1: here no more are met than are
wanted. There the share of a title is that of the goal's nouns, tagged by spaCy's en_core_web_lg:
`spacy_nouns` does that where spaCy is installed, `title_words` takes all words but those that
are hardly ever nouns, and comes to the same type for 96 of 100 pairs of 999 real products, 93 of
those that one query finds (against spaCy's small model, benchmarks/webshop.py). And there colours
are of another list, and found even within words.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import re
from types import ModuleType

from mem1_jax.env.shop import Product
from mem1_jax.env.shop_goals import Goal

Nouns = Callable[[str], tuple[str, ...]]

SIMILAR = 85  # of 100; more is alike
EXACT_OPTIONS = ('size',)
# Colours that options are reduced to, in the order in which they are tried: CSS's basic ones
# (https://www.w3.org/TR/css-color-4/#named-colors) and those of cloth, wood and metal.
COLORS = tuple("""
    apricot aqua azure beige black blue bronze brown burgundy charcoal copper coral cream crimson
    cyan fuchsia gold gray green grey indigo ivory khaki lavender lilac lime magenta maroon mauve
    mint multicolor navy nude olive orange peach pink plum purple red rose salmon silver tan taupe
    teal turquoise violet walnut white wine yellow
""".split())
_NO_NOUNS = frozenset("""
    an the and or nor but if so as at by for from in into of off on onto out over per to under
    up upon via with without within this that these those it its is are be been can may will
    your our my their his her you we one two three not no all any each every other such same
    more most very too also only than then when where while how what which who new best great
    good high low big small large medium long short soft hard easy free full extra ultra super
    available compatible perfect adjustable portable durable comfortable casual breathable made
    make use led pcs pc th
""".split())
_WORD = re.compile(r'[^\W\d_]{2,}')
_LATIN_1 = dict.fromkeys(range(128, 256))  # that thefuzz drops


def title_words(title: str) -> tuple[str, ...]:
  """Words of a title that may be nouns: all but prepositions, adjectives and their like."""
  return tuple(word for word in _WORD.findall(title.lower()) if word not in _NO_NOUNS)


@dataclasses.dataclass(frozen=True)
class Rules:
  """What the reward takes for granted.

  Attributes:
    nouns: a title's nouns, lower case, in order.
    colors: lower case; the first one that begins a word of an option's value stands for it.
  """

  nouns: Nouns = title_words
  colors: tuple[str, ...] = COLORS

  def color(self, value: str) -> str:
    """The first colour in a value, or the value."""
    return next((c for c in self.colors if re.search(rf'\b{re.escape(c)}', value)), value)


@dataclasses.dataclass(frozen=True)
class Score:
  """A purchase's reward and its terms.

  Attributes:
    reward: in [0, 1].
    type: 0, 0.1, 0.5 or 1.
    attributes, options: how many of the wanted ones are met.
    price: whether it is within the limit.
  """

  reward: float
  type: float
  attributes: int
  options: int
  price: bool


def score(product: Product, chosen: Mapping[str, str], goal: Goal, rules: Rules) -> Score:
  """The score of buying `product`.

  Args:
    product: what is bought.
    chosen: {name of the option: value}.
    goal: what was wanted.
    rules: nouns and colours.

  Raises:
    ImportError: rapidfuzz is not installed.
  """
  kind = type_score(product, goal, rules)
  attributes = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
  options = min(num_options(product, chosen, goal.options, rules), len(goal.options))
  price = product.price <= goal.price_upper
  met, wanted = attributes + options + price, len(goal.attributes) + len(goal.options) + 1
  return Score(kind * met / wanted, kind, attributes, options, price)


def type_score(product: Product, goal: Goal, rules: Rules) -> float:
  """Whether it is the kind of thing that was wanted: 0, 0.1, 0.5 or 1."""
  wanted = rules.nouns(goal.name)
  common = len(set(wanted) & set(rules.nouns(product.name)))
  share = common / len(wanted) if wanted else 0.2
  if share < 0.1:
    return 0.1 if share else 0.0
  categories = _categories(product.product_category) & _categories(goal.product_category)
  return 1.0 if product.query == goal.query or len(categories) >= 2 or share > 0.2 else 0.5


def _categories(path: str) -> set[str]:
  return {part.strip() for part in path.split('›')}


def _has_attribute(product: Product, wanted: str) -> bool:
  return any(similarity(own, wanted) > SIMILAR for own in product.attributes) or (
      _is_told(product, wanted))


def _is_told(product: Product, text: str) -> bool:
  """Whether the text stands in the product's title, features or description."""
  told = (product.name, ' '.join(product.features), product.description)
  return any(text in each.lower() for each in told)


def num_options(product: Product, chosen: Mapping[str, str], wanted: tuple[str, ...],
                rules: Rules) -> int:
  """How many of the chosen options count."""
  wanted = tuple(map(rules.color, wanted))
  return sum(_is_wanted(name, value, wanted) or _is_told(product, value)
             for name, value in zip(chosen, map(rules.color, chosen.values())))


def _is_wanted(name: str, value: str, wanted: tuple[str, ...]) -> bool:
  if name.lower() in EXACT_OPTIONS:
    return value in wanted
  return any(similarity(each, value) > SIMILAR for each in wanted)


def similarity(a: str, b: str) -> int:
  """thefuzz's token_set_ratio, 0 to 100: 100 where the words of one are among the other's."""
  rapidfuzz = import_rapidfuzz()
  a, b = (rapidfuzz.utils.default_process(text.translate(_LATIN_1)) for text in (a, b))
  return round(rapidfuzz.fuzz.token_set_ratio(a, b))


def import_rapidfuzz() -> ModuleType:
  """rapidfuzz, which nothing but this reward needs.

  Raises:
    ImportError: it is not installed.
  """
  try:
    import rapidfuzz.fuzz
    import rapidfuzz.utils
  except ImportError as error:
    raise ImportError("WebShop's reward needs rapidfuzz: pip install 'rapidfuzz>=3.9', or the extra"
                      ' mem1_jax[webshop]') from error
  return rapidfuzz


def spacy_nouns(model: str) -> Nouns:
  """title → its nouns and names, as that spaCy model tags them; the paper's is en_core_web_lg.

  Raises:
    ImportError: spaCy or the model is not installed.
  """
  try:
    import spacy
    tagger = spacy.load(model, exclude=['ner', 'lemmatizer'])
  except (ImportError, OSError) as error:
    raise ImportError(f"nouns by spaCy's {model} need it: pip install spacy, then python -m spacy"
                      f' download {model}; or take the words of titles') from error

  @functools.lru_cache(maxsize=65536)
  def nouns(title: str) -> tuple[str, ...]:
    return tuple(token.text.lower() for token in tagger(title) if token.pos_ in ('NOUN', 'PROPN'))
  return nouns
