"""What a config asks for, in every domain: its tasks, its world, its expert."""

import itertools
import json

import numpy as np
import pytest

from mem1_jax import assemble, domains
from mem1_jax.data import verl
from mem1_jax.data.chains import DependentComposer
from mem1_jax.data.mixture import Mixture
from mem1_jax.env.qa import QAEnvironment
from mem1_jax.env.web import WebEnvironment
from mem1_jax.env.webshop import WebShopEnvironment
from mem1_jax.types import Action, ActionKind, Question, Task
from tests.tiny import tiny_config


def with_knobs(**knobs):
  config = tiny_config()
  config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in knobs.items()})
  return config


def shop_config(**knobs):
  return with_knobs(domain='webshop', data__objectives=(1, 1), eval__objectives=(1,),
                    sft__drill_share=0.0, **knobs)


@pytest.fixture
def hotpot(tmp_path):
  """A file of HotpotQA's format: every question with its own two documents."""
  path = tmp_path / 'dev.json'
  path.write_text(json.dumps([
      {'_id': f'h{i}', 'question': f'What is number {i}?', 'answer': f'the {i}th',
       'type': 'bridge', 'level': 'hard', 'supporting_facts': [[f'One {i}', 0], [f'Two {i}', 0]],
       'context': [[f'One {i}', [f'It is {i}.']], [f'Two {i}', ['Something else.']]]}
      for i in range(200)]))
  return str(path)


def test_objectives_may_be_one_number_or_a_range():
  config = tiny_config()
  for objectives, sizes in ((3, {3}), ((3,), {3}), ((1, 2), {1, 2})):
    composer = domains.make_composer(config, 'train', objectives)
    assert {len(composer.task(i).questions) for i in range(6)} == sizes


def test_training_tasks_are_partly_reworded_and_evaluation_tasks_never():
  config = tiny_config()
  config.data.reworded = 0.5
  training, plain = domains.make_training_composer(config), domains.make_composer(
      config, 'train', 2)
  pairs = list(zip(training.questions, plain.questions, strict=True))
  assert 0.4 < np.mean([a.text != b.text for a, b in pairs]) < 0.6
  assert all(a.answers == b.answers for a, b in pairs)


@pytest.mark.parametrize('turns, budgets', [('slack', (4, 9)), ('paper', (6, 20)), ('8', (8, 8))])
def test_turn_budgets(turns, budgets):
  config = tiny_config()
  config.env.turns = turns
  environment = domains.make_environment(config)
  one_hop = Question('x', 'x?', ('x',), hops=1)
  for size, budget in zip((1, 6), budgets):
    questions = (one_hop,) * size
    task = Task('t', questions, tuple(map(str, range(size))), 'test')
    assert environment.start(task).max_turns == budget
  config.env.turns = 'many'
  with pytest.raises(ValueError, match='many'):
    domains.make_environment(config)


@pytest.mark.parametrize('make', [
    domains.make_environment, lambda config: domains.make_composer(config, 'train', 1),
    domains.make_training_composer,
    lambda config: next(domains.lessons(config, assemble.make_tokenizer(config)))])
def test_an_unknown_domain_is_named_with_the_choices(make):
  with pytest.raises(ValueError, match="domain 'chess' is unknown.*qa.*webshop"):
    make(with_knobs(domain='chess'))


def test_an_unknown_source_is_named():
  with pytest.raises((ValueError, FileNotFoundError), match='dreams'):
    domains.make_environment(with_knobs(data__source='dreams'))


