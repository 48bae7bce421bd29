"""The web expert: its text, its way out of trouble, and that the small web can be solved."""

import dataclasses

import pytest

from mem1_jax import types
from mem1_jax.agents import web_expert
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.agents.play import ExpertError
from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.compose import Composer
from mem1_jax.env import web
from mem1_jax.memory import layout
from mem1_jax.retrieval.bm25 import BM25Retriever
from mem1_jax.retrieval.web_record import Recorder, Replay
from mem1_jax.retrieval.web_small import SmallWeb
from tests.agents import by_hand
from tests.agents.by_hand import TOKENIZER

CONFIG = web.WebConfig(top_k=3, max_snippet_chars=200, max_name_chars=60, page_chars=600, slack=3,
                       max_turns=None)
AGENTS = {make: by_hand.make(make, 400) for make in by_hand.AGENTS}
DOCUMENTS = [
    types.Passage('Patra', 'A city. Its larger neighbor is Athens. Its country is Greece.'),
    types.Passage('Patras', 'A town. Its country is Spain.'),
    types.Passage('Greece', 'A country. Its capital is Athens. Its currency is euros.')]
ONE = types.Question('q0', 'Capital of the country of Patra?', ('Athens',), 2, ('Patra', 'Greece'),
                     ('Greece', 'Athens'), ('country', 'capital'), 'web')
TWO = types.Question('q1', 'Currency of Greece?', ('euros',), 1, ('Greece',), ('euros',),
                     ('currency',), 'web')
TASK = types.Task('t', (ONE, TWO), ('[kf]', '[zb]'), 'test')


def site(documents=DOCUMENTS, chars=45):
  return SmallWeb(documents, BM25Retriever(documents, k1=1.2, b=0.75, title_weight=2), chars)


def play(retriever, pages=None, task=TASK, agent=Mem1Agent, config=CONFIG, **options):
  world = web.WebEnvironment(retriever, pages or retriever, config)
  return web_expert.play(task, AGENTS[agent], world.start(task), TOKENIZER, None, **options)


@pytest.mark.parametrize('agent', by_hand.AGENTS[2:])
def test_every_agent_that_forgets_can_be_played(agent):
  played, memory = play(site(), agent=agent), play(site())
  assert texts(played) == texts(memory) and played.reward == 2.0
  assert len(played.turns[2].context.segment) > len(memory.turns[2].context.segment)


def texts(trajectory):
  return [TOKENIZER.decode(turn.written.ids) for turn in trajectory.turns]


def actions(trajectory):
  return [turn.action.text for turn in trajectory.turns]


def test_the_constant_memory_agents_text():
  played = play(site())
  assert texts(played) == [
      '<think>*>[kf] Capital of the country of Patra? = capital of country @</think>'
      '<search> Patra</search>',
      '<think>*>[kf] capital of country @</think><click> 1</click>',
      '<think> country is Greece.*>[kf] capital @</think><search> Greece</search>',
      '<think> capital is Athens.[kf]: Athens;*>[kf]: Athens;>[zb] Currency of Greece?'
      ' = currency @</think><search> Greece</search>',
      '<think>*>[kf]: Athens;>[zb] currency @</think><click> 1</click>',
      '<think> currency is euros.[zb]: euros;>.</think>'
      '<answer> *>[kf]: Athens;>[zb]: euros;>.</answer>']
  assert (played.reward, played.searches) == (2.0, 3)


def test_the_full_context_agents_text():
  played = play(site(), agent=FullContextAgent)
  assert texts(played)[1:5] == [
      '<think>[kf] capital of country @</think><click> 1</click>',
      '<think> country is Greece.[kf] capital @</think><search> Greece</search>',
      '<think> capital is Athens.[kf]: Athens;>[zb] Currency of Greece?'
      ' = currency @</think><search> Greece</search>',
      '<think>[zb] currency @</think><click> 1</click>']
  assert (played.reward, played.is_append_only) == (2.0, True)


def test_pages_are_turned():
  config = dataclasses.replace(CONFIG, page_chars=32, slack=9)
  played = play(site(chars=10), config=config)
  assert actions(played)[:3] == ['Patra', '1', 'more'] and played.reward == 2.0


