"""The domains: the tasks that a config asks for, the world they are done in, and who shows how.

    domain    tasks                                    world
    qa        composed questions of `data.source`      a search engine (env/qa.py)
    web       the same                                 a search engine and pages (env/web.py)
    webshop   shopping goals of `config.shop`          a shop of its products (env/webshop.py)
"""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from mem1_jax import search
from mem1_jax.agents import expert, web_expert, webshop_expert
from mem1_jax.data import chains, ready, rows, sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.compose import Composer
from mem1_jax.data.fiction import World, Worlds, word_pieces
from mem1_jax.data.mixture import Mixture, TaskSource
from mem1_jax.data.rewording import some_reworded
from mem1_jax.data.schedule import Stage
from mem1_jax.env import shop, shop_goals, shop_reward, webshop
from mem1_jax.env.environment import Environment
from mem1_jax.env.qa import PAPER_TURNS, QAConfig, QAEnvironment
from mem1_jax.env.shop_pages import PageConfig
from mem1_jax.env.web import WebConfig, WebEnvironment
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Passage, Question

_HOPS = 2  # of a question, at most, where a budget is reckoned before any is read


def check(config: Any):
  """Raises ValueError for a domain that there is not."""
  if config.domain not in EXPERTS:
    raise ValueError(f'domain {config.domain!r} is unknown; choose one of {sorted(EXPERTS)}.')


# What is the same in all domains.


def fewest_most(config: Any) -> tuple[int, int]:
  """How many questions a training task has, over all stages of a curriculum."""
  stages = config.data.curriculum
  if _is_ready(config):
    return ready.sizes(_specs(config), config.data.split)
  numbers = [n for _, *some in stages for n in some] if stages else config.data.objectives
  return min(numbers), max(numbers)


def validated(config: Any) -> int:
  """How many questions a task has that validates a training run."""
  return max(config.data.objectives or fewest_most(config))


def max_turns(config: Any) -> int:
  """The most turns that a training task may get, where each of its questions takes two hops."""
  limit, (_, objectives) = _max_turns(config.env.turns), fewest_most(config)
  if limit is None:
    turns_per_hop = 2 if config.domain == 'web' else 1  # a search, and a page
    return turns_per_hop * _HOPS * objectives + config.env.slack
  if isinstance(limit, int):
    return limit
  return next(turns for most, turns in limit if objectives <= most)


def _max_turns(turns: str) -> int | tuple | None:
  if turns in ('slack', 'paper'):
    return PAPER_TURNS if turns == 'paper' else None
  if not turns.isdigit():
    raise ValueError(f'env.turns {turns!r} is unknown; choose slack, paper or a number.')
  return int(turns)


def make_environment(config: Any, documents: Sequence[Passage] | None = None) -> Environment:
  """The world of the domain; of questions, over these documents where some are given."""
  check(config)
  e, limit = config.env, _max_turns(config.env.turns)
  slack = e.slack if limit is None else None
  if config.domain == 'webshop':
    return _make_shop(config, slack, limit)
  if config.domain == 'web':
    return _make_web(config, documents, slack, limit)
  if documents is None and not e.retriever and e.documents in ('', 'atlas'):
    documents = _documents(config)
  return QAEnvironment(search.make_retriever(config, documents), QAConfig(
      top_k=e.top_k, max_passage_chars=e.max_passage_chars, slack=slack, max_turns=limit))


def make_composer(config: Any, split: str, objectives: int | tuple[int, ...]) -> TaskSource:
  """Tasks of `objectives` questions (a number, or fewest and most) over one split."""
  check(config)
  if not isinstance(objectives, int):
    objectives = (min(objectives), max(objectives))
  if config.domain == 'webshop':
    return _shop_tasks(config, split, objectives)
  return _mixed(config, split, objectives, lambda spec: _questions(config, spec, split))


def make_training_composer(config: Any, world: World | None = None) -> TaskSource:
  """Tasks to train on, in that world or `data.split`: a share of the atlas's in random words."""
  check(config)
  split, stages = config.data.split, config.data.curriculum
  objectives = [Stage(*stage) for stage in stages] if stages else fewest_most(config)
  if config.domain == 'webshop':
    return _shop_tasks(config, split, objectives)

  def questions(spec):
    if spec != 'atlas':
      return _questions(config, spec, split)
    names = [passage.title for passage in (world or _real_world(split)).documents]
    known = world.questions if world else _questions(config, spec, split)
    return some_reworded(known, config.data.reworded, names, config.seed)

  return _mixed(config, split, objectives, questions)


