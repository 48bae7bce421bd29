"""A scripted expert that knows which product a WebShop goal was made from.

It acts on nothing but the text of pages: it searches with words of the instruction, turns the
pages of results until the product's code is there, chooses the options that are in view, and
buys. Its trajectories train agents (sft.py); what it writes in a turn:

    constant memory   <think>*>[kf] A07, red: small, buy @</think><click> small</click>
    full context      the same, without `*>[kf]`

Before the colon stands what has been done (the product, the options chosen, searches that did not
find it), behind it what is left to do, the first of which the action does. What is wanted is not
noted: the instruction stays in view. Where turns run short it takes the product in view that
shares most words with what is wanted.
"""

from collections.abc import Iterator
import dataclasses
import math
import re
from typing import Any

import numpy as np

from mem1_jax.agents import play as play_lib
from mem1_jax.agents.agent import Agent
from mem1_jax.agents.play import ExpertError, Garble, Mistake
from mem1_jax.text.prompts import escape
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Action, ActionKind, Task, Trajectory, so_far

_BUTTON = re.compile(r'\[ ([^\]]*)\]')
_RESULTS = re.compile(r'^ Page \d+ \(Total results: ', re.MULTILINE)
_RESULT = re.compile(r'^ \[ (\w+)\] (.*)$', re.MULTILINE)
_CODE = re.compile(r'^ code: (\w+)\. Price: ', re.MULTILINE)
_CHOSEN = re.compile(r', chosen: (.*)$', re.MULTILINE)
_TURNS_LEFT = re.compile(r' Turns left: (\d+)\.')
_PRICE_LIMIT = re.compile(r',? and price (?:lower|less) than .*')
# Words of an instruction that say nothing about the product.
_EMPTY = frozenset("""
    a all am an and any are as at be but buy by can color dollars find flavor for from get give
    have i if in interested is it item like look looking lower make me my need of on one or please
    preferably price product scent should show size some style than that the there these they
    thing this those to type want which will with would you your
""".split())


