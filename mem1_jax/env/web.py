"""Multi-objective question answering over the web: search, open pages, answer.

     Turns left: 6.                                          Turns left: 5.
     [ 1] Oslo (en.wikipedia.org/wiki/Oslo): Oslo is …       [ more] [ back] Oslo (en.wikipedia.org/
     [ 2] Visit Oslo (visitoslo.com): Your …                 wiki/Oslo), part 1 of 3: Oslo is the …

A search is answered with results; a click on a number or an address in view with that page,
part by part. The rest is as in env/qa.py: the answer ends the episode with its exact matches as
reward, an empty budget with 0. What stands in brackets is a button, and nothing else is: brackets
in what others wrote become round. A click on what is not in view is told to be invalid. A page
that cannot be read, and a search or a page that cannot be had now, are told from each other and
from an empty result. All cost a turn.
"""

from collections.abc import Sequence
import dataclasses

from mem1_jax import retrieval
from mem1_jax import types
from mem1_jax.env import environment
from mem1_jax.env import qa
from mem1_jax.env import rewards
from mem1_jax.env.shop_pages import button_key
from mem1_jax.retrieval import tally
from mem1_jax.text import prompts

MORE, BACK = 'more', 'back'
NO_BUTTON = 'nothing of this name is in view; click what stands in brackets, or search'
# Results and pages begin with a bracket, so none can say either.
UNREADABLE = ' This page cannot be read; choose another, or search.'
OUTAGE = ' This page is unavailable; try again, choose another, or search.'
_ROUND = str.maketrans('[]', '()')
# Counted; the second were longer than `max_snippet_chars`, the last can never be read.
SHOWN = ('results', 'cut_results', 'pages', 'unreadable_pages')


@dataclasses.dataclass(frozen=True)
class WebConfig:
  """How an episode runs. Exactly one of `slack` and `max_turns` is set.

  Attributes:
    top_k: results of a search (MEM1: 10).
    max_snippet_chars: longer snippets are cut at a word; cuts are counted.
    max_name_chars: of a title, and of an address as it is shown.
    page_chars: of a page in view at a time.
    slack: turns beyond two for each hop, one to search and one to open a page; ≥ 1, since the
      answer takes one.
    max_turns: see `qa.QAConfig`.
  """

  top_k: int
  max_snippet_chars: int
  max_name_chars: int
  page_chars: int
  slack: int | None
  max_turns: int | Sequence[tuple[float, int]] | None

  def __post_init__(self):
    if (self.slack is None) == (self.max_turns is None):
      raise ValueError(f'slack={self.slack} and max_turns={self.max_turns}: set exactly one')
    for name, least in (('top_k', 1), ('max_snippet_chars', 1), ('max_name_chars', 8),
                        ('page_chars', 20), ('slack', 1)):
      value = getattr(self, name)
      if value is not None and value < least:
        raise ValueError(f'{name}={value} is below {least}; raise it')


@dataclasses.dataclass(frozen=True)
class View:
  """What a reader looks at; the first one looks at nothing yet.

  Attributes:
    results: of the last search; None before there was one.
    page: which is open; None for the results.
    part: of its text, from 0.
  """

  results: tuple[types.Passage, ...] | None = None
  page: types.Passage | None = None
  part: int = 0