def test_the_result_with_the_title_is_opened_whatever_its_place():
  class Reversed:

    def search(self, queries, top_k):
      return [found[::-1] for found in site().search(queries, top_k)]

  played = play(Reversed(), site())
  assert played.reward == 2.0 and actions(played)[-2] == '2'


@pytest.mark.parametrize('agent', list(AGENTS))
def test_what_is_not_there_is_unknown(agent):
  played = play(site(DOCUMENTS[1:]), agent=agent)
  assert actions(played)[0] == 'Patra'
  assert ' country is unknown.[kf]: unknown;' in texts(played)[1] and played.reward == 1.0


class Down:
  """A site that is down for its first `times` calls, for good if `is_lasting` (a fake)."""

  def __init__(self, times, is_lasting=False):
    self.times, self.outage = times, types.Unavailable('timeouts: slow', is_lasting)

  def _had(self, kind, texts, *more):
    self.times -= 1
    return [self.outage] * len(texts) if self.times >= 0 else getattr(site(), kind)(texts, *more)

  def search(self, queries, top_k):
    return self._had('search', queries, top_k)

  def open(self, urls):
    return self._had('open', urls)


@pytest.mark.parametrize('agent', list(AGENTS))
def test_what_cannot_be_had_now_is_asked_for_again(agent):
  assert actions(play(Down(2), site(), agent=agent))[:4] == ['Patra', 'Patra', 'Patra', '1']
  played = play(site(), Down(1), agent=agent)
  assert actions(played)[:4] == ['Patra', '1', '1', 'Greece'] and played.reward == 2.0


def test_a_page_that_cannot_be_read_is_given_up():
  played = play(site(), Down(1, True))
  assert actions(played)[:3] == ['Patra', '1', 'Greece']
  assert played.answer == '*>[kf]: unknown;>[zb]: euros;>.' and played.reward == 1.0


def test_it_answers_on_its_last_turn():
  config = dataclasses.replace(CONFIG, slack=None, max_turns=4)
  played = play(Down(2), site(), config=config)
  assert played.answer == '*>[kf]: unknown;>[zb]: unknown;>.' and len(played.turns) == 4


@pytest.mark.parametrize('agent', list(AGENTS))
def test_it_goes_on_after_mistakes_and_garbled_turns_that_are_not_to_be_learned(agent):
  played = play(site(), agent=agent, mistake=lambda name: 'Patras' if name == 'Patra' else None)
  assert actions(played)[:2] == ['Patras', 'Spain']  # what the wrong result says
  assert [turn.logprobs is None for turn in played.turns] == [True] + [False] * (
      len(played.turns) - 1)
  broken = iter([None, '<think>*>', *[None] * 9])
  played = play(site(), agent=agent, garble=lambda text: next(broken))
  assert actions(played)[2] == '1' and played.reward == 2.0
  columns = layout.lay_out(played)
  assert set(columns['turn'][columns['is_generated']]) == {0, 2, 3, 4, 5, 6}


def test_a_question_without_a_chain():
  task = types.Task('u', (types.Question('q', 'Who?', ('x',)),), ('[kf]',), 'test')
  with pytest.raises(ExpertError, match="question 'q' has no chain"):
    play(site(), task=task)


@pytest.fixture(scope='module')
def atlas():
  return site(sources.atlas_documents(), 40)


@pytest.mark.parametrize('agent', list(AGENTS))
@pytest.mark.parametrize('objectives', [1, 2])
def test_the_small_web_can_be_solved(atlas, agent, objectives, tmp_path):
  questions = [dataclasses.replace(q, domain='web') for q in sources.load_atlas('test')]
  composer = Composer(questions, objectives, 0, LABELS, 'test')
  recorder = Recorder(atlas, atlas, tmp_path / 'web.jsonl')
  played = [play(recorder, task=composer.task(i), agent=agent) for i in range(100)]
  assert sum(p.reward for p in played) >= 0.95 * 100 * objectives
  assert sum('click' == turn.action.kind.value for p in played for turn in p.turns) > 100
  assert not any(turn.context.num_cut for p in played for turn in p.turns)
  replay = Replay(tmp_path / 'web.jsonl')
  assert played == [play(replay, task=composer.task(i), agent=agent) for i in range(100)]
  assert replay.counts['missing'] == 0