def test_a_file_of_questions_brings_its_documents_and_is_split_by_hash(hotpot):
  config = with_knobs(data__source=f'hotpotqa:{hotpot}')
  environment = domains.make_environment(config)
  episode = environment.start(domains.make_composer(config, 'train', 2).task(0))
  assert 'It is 7.' in episode.step(Action(ActionKind.SEARCH, 'One 7')).text
  ids = [{q.id for i in range(40) for q in domains.make_composer(config, split, 1).task(i).questions}
         for split in ('train', 'test')]
  assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_columns_of_other_names_source_by_source(tmp_path, hotpot):
  path = tmp_path / 'mine.jsonl'
  path.write_text('\n'.join(json.dumps({'query': f'mine {i}?', 'gold': {'value': f'{i}'}})
                            for i in range(40)))
  fields, mine = 'question=query,golden_answers=gold.value', f'jsonl:{path}'
  one = domains.make_training_composer(with_knobs(data__source=mine, data__fields=fields))
  assert all(q.text == f'mine {q.answers[0]}?' for q in one.task(0).questions)
  both = domains.make_training_composer(with_knobs(
      data__source=f'hotpotqa:{hotpot},{mine}', data__fields=f';{fields}'))
  assert {q.text[:4] for task in both.tasks(range(20)) for q in task.questions} == {'What', 'mine'}
  for source, text, message in (
      (f'hotpotqa:{hotpot},{mine}', fields, 'has 1 parts, data.source .* names 2 sources'),
      (f'hotpotqa:{hotpot}', fields, "source 'hotpotqa:.* has fields of its own"),
      ('atlas', fields, "source 'atlas' has fields of its own"),
      (mine, 'question=q', 'no row has anything in q, .* its columns are gold.value, query')):
    with pytest.raises(ValueError, match=message):
      domains.make_training_composer(with_knobs(data__source=source, data__fields=text))


def test_tasks_of_a_file_as_they_are(tmp_path):
  composer = domains.make_training_composer(tiny_config())
  written = composer.tasks(range(12))
  verl.write_tasks(tmp_path / 'train.jsonl', written, 'train')
  spec = f'verl:{tmp_path}/train.jsonl'
  config = with_knobs(data__source=spec, data__objectives=(), env__documents='atlas')
  again = domains.make_training_composer(config).tasks(range(12))
  bare = lambda tasks: {(task.questions, task.labels, task.source) for task in tasks}
  assert bare(again) == bare(written)
  two = domains.make_composer(config, 'train', 2).tasks(range(9))
  assert {len(task.questions) for task in two} == {2}
  assert domains.fewest_most(config) == (1, 2) and domains.validated(config) == 2
  title = written[0].questions[0].chain[0]
  assert title in domains.make_environment(config).start(again[0]).step(
      Action(ActionKind.SEARCH, title)).text
  anew = domains.make_training_composer(with_knobs(data__source=spec, data__objectives=(3, 3)))
  assert len(anew.task(0).questions) == 3
  config.data.hops = (1, 1)
  with pytest.raises(ValueError, match=r'data.hops would change them; unset that'):
    domains.make_training_composer(config)


def test_questions_are_chosen_by_their_size(hotpot):
  config = with_knobs(data__source=f'hotpotqa:{hotpot}', data__question_chars=(0, 17))
  composer = domains.make_training_composer(config)
  assert max(len(q.text) for i in range(50) for q in composer.task(i).questions) <= 17
  with pytest.raises(ValueError, match='takes none; widen it'):
    domains.make_training_composer(with_knobs(data__source=f'hotpotqa:{hotpot}',
                                              data__hops=(7, 9)))


def test_sources_are_mixed_by_weight(hotpot):
  config = with_knobs(data__source=f'atlas, hotpotqa:{hotpot}', data__weights=(3.0, 1.0))
  composer = domains.make_training_composer(config)
  assert isinstance(composer, Mixture)
  found = [task.source.partition('-')[0] for task in composer.tasks(range(40))]
  assert found.count('atlas') == 30
  with pytest.raises(ValueError, match='names 2 sources, data.weights'):
    domains.make_training_composer(with_knobs(data__source=f'atlas,{hotpot}',
                                              data__weights=(1.0,)))


def test_a_curriculum_asks_more_and_more():
  config = with_knobs(data__curriculum=((0, 1, 1), (10, 3, 4)))
  composer = domains.make_training_composer(config)
  sizes = [len(task.questions) for task in composer.tasks(range(30))]
  assert set(sizes[:10]) == {1} and set(sizes[10:]) == {3, 4}
  assert domains.fewest_most(config) == (1, 4)
  config.env.turns = 'slack'
  assert domains.max_turns(config) == 2 * 4 + config.env.slack


def test_chains_ask_about_the_answer_before():
  config = with_knobs(data__dependent=2, data__objectives=(2, 2))
  composer = domains.make_training_composer(config)
  task = composer.task(0)
  assert isinstance(composer, DependentComposer)
  assert f'the answer to {task.labels[0]}' in task.questions[1].text
  assert task.questions[0].answers[0] not in task.questions[1].text