@dataclasses.dataclass(frozen=True)
class Lessons:
  """Where an expert shows how: tasks by number, in one world.

  Attributes:
    names: what its actions may confuse with one another.
    world: of the atlas, or an invented one like it; None for another.
  """

  indices: Iterable[int]
  composer: TaskSource
  environment: Environment
  names: tuple[str, ...]
  world: World | None = None


def lessons(config: Any, tokenizer: Tokenizer) -> Iterator[Lessons]:
  """Endless lessons, in as many worlds as there are.

  Raises:
    ValueError: a source whose questions do not say how they are answered.
  """
  check(config)
  if config.domain == 'webshop':
    names = tuple(product.name for product in _catalogue(_shop_files(config), config.seed).products)
    yield Lessons(itertools.count(), make_training_composer(config), make_environment(config), names)
    return
  for indices, world in make_worlds(config, tokenizer).blocks():
    yield Lessons(indices, make_training_composer(config, world),
                  make_environment(config, world.documents),
                  tuple(passage.title for passage in world.documents), world)


# Questions.


def _specs(config: Any) -> list[str]:
  return [spec.strip() for spec in config.data.source.split(',') if spec.strip()]


def _fields(config: Any) -> dict[str, str]:
  """What each source calls its fields, of `data.fields`."""
  specs, text = _specs(config), config.data.fields
  texts = text.split(';') if text else [''] * len(specs)
  if len(texts) != len(specs):
    raise ValueError(f'data.fields {text!r} has {len(texts)} parts, data.source '
                     f'{config.data.source!r} names {len(specs)} sources; give one to each, '
                     'divided by ; (empty for none)')
  return dict(zip(specs, texts))


def _loaded(config: Any, spec: str) -> rows.Loaded:
  return _read(spec, config.data.tfds_dir, _fields(config)[spec])


@functools.lru_cache(maxsize=16)
def _read(spec: str, tfds_dir: str, fields: str) -> rows.Loaded:
  loaded = sources.load(spec, tfds_dir or None, fields)
  if spec != 'atlas':
    print(loaded.report, file=sys.stderr)
  return loaded


def _chosen(config: Any, spec: str, split: str) -> rows.Loaded:
  d = config.data
  choice = sources.Choice(d.hops or None, d.question_chars or None, d.answer_chars or None)
  if spec == 'atlas' and not _fields(config)[spec]:  # its documents are split, not its questions
    return rows.Loaded(tuple(filter(choice.takes, sources.load_atlas(split))), (), (),
                       rows.Report(spec, 0, 0))
  return sources.choose(_loaded(config, spec), split, sources.Shares(*d.shares), choice)


def _questions(config: Any, spec: str, split: str) -> Sequence[Question]:
  return _chosen(config, spec, split).questions


def _documents(config: Any) -> Sequence[Passage]:
  """What the sources bring along, or the embedded documents, for search to find."""
  if config.env.documents == 'atlas':
    return sources.atlas_documents()
  found: list[Passage] = []
  for spec in _specs(config):
    passages = _loaded(config, spec).passages
    if not passages:
      raise ValueError(f'data.source {spec!r} has questions without documents; set env.documents to '
                       'files or an index of them (or to atlas, the embedded ones), or '
                       'env.retriever to a server')
    found += passages
  return found


def _mixed(config: Any, split: str, objectives: Any,
           questions: Callable[[str], Sequence[Question]]) -> TaskSource:
  """Tasks over each source, as often as its weight says."""
  def of_domain(spec):  # which picks the instructions
    return [dataclasses.replace(question, domain=config.domain) for question in questions(spec)]

  specs, weights = _specs(config), config.data.weights
  if not specs or weights and len(weights) != len(specs):
    raise ValueError(f'data.source {config.data.source!r} names {len(specs)} sources, data.weights '
                     f'{weights} has {len(weights)}; give one to each, or none')
  weights = weights or (1.0,) * len(specs)
  if _is_ready(config):
    return ready.make(specs, weights, split, objectives, config.seed, config.domain)
  parts = [_composed(config, spec, split, objectives, of_domain) for spec in specs]
  return parts[0] if len(parts) == 1 else Mixture(parts, weights, config.seed)


