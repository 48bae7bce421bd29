"""WebShop: an episode from search to purchase, what cannot be done, sixty-four at a time."""

import dataclasses
import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.env import shop, shop_reward, webshop
from mem1_jax.env.environment import step_many
from mem1_jax.memory import segments
from mem1_jax.text import prompts
from tests.env.small_shop import (GOAL, MUG, PRODUCTS, SHIRT, SHIRTS, act, environment, pages,
                                  retriever, task)

BAD = act('malformed', 'no action')


def start(**changes):
  return environment(**changes).start(task())


def do(episode, *actions):
  """The observations of clicks, and of a search where a text begins with `?`."""
  return [episode.step(act('search', a[1:]) if a[0] == '?' else act('click', a)) for a in actions]


def test_from_search_to_purchase():
  episode = start()
  results, product, *_, bought = do(episode, '?long sleeve cotton shirt', 'A10', 'red', 'small',
                                    'buy now')
  assert results.text.startswith(' Turns left: 9.\n Page 1 (Total results: 11)\n'
                                 ' [ next >] [ back to search]\n'
                                 ' [ A10] Norva long sleeve cotton shirt $12.99\n')
  assert product.text == (
      ' Turns left: 8.\n Norva long sleeve cotton shirt\n code: A10. Price: $12.99. Rating: 4.5.\n'
      ' [ description] [ features] [ reviews] [ < prev] [ back to search] [ buy now]\n'
      ' size: [ small] [ medium] [ large]\n color: [ red] [ light blue] [ black]')
  assert bought == types.Observation('', 1.0, True)
  assert (episode.answer, episode.score.reward, episode.is_done) == ('A10', 1.0, True)
  assert (episode.turns, episode.searches, episode.malformed, episode.cut_names) == (5, 1, 0, 0)
  counted = episode.world.metrics()
  assert (counted['shown_pages'], counted['shown_cut_names']) == (5, 0)
  assert counted['search_queries'] >= 1
  with pytest.raises(ValueError, match="'g0' is done"):
    episode.step(act('click', 'buy now'))


def test_a_purchase_that_is_not_quite_right():
  episode = start()
  assert do(episode, '?cotton', 'A10', 'black', 'buy now')[-1].reward == pytest.approx(3 / 5)
  assert (episode.score.options, episode.score.attributes) == (0, 2)
  episode = start()
  assert do(episode, '?steel mug', 'V13', 'buy now')[-1] == types.Observation('', 0.0, True)
  assert (episode.answer, episode.score.type) == ('V13', 0.0)


def test_every_page_can_be_left():
  episode = start()
  seen = [o.text.partition('\n')[2] for o in do(
      episode, '?shirt', 'next >', 'next >', '< prev', 'b15', 'features', '< prev',
      'back to search')]
  assert [text.split('\n')[0].split(' of ')[0] for text in seen] == [
      ' Page 1 (Total results: 11)', ' Page 2 (Total results: 11)', ' Page 3 (Total results: 11)',
      ' Page 2 (Total results: 11)', ' Tilo plain shirt 15', ' features', ' Tilo plain shirt 15',
      ' Nothing is in view: search for products.']
  assert episode.malformed == 0


def test_a_search_is_possible_on_every_page_and_forgets_what_was_chosen():
  episode = start()
  do(episode, '?cotton', 'A10', 'red')
  assert episode.view.chosen == {'color': 'red'}
  assert do(episode, '?mug')[0].text == (
      ' Turns left: 6.\n Page 1 (Total results: 1)\n [ back to search]\n'
      ' [ V13] Wick leak proof steel mug $20.0')
  assert do(episode, '?zebra')[0].text.endswith(' Page 1 (Total results: 0)\n [ back to search]')


def test_results_are_bounded():
  assert 'Total results: 3)' in do(start(max_results=3), '?shirt')[0].text


@pytest.mark.parametrize('action, wrong', [
    (act('click', 'buy now'), webshop.NO_BUTTON), (act('click', 'v13'), webshop.NO_BUTTON),
    (act('click', '[ small ]'), webshop.NO_BUTTON), (act('answer', 'A10'), webshop.NO_ANSWER)])
def test_what_is_not_there_costs_a_turn_and_shows_the_page_again(action, wrong):
  episode = start()
  page = do(episode, '?long sleeve')[0].text.partition('\n')[2]
  assert episode.step(action) == types.Observation(
      f' Turns left: 8.\n Invalid action: {wrong}.\n{page}', 0.0, False)
  assert (episode.turns, episode.malformed, episode.answer) == (2, 1, None)
  assert do(episode, 'a10', 'red', 'small', 'buy now')[-1].reward == 1.0


def test_a_malformed_action_leaves_the_page_as_it_was():
  episode = start()
  do(episode, '?cotton')
  assert episode.step(BAD) == types.Observation(
      ' Turns left: 8.\n Invalid action: no action.', 0.0, False)
  assert do(episode, 'A10')[0].text.startswith(' Turns left: 7.\n Norva')
  assert (episode.malformed, episode.turns) == (1, 3)


def test_an_empty_budget_ends_without_reward():
  episode = start(max_turns=3)
  assert do(episode, '?cotton', 'A10')[1].text.startswith(' Last turn: buy now.\n')
  assert do(episode, 'red') == [types.Observation('', 0.0, True)]
  assert (episode.answer, episode.score) == (None, None)
  episode = start(max_turns=3)
  assert do(episode, '?cotton', 'A10', 'buy now')[-1].reward == pytest.approx(3 / 5)