def test_documents_may_be_the_users(tmp_path):
  path = tmp_path / 'corpus.jsonl'
  path.write_text('{"title": "Oslo", "text": "A city of gnomes."}\n')
  environment = domains.make_environment(with_knobs(env__documents=str(path)))
  assert [p.text for p in environment.retriever.search(['gnomes'], 1)[0]] == ['A city of gnomes.']
  with pytest.raises(ValueError, match='set one of them'):
    domains.make_environment(with_knobs(env__documents=str(path), env__retriever='http://a'))


def test_questions_without_documents_say_what_to_set(tmp_path):
  path = tmp_path / 'nq.jsonl'
  path.write_text('\n'.join(json.dumps({'question': f'q {i}?', 'answer': ['a']}) for i in range(20)))
  with pytest.raises(ValueError, match='set env.documents to files.*or env.retriever'):
    domains.make_environment(with_knobs(data__source=f'nq_open:{path}'))


def test_the_web_is_a_small_one_until_an_api_is_named(tmp_path, monkeypatch):
  config = with_knobs(domain='web')
  environment, composer = domains.make_environment(config), domains.make_composer(config, 'test', 2)
  assert composer.task(0).domain == 'web'
  episode = environment.start(composer.task(0))
  assert '[ 1]' in episode.step(Action(ActionKind.SEARCH, 'Norway')).text
  assert '[ back]' in episode.step(Action(ActionKind.CLICK, '1')).text
  monkeypatch.setenv('MEM1_SEARCH_API_KEY', 'secret')
  config.web.api, config.web.record = 'serper', str(tmp_path / 'web.jsonl')
  config.rollout.reply_timeout = 80.0  # a search, then a page
  with pytest.raises(ValueError, match='2 times env.retriever_patience 30.0 .* below rollout.rep'):
    domains.make_environment(config)
  config.rollout.reply_timeout = 120.0
  recording = domains.make_environment(config)  # asks nothing yet
  assert recording.retriever is recording.pages
  config.web.api, config.web.replay = '', config.web.record
  replaying = domains.make_environment(config)
  episode = replaying.start(composer.task(0))
  episode.step(Action(ActionKind.SEARCH, 'Norway'))
  assert episode.outages == 1, 'what was not recorded is unavailable'


def test_the_shop_has_goals_in_splits_and_an_expert_that_reaches_them():
  config = shop_config()
  config.rollout.context_capacity = 2048
  environment = domains.make_environment(config)
  assert isinstance(environment, WebShopEnvironment)
  tokenizer = assemble.make_tokenizer(config)
  agent = assemble.make_agent(config, tokenizer)
  composers = [domains.make_composer(config, split, 1) for split in ('train', 'test')]
  products = [{composer.task(i).questions[0].answers[0] for i in range(100)}
              for composer in composers]
  assert not products[0] & products[1]
  rewards = []
  for task in composers[0].tasks(range(20)):
    rewards.append(domains.EXPERTS['webshop'].play(
        task, agent, environment.start(task), tokenizer, None).reward)
  assert np.mean(rewards) > 0.9


def test_the_shop_refuses_what_is_for_questions():
  with pytest.raises(ValueError, match='WebShop has one goal in a task, not 2'):
    domains.make_composer(shop_config(), 'train', 2)
  with pytest.raises(ValueError, match="env.turns 'paper' is for questions"):
    domains.make_environment(shop_config(env__turns='paper'))
  with pytest.raises(ValueError, match='has no documents of known facts'):
    domains.make_worlds(shop_config(), None)


@pytest.mark.parametrize('config', [
    tiny_config(), with_knobs(domain='web'), shop_config()], ids=['qa', 'web', 'webshop'])
def test_lessons_can_be_played(config):
  config.rollout.context_capacity = 2048
  tokenizer = assemble.make_tokenizer(config)
  agent = assemble.make_agent(config, tokenizer)
  lessons = next(domains.lessons(config, tokenizer))
  for index in itertools.islice(lessons.indices, 3):
    task = lessons.composer.task(index)
    played = domains.EXPERTS[config.domain].play(
        task, agent, lessons.environment.start(task), tokenizer, None)
    assert played.reward > 0 and played.answer
  assert lessons.names and isinstance(
      lessons.environment, (QAEnvironment, WebEnvironment, WebShopEnvironment))