def _is_ready(config: Any) -> bool:
  """Whether tasks are those of `verl` files, as they are.

  Raises:
    ValueError: they are, and a knob says how to compose them.
  """
  d = config.data
  names = ('curriculum', 'dependent', 'hops', 'question_chars', 'answer_chars', 'fields')
  given = [f'data.{name}' for name in names if d[name]]
  if given and not d.objectives:
    raise ValueError(f'data.objectives=() takes tasks as files have them, {", ".join(given)} would '
                     'change them; unset that, or say how many questions a task has')
  return not d.objectives


def _composed(config: Any, spec: str, split: str, objectives: Any, questions) -> TaskSource:
  length, name = config.data.dependent, f'{spec}-{split}'
  if not length:
    return Composer(questions(spec), objectives, config.seed, LABELS, name)
  found = (chains.link(questions(spec), length, config.seed) if spec == 'atlas'
           else chains.usable(_chosen(config, spec, split).chains, length))
  found = [dataclasses.replace(chain, questions=tuple(
      dataclasses.replace(question, domain=config.domain) for question in chain.questions))
           for chain in found]
  return chains.DependentComposer(found, objectives, config.seed, LABELS, name)


def _make_web(config: Any, documents: Sequence[Passage] | None, slack: int | None, limit: Any
              ) -> WebEnvironment:
  if documents is None and not (config.web.api or config.web.replay):
    documents = _documents(config)
  w = config.web
  return WebEnvironment(*search.make_web(config, documents), WebConfig(
      w.top_k, w.snippet_chars, w.name_chars, w.page_chars, slack, limit))


def _real_world(split: str) -> World:
  return World(tuple(sources.atlas_documents(split)), tuple(sources.load_atlas(split)))


def make_worlds(config: Any, tokenizer: Tokenizer) -> Worlds:
  """The atlas and invented copies of it, to learn reading from.

  Raises:
    ValueError: another domain or source.
  """
  if config.domain == 'webshop' or config.data.source != 'atlas':
    raise ValueError(f'domain {config.domain!r} with data.source {config.data.source!r} has no '
                     'documents of known facts; qa and web with data.source=atlas have')
  split = config.data.split
  return Worlds(_real_world(split), sources.atlas_entities(split), config.seed,
                config.sft.invented, config.sft.world_size, word_pieces(tokenizer.token_bytes))


# The shop.


def _shop_files(config: Any) -> tuple[str, str, str, str]:
  s = config.shop
  products, instructions = ((s.products, s.instructions) if s.products else sources.shop_files())
  return products, instructions, s.human, s.reviews


@functools.lru_cache(maxsize=4)
def _catalogue(files: tuple[str, str, str, str], seed: int) -> shop.Catalogue:
  products, instructions, human, reviews = (file or None for file in files)
  return shop.load(products, instructions=instructions, human=human, reviews=reviews, seed=seed)


def _shop_tasks(config: Any, split: str, objectives: Any) -> TaskSource:
  if objectives not in (1, (1, 1)):
    raise ValueError(f'WebShop has one goal in a task, not {objectives}; set data.objectives=(1, 1), '
                     'eval.objectives=(1,) and no data.curriculum')
  s = config.shop
  goals = shop_goals.make_goals(
      _catalogue(_shop_files(config), config.seed), s.goals, config.seed, s.combinations)
  return Composer(shop_goals.split(goals, split, s.official_split), 1, config.seed, LABELS,
                  f'webshop-{split}')


def _make_shop(config: Any, slack: int | None, limit: Any) -> webshop.WebShopEnvironment:
  s, e = config.shop, config.env
  if not (limit is None or isinstance(limit, int)):
    raise ValueError(f'env.turns {e.turns!r} is for questions; choose slack or a number')
  if e.reranker:
    raise ValueError(f'env.reranker {e.reranker!r} ranks passages; a shop has products: leave it '
                     'empty')
  products = _catalogue(_shop_files(config), config.seed).products
  retriever = BM25Retriever(webshop.passages(products), k1=e.bm25_k1, b=e.bm25_b,
                            title_weight=e.title_weight)
  nouns = shop_reward.spacy_nouns(s.nouns) if s.nouns else shop_reward.title_words
  pages = PageConfig(s.page_products, s.page_name_chars, s.page_values, s.page_text_chars,
                     s.shows_attributes)
  return webshop.WebShopEnvironment(
      products, retriever, webshop.WebShopConfig(pages, s.max_results, slack, limit),
      shop_reward.Rules(nouns))


# Of each, play(…) is the trajectory of a task, and hasty(task) what it pursues in a worse one.
EXPERTS: dict[str, ModuleType] = {
    'qa': expert, 'web': web_expert, 'webshop': webshop_expert}