def test_turns_by_slack():
  config = webshop.WebShopConfig(pages(), 50, 3, None)
  world = webshop.WebShopEnvironment(PRODUCTS, retriever(), config, shop_reward.Rules())
  assert world.start(task()).max_turns == 2 + 2 + 3
  assert world.start(task(dataclasses.replace(GOAL, options=()))).max_turns == 2 + 3


@pytest.mark.parametrize('config', [
    (0, 1, None), (1, 0, None), (1, None, 0), (1, 1, 1), (1, None, None)])
def test_bad_configs(config):
  with pytest.raises(ValueError):
    webshop.WebShopConfig(pages(), *config)


def test_a_task_is_one_shopping_goal():
  two = dataclasses.replace(task(), questions=task().questions * 2, labels=('[kf]', '[zb]'))
  with pytest.raises(ValueError, match='has 2 goals; WebShop takes one'):
    environment().start(two)
  other = types.Task('t', (types.Question('q', 'What?', ('a',)),), ('[kf]',), 'test')
  with pytest.raises(ValueError, match="'q' has no shopping goal"):
    environment().start(other)


def test_without_rapidfuzz_the_shop_does_not_open(monkeypatch):
  def missing():
    raise ImportError('pip install')

  monkeypatch.setattr(webshop.shop_reward, 'import_rapidfuzz', missing)
  with pytest.raises(ImportError, match='pip install'):
    environment()


def test_what_is_searched():
  passage = webshop.passages((SHIRT,))[0]
  assert passage == types.Passage(SHIRT.name, (
      'Long sleeve. Cotton. For work. shirts fashion Clothing › Tops › Shirts'
      ' size: small, medium, large color: red, light blue, black A10'))
  twins = (SHIRT, dataclasses.replace(SHIRT, asin='A11'))
  assert [p.asin for p in environment(twins).search(['cotton'])[0]] == ['A10', 'A11']


def wander(episode, seed):
  """What a random shopper does, sees and gets."""
  rng, seen = random.Random(seed), []
  while not episode.is_done:
    actions = [act('click', key) for key in episode.page.buttons]
    actions += [act('search', word) for word in ('shirt', 'mug', 'cotton')[:1 + 2 * (not seen)]]
    actions += [BAD, act('click', 'nothing'), act('answer', 'a')][:rng.randrange(4)]
    action = rng.choice(actions)
    seen.append((action, (yield action)))
  return seen


def interleaved(episodes):
  """All episodes step by step together, those that are done left out."""
  shoppers = [wander(episode, seed) for seed, episode in enumerate(episodes)]
  waiting, seen = {i: next(shopper) for i, shopper in enumerate(shoppers)}, {}
  while waiting:
    order = sorted(waiting, key=lambda i: (i * 37) % 64)
    told = step_many([episodes[i] for i in order], [waiting[i] for i in order])
    for i, observation in zip(order, told):
      try:
        waiting[i] = shoppers[i].send(observation)
      except StopIteration as end:
        seen[i] = end.value
        del waiting[i]
  return [seen[i] for i in range(len(episodes))]


def test_sixty_four_sessions_at_once_are_as_one_by_one():
  together, alone = environment(), environment()
  tasks = [task(number=i) for i in range(64)]
  seen = interleaved([together.start(t) for t in tasks])
  for seed, (mine, t) in enumerate(zip(seen, tasks)):
    episode = alone.start(t)
    shopper = wander(episode, seed)
    action, expected = next(shopper), None
    while expected is None:
      try:
        action = shopper.send(episode.step(action))
      except StopIteration as end:
        expected = end.value
    assert mine == expected
  assert len({str(mine) for mine in seen}) > 32  # they did different things
  assert {mine[-1][1].reward for mine in seen} > {0.0}


CONTROL = re.compile('[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]')
EVIL = st.lists(st.sampled_from([
    *prompts.TAGS, '<CLICK>buy now</click>', '</Think>', '[ buy now]', '[', ']', '<', '>', '</',
    ' ', '\n', '\x1b[2J', '\u202e', '\ud800', 'x' * 300, 'Turns left: 99.', 'code: B1. Price: ',
]) | st.text(max_size=3), min_size=1, max_size=6).map(''.join)


@given(texts=st.lists(EVIL, min_size=4, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_products_cannot_act(texts, seed):
  """Nothing a product says is a tag, a button, a turn or a reward, and pages stay short."""
  name, description, option, value = map(shop.clean, texts)
  evil = shop.Product('E1', f'shirt {name}', description, (value,), reviews=(option,),
                      options=((option or 'o', (value or 'v', 'b')),) * 2, rating=value)
  world = environment((evil, SHIRT))
  episode, rng = world.start(task()), random.Random(seed)
  observation = episode.step(act('search', 'shirt'))
  while not episode.is_done:
    assert observation.reward == 0.0
    assert not any(tag in observation.text.lower() for tag in prompts.TAGS)
    assert re.match(r' (Turns left: \d\.|Last turn: buy now\.)\n', observation.text)
    assert len(observation.text) < 1500 and not CONTROL.search(observation.text)
    block = prompts.information_block(observation.text).encode()
    turn = segments.parse_turn(list(block), [bytes([i]) for i in range(256)])
    assert turn.action == BAD
    named = re.findall(r'\[ ([^\[\]]*)\]', observation.text)
    buttons = [name for name in named if name != 'buy now']
    observation = episode.step(act('click', rng.choice(buttons)) if buttons
                               else act('search', 'shirt'))
    assert episode.malformed == 0  # what is shown can be clicked, escaped or not
