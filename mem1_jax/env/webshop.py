"""WebShop as text: search, look, choose, buy (https://arxiv.org/abs/2207.01206).

A search, from any page, is answered with a page of results; a click with the page that the
button leads to (env/shop_pages.py), all headed by the turns that are left. `buy now` ends the
episode with the reward of the purchase (env/shop_reward.py); so does an empty budget, with 0.
What cannot be done is answered with what was wrong and costs a turn: a click on what is not
there, with the page again; an `<answer>`, which might mean any page's product, likewise.
"""

from collections.abc import Sequence
import dataclasses

from mem1_jax import retrieval
from mem1_jax import types
from mem1_jax.env import environment
from mem1_jax.env import shop_pages
from mem1_jax.env import shop_reward
from mem1_jax.env.qa import turn_budget
from mem1_jax.env.shop import Product
from mem1_jax.env.shop_goals import Goal
from mem1_jax.retrieval import tally
from mem1_jax.text import prompts

NO_BUTTON = 'no such button is on this page; buttons stand in brackets'
SHOWN = ('pages', 'cut_names')  # counted; names that were too long for the pages shown
NO_ANSWER = f'there is nothing to answer here; buy a product by a click on {shop_pages.BUY}'


@dataclasses.dataclass(frozen=True)
class WebShopConfig:
  """How an episode runs. Exactly one of `slack` and `max_turns` is set.

  Attributes:
    pages: how much a page shows.
    max_results: products of a search that can be turned to (WebShop: 50).
    slack: turns beyond one to search, one to open the product and one for each option; ≥ 1,
      since buying takes one.
    max_turns: turns whatever the goal (MEM1: 10).
  """

  pages: shop_pages.PageConfig
  max_results: int
  slack: int | None
  max_turns: int | None

  def __post_init__(self):
    if (self.slack is None) == (self.max_turns is None):
      raise ValueError(f'slack={self.slack} and max_turns={self.max_turns}: set exactly one')
    for name in ('max_results', 'slack', 'max_turns'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name}={value} is below 1; raise it')


def passages(products: Sequence[Product]) -> list[types.Passage]:
  """What a retriever for these products is to index: all that is said of each but reviews."""
  return [types.Passage(product.name, _indexed(product)) for product in products]


def _indexed(product: Product) -> str:
  options = (f'{name}: {", ".join(values)}' for name, values in product.options)
  # With its code no two are alike: that is how a passage leads back to its product.
  return ' '.join([*product.features, product.description, product.query, product.category,
                   product.product_category, *options, product.asin])


class WebShopEpisode:
  """One goal in progress; see `env.environment.Episode` for the counters.

  Attributes:
    view, page: what is looked at, and what of it is in view.
    score: of the purchase; None while there is none.
    cut_names: names that were too long for the pages shown.
  """

  def __init__(self, task: types.Task, world: 'WebShopEnvironment'):
    self.task, self.world = task, world
    self.goal = _goal(task)
    self.max_turns = turn_budget(task, world.config)
    self.turns = self.searches = self.malformed = self.cut_names = 0
    self.is_done = False
    self.answer: str | None = None
    self.score: shop_reward.Score | None = None
    self._show(shop_pages.View())

  def step(self, action: types.Action) -> types.Observation:
    """Does one action. Raises ValueError where the episode is done."""
    return environment.step_many([self], [action])[0]

  def _show(self, view: shop_pages.View):
    self.view, self.page = view, shop_pages.render(view, self.world.config.pages)
    self.cut_names += self.page.num_cut
    self.world.count('pages', 1)
    self.world.count('cut_names', self.page.num_cut)

  def need(self, action: types.Action) -> environment.Need | None:
    if action.kind != types.ActionKind.SEARCH:
      return None
    return environment.Need(id(self.world), self.world.search, action.text)

  def do(self, action: types.Action, found: tuple[Product, ...] | None) -> types.Observation:
    self.turns += 1
    wrong = ''
    if action.kind == types.ActionKind.SEARCH:
      self.searches += 1
      self._show(shop_pages.View(results=found or ()))
    elif action.kind == types.ActionKind.CLICK:
      view = self.page.buttons.get(shop_pages.button_key(action.text))
      if view is None:
        wrong = NO_BUTTON
      elif view.is_bought:
        return self._buy(view)
      else:
        self._show(view)
    else:
      wrong = NO_ANSWER if action.kind == types.ActionKind.ANSWER else action.text
    self.malformed += bool(wrong)
    if self.turns >= self.max_turns:
      self.is_done = True
      return types.Observation('', 0.0, True)
    text = prompts.information(self._text(action, wrong), self.hint())
    return types.Observation(text, 0.0, False)

  def _buy(self, view: shop_pages.View) -> types.Observation:
    self.score = shop_reward.score(view.product, view.chosen, self.goal, self.world.rules)
    self.is_done, self.answer = True, view.product.asin
    return types.Observation('', self.score.reward, True)

  def _text(self, action: types.Action, wrong: str) -> str:
    if action.kind == types.ActionKind.MALFORMED:  # agents keep the page that they had before
      return f' Invalid action: {wrong}.'
    return f' Invalid action: {wrong}.\n{self.page.text}' if wrong else self.page.text

  def hint(self) -> str:
    """What heads an information block: the turns left, or that this is the last."""
    left = self.max_turns - self.turns
    return f' Turns left: {left}.' if left > 1 else ' Last turn: buy now.'


def _goal(task: types.Task) -> Goal:
  """The task's one goal. Raises ValueError where it is not exactly one."""
  if len(task.questions) != 1:
    raise ValueError(f'task {task.id!r} has {len(task.questions)} goals; WebShop takes one at a'
                     ' time: compose tasks of 1 question')
  goal = task.questions[0].goal
  if not isinstance(goal, Goal):
    raise ValueError(f'question {task.questions[0].id!r} has no shopping goal; take questions of'
                     ' shop_goals.make_goals')
  return goal


class WebShopEnvironment:
  """Starts `WebShopEpisode`s in one shop (`env.environment.Environment`); they share no state."""

  def __init__(self, products: Sequence[Product], retriever: retrieval.Retriever,
               config: WebShopConfig, rules: shop_reward.Rules):
    """Opens the shop.

    Args:
      products: on sale.
      retriever: over `passages(products)`.
      config: of episodes.
      rules: of the reward; with the nouns of `spacy_nouns` as the paper has it.

    Raises:
      ImportError: rapidfuzz is not installed.
    """
    shop_reward.import_rapidfuzz()  # now, not at the first purchase
    self.retriever, self.config, self.rules = retriever, config, rules
    self._shown = tally.Tally('shown', SHOWN, SHOWN)
    self.count = self._shown.count
    self._product_of = {_indexed(product): product for product in products}

  def start(self, task: types.Task) -> WebShopEpisode:
    """A fresh episode. Raises ValueError for a task that is not one shopping goal."""
    return WebShopEpisode(task, self)

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `shown_pages`, …, and what the retriever counts."""
    return retrieval.metrics_of(self._shown, self.retriever)

  def search(self, queries: Sequence[str]) -> list[tuple[Product, ...]]:
    """The products that each query finds, the best first."""
    return [tuple(self._product_of[passage.text] for passage in found)
            for found in self.retriever.search(queries, self.config.max_results)]
