"""Can WebShop be solved through its text, how fast is it, and are its sessions independent?

    python benchmarks/webshop.py [--products FILE --instructions FILE] [--goals 100] [--out FILE]

Without files it is the embedded shop. The scripted expert plays goals drawn by the seed, turn by
turn as a constant-memory agent would: mean reward, share of goals met in full, turns; beside it
the paper's rule, which searches for the instruction and buys the first result. Then what the
expert did is done again in fresh sessions over a fresh index (no search is remembered), timed
without agent and tokenizer: one session after another, and --sessions of them side by side, a
step of each at a time. Every page and reward must be the same all three times, else it fails.
Medians of --repeats. With --nouns MODEL, a spaCy model tags titles, as in the paper, and how
often plain words come to the same type of a purchase is counted on 2,000 pairs of products, any
two and two of one query. The last line is JSON.
"""

import argparse
import json
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from mem1_jax import metrics  # noqa: E402
from mem1_jax.agents import webshop_expert  # noqa: E402
from mem1_jax.agents.mem1 import Mem1Agent  # noqa: E402
from mem1_jax.data import compose, sources  # noqa: E402
from mem1_jax.data.atlas.labels import LABELS  # noqa: E402
from mem1_jax.env import shop, shop_goals, shop_pages, shop_reward, webshop  # noqa: E402
from mem1_jax.env.environment import step_many  # noqa: E402
from mem1_jax.memory.positions import Gaps  # noqa: E402
from mem1_jax.retrieval.bm25 import BM25Retriever  # noqa: E402
from mem1_jax.text.tokenizer import SentencePieceTokenizer  # noqa: E402
from mem1_jax.types import Action, ActionKind  # noqa: E402

PAIRS = 2000
PAGES = shop_pages.PageConfig(products=10, max_name_chars=100, values=20, text_chars=1000,
                              shows_attributes=False)


class Watched:
  """An episode that writes down what was done and said."""

  def __init__(self, episode):
    self.episode, self.log = episode, []

  def __getattr__(self, name):
    return getattr(self.episode, name)

  def step(self, action):
    observation = self.episode.step(action)
    self.log.append((action, observation))
    return observation


def open_shop(args, catalogue) -> webshop.WebShopEnvironment:
  retriever = BM25Retriever(webshop.passages(catalogue.products), k1=0.9, b=0.4, title_weight=1)
  nouns = shop_reward.spacy_nouns(args.nouns) if args.nouns else shop_reward.title_words
  config = webshop.WebShopConfig(PAGES, 50, None, args.max_turns)
  return webshop.WebShopEnvironment(catalogue.products, retriever, config,
                                    shop_reward.Rules(nouns))


def play(args, environment, tasks) -> list[Watched]:
  """The expert's episodes."""
  tokenizer = SentencePieceTokenizer(sources.tokenizer_path())
  agent = Mem1Agent(tokenizer, args.context, 'atlas', Gaps(0, 0, 0.0))
  played = []
  for task in tasks:
    played.append(Watched(environment.start(task)))
    webshop_expert.play(task, agent, played[-1], tokenizer, None)
  return played


def rule(environment, task) -> float:
  """The reward of buying what a search for the instruction finds first; 0 for nothing."""
  episode = environment.start(task)
  episode.step(Action(ActionKind.SEARCH, task.questions[0].text))
  if not episode.view.results:
    return 0.0
  episode.step(Action(ActionKind.CLICK, episode.view.results[0].asin))
  return episode.step(Action(ActionKind.CLICK, shop_pages.BUY)).reward


def replay(world, tasks, logs, num_sessions: int) -> float:
  """Seconds that the same actions take again, so many sessions at a time.

  Raises:
    RuntimeError: a session said something else than before.
  """
  begun, said = time.monotonic(), [[] for _ in tasks]
  for first in range(0, len(tasks), num_sessions):
    group = range(first, min(first + num_sessions, len(tasks)))
    episodes = {i: world.start(tasks[i]) for i in group}
    while live := [i for i in group if len(said[i]) < len(logs[i])]:
      actions = [logs[i][len(said[i])][0] for i in live]
      for i, observation in zip(live, step_many([episodes[i] for i in live], actions)):
        said[i].append(observation)
  seconds = time.monotonic() - begun
  for task, log, again in zip(tasks, logs, said):
    if [observation for _, observation in log] != again:
      raise RuntimeError(f'{num_sessions} sessions at a time, that of task {task.id} differs')
  return seconds


def agreement(products, nouns, seed: int) -> dict[str, float]:
  """Share of pairs (bought, wanted) whose type is the same by words as by nouns."""
  rng, groups = random.Random(seed), {'any': [products]}
  of_query = {}
  for product in products:
    of_query.setdefault(product.query, []).append(product)
  groups['one query'] = [group for group in of_query.values() if len(group) > 1]
  found = {}
  for name, choices in groups.items():
    same = []
    weights = list(map(len, choices))
    for group in rng.choices(choices, weights, k=PAIRS):
      bought, wanted = rng.sample(group, 2)
      goal = shop_goals.Goal(wanted.asin, wanted.name, wanted.query, wanted.product_category, ())
      types = [shop_reward.type_score(bought, goal, shop_reward.Rules(each))
               for each in (shop_reward.title_words, nouns)]
      same.append(types[0] == types[1])
    found[name] = statistics.mean(same)
  return found