class _Shopper:
  """One goal: what is wanted, and the page in view."""

  def __init__(self, task: Task, has_memory: bool):
    question = task.questions[0]
    if question.goal is None:
      raise ExpertError(f'question {question.id!r} has no goal for an expert to pursue')
    self._goal, self._label, self._has_memory = question.goal, task.labels[0], has_memory
    self._text = question.text.lower()
    wanted = [self._goal.query, *self._goal.attributes, *self._goal.options]
    self._wanted = set(_plain(' '.join(wanted)).split())
    self._queries = list(map(escape, _queries(question.text, self._goal)))
    self._failed: list[str] = []  # searches that did not find it
    self._product = self._goal.asin  # to buy
    self._turned: set[tuple[str, ...]] = set()  # pages whose options were turned over
    self._page, self._turns_left = '', math.inf

  def read(self, action: Action, information: str):
    """Takes the page that an action led to; after a malformed one the page is as it was."""
    left = _TURNS_LEFT.match(information)
    self._turns_left = int(left[1]) if left else 1
    if action.kind is not ActionKind.MALFORMED:
      self._page = information

  def write(self, is_last_turn: bool, mistake: Mistake) -> tuple[str, bool]:
    kind, text = self._action()
    steps = self._steps(kind, text)
    mistaken = None if is_last_turn or text == 'buy now' else mistake(text)
    head = f'{so_far(())}{self._label}' * self._has_memory
    return (f'<think>{head} {steps} @</think><{kind}> {mistaken or text}</{kind}>',
            bool(mistaken))

  def _action(self) -> tuple[str, str]:
    """What to do now: ('search', words) or ('click', button)."""
    buttons = _BUTTON.findall(self._page)
    if 'buy now' in buttons:
      return 'click', self._on_product(buttons)
    results = _RESULT.findall(self._page) if _RESULTS.search(self._page) else []
    if any(code == self._product for code, _ in results):
      return 'click', self._product
    if results and self._turns_left < 3 + len(self._goal.options):  # no turn to look further
      return 'click', self._settled(results)
    if 'next >' in buttons:
      return 'click', 'next >'
    if '< prev' in buttons and not results:  # a description, or its like
      return 'click', '< prev'
    if self._page and 'back to search' in buttons and len(self._queries) > 1:
      self._failed.append(self._queries.pop(0))
    elif results and self._failed:
      return 'click', self._settled(results)
    return 'search', self._queries[0]

  def _settled(self, results: list[tuple[str, str]]) -> str:
    """The product in view that shares most words with what is wanted, the first of equals."""
    self._product = max(results, key=lambda r: len(self._wanted & set(_plain(r[1]).split())))[0]
    return self._product

  def _on_product(self, buttons: list[str]) -> str:
    code = _CODE.search(self._page)
    if code and code[1] != self._product and self._turns_left > 2:
      return '< prev'
    for option in self._open_options():
      if self._turns_left == 1:
        break
      named = _named(option, buttons)
      if named:
        return named
      for more in self._ways_to(option):
        if (more, *buttons) not in self._turned:
          self._turned.add((more, *buttons))
          return more
    return 'buy now'

  def _ways_to(self, option: str) -> list[str]:
    """Buttons that show more values, of the kind first that the instruction names with it."""
    lines = [line for line in self._page.split('\n') if not _CHOSEN.search(line)]
    more = [button for button in _BUTTON.findall('\n'.join(lines)) if button.startswith('more ')]
    return sorted(more, key=lambda b: f'{b.removeprefix("more ")}: {option}' not in self._text)

  def _open_options(self) -> list[str]:
    """Options that are wanted and not chosen yet."""
    chosen = _CHOSEN.findall(self._page)
    return [option for option in self._goal.options if not _named(option, chosen)]

  def _steps(self, kind: str, text: str) -> str:
    """What has been done and what is left: `A07, red: small, buy`."""
    is_open = bool(_CODE.search(self._page)) and text != '< prev'
    left = self._open_options() if is_open else list(self._goal.options)
    done = [f'not {query}' for query in self._failed]
    if is_open:
      done = [self._product, *(option for option in self._goal.options if option not in left)]
    else:
      left = ['search'] * (kind == 'search') + ['open', *left]
    left = ', '.join([*left, 'buy'])
    return escape(f'{", ".join(done)}: {left}' if done else left)


def _queries(text: str, goal: Any) -> Iterator[str]:
  """Words of the instruction; then what kind of thing it is and its attributes."""
  words = [word.strip('.,;:!?()"') for word in _PRICE_LIMIT.sub('', text).split()]
  yield ' '.join(word for word in words if word and word.lower() not in _EMPTY)
  yield ' '.join([goal.query, *goal.attributes])


def _plain(text: str) -> str:
  return ' '.join(re.findall(r'\w+', text.lower()))


def _named(option: str, names: list[str]) -> str | None:
  """The name that means the option; `color: red` and a name that was cut may do so."""
  for alike in (lambda name: name.partition(': ')[2].lower() == option.lower(),
                lambda name: name.lower() == option.lower(),
                lambda name: _plain(name) == _plain(option),
                lambda name: name.endswith('…') and _plain(option).startswith(_plain(name))):
    for name in names:
      if name and alike(name):
        return name
  return None


def hasty(task: Task) -> Task:
  """The same to read, but whoever pursues its goal chooses no options. Tasks of questions stay."""
  return dataclasses.replace(task, questions=tuple(
      dataclasses.replace(q, goal=q.goal and dataclasses.replace(q.goal, options=()))
      for q in task.questions))


def play(task: Task, agent: Agent, episode: Any, tokenizer: Tokenizer,
         rng: np.random.Generator | None, mistake: Mistake = lambda text: None,
         garble: Garble = lambda text: None) -> Trajectory:
  """The expert's trajectory of one shopping goal (agents/play.py).

  `mistake` gives what a turn searches for or clicks on instead of this text, or None.

  Raises:
    ExpertError: when the task's question has no goal.
  """
  script = _Shopper(task, not agent.is_append_only)
  return play_lib.play(script, task, agent, episode, tokenizer, rng, mistake, garble)