class WebEpisode:
  """One task in progress; see `env.environment.Episode` for the counters.

  Attributes:
    answer: as it was given; None while there is none.
    score: of the answer; None while there is none.
    view, text, buttons: what is looked at; as it is told; and where each button leads: to a
      view, or to a result's page.
    opened: clicks on results.
    cut_passages: snippets that were longer than `max_snippet_chars`.
    outages: searches and pages that could not be had.
    unreadable: pages that never can.
  """

  def __init__(self, task: types.Task, world: 'WebEnvironment'):
    self.task, self.world = task, world
    self.max_turns = qa.turn_budget(task, world.config, turns_per_hop=2)
    self.turns = self.searches = self.malformed = self.opened = 0
    self.cut_passages = self.outages = self.unreadable = 0
    self.is_done = False
    self.answer: str | None = None
    self.score: rewards.AnswerScore | None = None
    self._show(View())

  def step(self, action: types.Action) -> types.Observation:
    """Does one action. Raises ValueError where the episode is done."""
    return environment.step_many([self], [action])[0]

  def need(self, action: types.Action) -> environment.Need | None:
    world = self.world
    if action.kind == types.ActionKind.SEARCH:
      top_k = world.config.top_k
      return environment.Need(
          (id(world), 'search'), lambda queries: world.retriever.search(queries, top_k), action.text)
    target = self.buttons.get(button_key(action.text))
    if action.kind == types.ActionKind.CLICK and isinstance(target, types.Passage):
      return environment.Need((id(world), 'open'), world.pages.open, target.id)
    return None

  def _show(self, view: View):
    self.view, self.buttons = view, {}
    if view.page is not None:
      self.text = self._page(view)
    else:
      lines = [self._result(i, found) for i, found in enumerate(view.results or (), 1)]
      self.text = '\n'.join(lines) or qa.NOTHING * (view.results is not None)

  def _result(self, number: int, found: types.Passage) -> str:
    text, is_cut = qa.cut(found.text, self.world.config.max_snippet_chars)
    self.cut_passages += is_cut
    self.world.count('results', 1)
    self.world.count('cut_results', is_cut)
    if not found.id:
      return f' - {self._plain(found.title)}: {_round(text)}'
    for name in (str(number), found.id, self._address(found)):
      self.buttons.setdefault(button_key(name), found)
    return f' [ {number}] {self._named(found)}: {_round(text)}'

  def _page(self, view: View) -> str:
    page = view.page
    parts = split(page.text, self.world.config.page_chars)
    if view.part + 1 < len(parts):
      self.buttons[MORE] = dataclasses.replace(view, part=view.part + 1)
    self.buttons[BACK] = View(view.results)
    names = ' '.join(f'[ {name}]' for name in self.buttons)
    which = f', part {view.part + 1} of {len(parts)}' if len(parts) > 1 else ''
    return f' {names} {self._named(page)}{which}: {_round(parts[view.part])}'

  def _named(self, passage: types.Passage) -> str:
    return f'{self._plain(passage.title)} ({self._address(passage)})'

  def _address(self, passage: types.Passage) -> str:
    return self._plain(passage.id.partition('://')[2].removesuffix('/'))

  def _plain(self, name: str) -> str:
    name, most = ' '.join(_round(name).split()), self.world.config.max_name_chars
    return name if len(name) <= most else f'{name[:most - 1]}…'

  def do(self, action: types.Action, found: object) -> types.Observation:
    self.turns += 1
    if action.kind == types.ActionKind.ANSWER:
      self.is_done, self.answer = True, action.text
      self.score = rewards.score_answer(action.text, self.task)
      return types.Observation('', self.score.em, True)
    if action.kind == types.ActionKind.SEARCH:
      text, outage = self._search(found)
    elif action.kind == types.ActionKind.CLICK:
      text, outage = self._click(action.text, found)
    else:  # agents keep the page that they had before
      self.malformed += 1
      text, outage = f' Invalid action: {action.text}.', ''
    if self.turns >= self.max_turns:
      self.is_done = True
      return types.Observation('', 0.0, True)
    text = prompts.information(text, qa.hint(self.max_turns - self.turns))
    return types.Observation(text, 0.0, False, outage)

  def _search(self, found: list[types.Passage] | types.Unavailable | None) -> tuple[str, str]:
    self.searches += 1
    if isinstance(found, types.Unavailable):
      self.outages += 1
      self._show(View())  # the results before it answer another query
      return qa.OUTAGE, _reason(found)
    self._show(View(tuple(found or ())))
    return self.text, ''

  def _click(self, name: str, found: types.Passage | types.Unavailable | None) -> tuple[str, str]:
    target = self.buttons.get(button_key(name))
    if target is None:
      self.malformed += 1
      return f' Invalid action: {NO_BUTTON}.\n{self.text}'.rstrip('\n'), ''
    if isinstance(target, View):
      self._show(target)
      return self.text, ''
    self.opened += 1
    if isinstance(found, types.Unavailable):
      self.outages += not found.is_lasting
      self.unreadable += found.is_lasting
      self.world.count('unreadable_pages', found.is_lasting)
      told, outage = (UNREADABLE, '') if found.is_lasting else (OUTAGE, _reason(found))
      return f'{told}\n{self.text}', outage
    if found is not None:
      self.world.count('pages', 1)
      page = dataclasses.replace(found, title=found.title or target.title, id=target.id)
      self._show(View(self.view.results, page))
    return self.text, ''


def split(text: str, max_chars: int) -> list[str]:
  """The parts of a text on one line, each ended by a sentence or, if that is short, by a word."""
  text, parts = ' '.join(text.split()), []
  while len(text) > max_chars:
    head = text[:max_chars + 1]
    end = head.rfind('. ') + 1
    if 4 * end < max_chars:  # what is short is not worth a turn
      end = head.rfind(' ') if head.rfind(' ') > 0 else max_chars
    parts.append(text[:end])
    text = text[end:].lstrip()
  return parts + [text]


def _round(text: str) -> str:
  """What others wrote, without what could be read as a button or a tag."""
  return prompts.escape(text).translate(_ROUND)


def _reason(outage: types.Unavailable) -> str:
  return outage.reason or 'no reason is given'


class WebEnvironment:
  """Starts `WebEpisode`s over one web (`env.environment.Environment`)."""

  def __init__(self, retriever: retrieval.Retriever, pages: retrieval.Pages, config: WebConfig):
    """Opens the web.

    Args:
      retriever: whose passages have their URL as `id`; what has none cannot be opened.
      pages: at those URLs.
      config: of episodes.
    """
    self.retriever, self.pages, self.config = retriever, pages, config
    self._shown = tally.Tally('shown', SHOWN, SHOWN)
    self.count = self._shown.count

  def start(self, task: types.Task) -> WebEpisode:
    return WebEpisode(task, self)

  def metrics(self) -> dict[str, int]:
    """See `retrieval.protocol.Counted`: `shown_results`, …, and what search and pages count."""
    return retrieval.metrics_of(self._shown, self.retriever, self.pages)