def measure(args) -> dict:
  """Everything measured."""
  files = (args.products, args.instructions or None) if args.products else sources.shop_files()
  begun = time.monotonic()
  catalogue = shop.load(files[0], instructions=files[1], human=args.human or None, seed=args.seed)
  loaded = time.monotonic()
  environment = open_shop(args, catalogue)
  opened = time.monotonic()
  goals = shop_goals.make_goals(catalogue, args.kind, args.seed, args.combinations)
  composer = compose.Composer(goals, 1, args.seed, LABELS, 'webshop')
  tasks = [composer.task(i) for i in range(min(args.goals, len(goals)))]
  played = play(args, environment, tasks)
  logs = [watched.log for watched in played]
  steps = sum(map(len, logs))
  rates = {n: [steps / replay(open_shop(args, catalogue), tasks, logs, n)
               for _ in range(args.repeats)] for n in (1, args.sessions)}
  rewards = [log[-1][1].reward for log in logs]
  pages = [len(observation.text) for log in logs for _, observation in log[:-1]]
  by_nouns = {}
  if args.nouns:
    by_nouns = agreement(catalogue.products, environment.rules.nouns, args.seed)
  return {
      'types_as_by_nouns': by_nouns, 'rule': statistics.mean(rule(environment, t) for t in tasks),
      'products': len(catalogue.products), 'left_out': len(catalogue.problems),
      'all_goals': len(goals), 'goals': len(tasks), 'load_s': loaded - begun,
      'index_s': opened - loaded, 'reward': statistics.mean(rewards),
      'met_in_full': statistics.mean(reward == 1.0 for reward in rewards),
      'bought_the_product': statistics.mean(
          watched.answer == task.questions[0].answers[0] for watched, task in zip(played, tasks)),
      'turns': steps / len(tasks), 'page_chars': statistics.mean(pages),
      'longest_page_chars': max(pages), 'steps': steps,
      'steps_s': {str(n): statistics.median(found) for n, found in rates.items()},
      'raw_steps_s': {str(n): found for n, found in rates.items()}, 'rewards': rewards}


def table(found: dict, sessions: int) -> str:
  lines = [
      f'{found["products"]} products ({found["left_out"]} entries left out), {found["all_goals"]}'
      f' goals; read in {found["load_s"]:.2f} s, indexed in {found["index_s"]:.2f} s',
      f'expert on {found["goals"]} goals: reward {found["reward"]:.3f}, met in full'
      f' {found["met_in_full"]:.0%}, the very product {found["bought_the_product"]:.0%},'
      f' {found["turns"]:.1f} turns; the first result: reward {found["rule"]:.3f}',
      f'pages: {found["page_chars"]:.0f} characters, the longest {found["longest_page_chars"]}',
      f'{"sessions":>9}  {"steps/s":>8}']
  lines += [f'{n:>9}  {rate:8.0f}' for n, rate in found['steps_s'].items()]
  lines += [f'type of a purchase, words against nouns, {name}: the same in {share:.1%}'
            for name, share in found['types_as_by_nouns'].items()]
  lines.append(f'one after another, {sessions} at a time and as first played: all pages the same')
  return '\n'.join(lines)


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--products', default='', help="WebShop's items_shuffle*.json")
  parser.add_argument('--instructions', default='', help='items_ins_v2*.json')
  parser.add_argument('--human', default='', help='items_human_ins.json')
  parser.add_argument('--kind', default='both', choices=shop_goals.KINDS, help='of instructions')
  parser.add_argument('--combinations', type=int, default=8,
                      help='of options, of a synthetic instruction')
  parser.add_argument('--goals', type=int, default=100)
  parser.add_argument('--max-turns', type=int, default=15)
  parser.add_argument('--sessions', type=int, default=64, help='side by side')
  parser.add_argument('--context', type=int, default=4096, help="tokens of the agent's context")
  parser.add_argument('--nouns', default='', metavar='MODEL',
                      help='a spaCy model that tags titles; default: words')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def main(argv=None):
  args = parse(argv)
  found = measure(args)
  if args.out:
    # Names of files alone: where they lie says something about a machine, not about the result.
    knobs = {name: pathlib.Path(value).name if name in ('products', 'instructions', 'human')
             else value for name, value in vars(args).items() if name != 'out'}
    args.out.write_text(json.dumps({
        'knobs': knobs, 'commit': metrics.commit(), 'versions': metrics.versions(),
        'machine': metrics.machine(), 'measured': found}, indent=1) + '\n')
  print(table(found, args.sessions))
  print(json.dumps({name: found[name] for name in (
      'products', 'goals', 'reward', 'rule', 'met_in_full', 'turns', 'steps_s')}))


if __name__ == '__main__':
  main()
