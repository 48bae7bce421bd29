"""The expert's text on a real task of the atlas, for each agent, and what it refuses."""

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.agents import expert
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.data import sources
from mem1_jax.env.qa import QAConfig, QAEnvironment
from mem1_jax.memory import layout
from mem1_jax.memory.positions import Gaps
from mem1_jax.retrieval.bm25 import BM25Retriever
from tests.agents import by_hand
from tests.agents.by_hand import TOKENIZER

CONFIG = QAConfig(top_k=1, max_passage_chars=1000, slack=3, max_turns=None)
AGENTS = {make: by_hand.make(make, 300) for make in by_hand.AGENTS}


@pytest.fixture(scope='module')
def environment():
  retriever = BM25Retriever(sources.atlas_documents(), k1=1.2, b=0.75, title_weight=2)
  return QAEnvironment(retriever, CONFIG)


def question(hops, start):
  """A real question of the training split that begins at the document `start`."""
  found = [q for q in sources.load_atlas('train') if q.hops == hops and q.chain[0] == start]
  return min(found, key=lambda q: q.id)


def task():
  questions = (question(1, 'Cusco'), question(2, 'Porto'))
  return types.Task('t', questions, ('[kf]', '[zb]'), 'test')


def texts(trajectory):
  return [TOKENIZER.decode(turn.written.ids) for turn in trajectory.turns]


def words(question):
  return [*question.relations, *question.chain, *question.found]


def test_the_constant_memory_agents_text(environment):
  t = task()
  one, two = t.questions
  played = expert.play(t, AGENTS[Mem1Agent], environment.start(t), TOKENIZER, None)
  a, b, (m, c) = one.found[0], two.found[1], two.chain
  assert texts(played) == [
      f'<think>*>[kf] {one.text} = {one.relations[0]} @</think><search> Cusco</search>',
      f'<think> {one.relations[0]} is {a}.[kf]: {a};*>[kf]: {a};>[zb] {two.text}'
      f' = {two.relations[1]} of {two.relations[0]} @</think><search> {m}</search>',
      f'<think> {two.relations[0]} is {c}.*>[kf]: {a};>[zb] {two.relations[1]} @</think>'
      f'<search> {c}</search>',
      f'<think> {two.relations[1]} is {b}.[zb]: {b};>.</think>'
      f'<answer> *>[kf]: {a};>[zb]: {b};>.</answer>']
  assert (played.reward, played.answer, played.searches) == (2.0, f'*>[kf]: {a};>[zb]: {b};>.', 3)
  assert [turn.action.kind.value for turn in played.turns] == ['search'] * 3 + ['answer']


def test_a_hasty_expert_reads_the_same_and_gives_up_after_the_first_question(environment):
  t = expert.hasty(task())
  one, two = t.questions
  played = expert.play(t, AGENTS[Mem1Agent], environment.start(task()), TOKENIZER, None)
  a = one.found[0]
  assert two.text == task().questions[1].text
  assert texts(played) == [
      f'<think>*>[kf] {one.text} = {one.relations[0]} @</think><search> Cusco</search>',
      f'<think> {one.relations[0]} is {a}.[kf]: {a};>[zb]: unknown;>.</think>'
      f'<answer> *>[kf]: {a};>[zb]: unknown;>.</answer>']
  assert (played.reward, played.searches) == (1.0, 1)


def test_the_full_context_agents_text(environment):
  t = task()
  one, two = t.questions
  played = expert.play(t, AGENTS[FullContextAgent], environment.start(t), TOKENIZER, None)
  a, b, (m, c) = one.found[0], two.found[1], two.chain
  assert texts(played) == [
      f'<think>*>[kf] {one.text} = {one.relations[0]} @</think><search> Cusco</search>',
      f'<think> {one.relations[0]} is {a}.[kf]: {a};>[zb] {two.text}'
      f' = {two.relations[1]} of {two.relations[0]} @</think><search> {m}</search>',
      f'<think> {two.relations[0]} is {c}.[zb] {two.relations[1]} @</think>'
      f'<search> {c}</search>',
      f'<think> {two.relations[1]} is {b}.[zb]: {b};>.</think>'
      f'<answer> *>[kf]: {a};>[zb]: {b};>.</answer>']
  assert (played.reward, played.is_append_only) == (2.0, True)


@pytest.mark.parametrize('budget', [6, 200, 300])
@pytest.mark.parametrize('make', by_hand.AGENTS[2:])
def test_every_agent_that_forgets_can_be_played(environment, make, budget):
  """The text is the constant-memory agent's, whatever else is in view: the last turn always is."""
  t, agent = task(), by_hand.make(make, 300, budget=budget)
  played = expert.play(t, agent, environment.start(t), TOKENIZER, None)
  memory = expert.play(t, AGENTS[Mem1Agent], environment.start(t), TOKENIZER, None)
  assert texts(played) == texts(memory)
  assert (played.reward, played.is_append_only) == (2.0, False)
  sizes = []
  for turn, alone in zip(played.turns[1:], memory.turns[1:]):
    last, seen = alone.context.segment.ids, turn.context.segment.ids
    assert seen[-len(last):] == last and len(seen) <= max(budget, len(last))
    sizes.append(len(seen) - len(last))
  assert sizes[0] == 0 and (max(sizes) > 0) == (budget > 6)


@pytest.mark.parametrize('make', list(AGENTS))
def test_kinds_and_positions_of_what_is_written(environment, make):
  played = expert.play(task(), AGENTS[make], environment.start(task()), TOKENIZER, None)
  for turn in played.turns:
    n, first = len(turn.written), turn.context.segment.positions[-1] + 1
    assert turn.written.positions == tuple(range(first, first + n))
    assert len(turn.logprobs) == n and turn.stop is types.Stop.TAG
    text = TOKENIZER.decode(turn.written.ids[:turn.written.kinds.index(types.Kind.ACTION)])
    assert text.endswith('</think>') and text.count('</think>') == 1
    assert set(turn.written.kinds) == {types.Kind.STATE, types.Kind.ACTION}


@pytest.mark.parametrize('make', list(AGENTS))
def test_the_last_turn_answers_what_is_known(environment, make):
  episode = environment.start(task())
  episode.max_turns = 2
  played = expert.play(task(), AGENTS[make], episode, TOKENIZER, None)
  one = task().questions[0]
  a = one.found[0]
  assert texts(played)[1] == (
      f'<think> {one.relations[0]} is {a}.[kf]: {a};>[zb]</think>'
      f'<answer> *>[kf]: {a};>[zb]: unknown;>.</answer>')
  assert played.reward == 1.0


class Nothing:
  """A retriever without documents (a fake)."""

  def search(self, queries, top_k):
    return [[] for _ in queries]


def test_what_is_not_found_is_unknown():
  lost, (one, two) = QAEnvironment(Nothing(), CONFIG), task().questions
  played = expert.play(task(), AGENTS[Mem1Agent], lost.start(task()), TOKENIZER, None)
  _, second, last = texts(played)
  assert second.startswith(f'<think> {one.relations[0]} is unknown.[kf]: unknown;'
                           f'*>[kf]: unknown;>[zb] {two.text}')
  assert last == (f'<think> {two.relations[0]} is unknown.[zb]: unknown;>.</think>'
                  '<answer> *>[kf]: unknown;>[zb]: unknown;>.</answer>')
  assert played.reward == 0.0


@pytest.mark.parametrize('make', list(AGENTS))
def test_the_expert_goes_on_after_a_mistake_that_is_not_to_be_learned(environment, make):
  two = task().questions[1]
  played = expert.play(task(), AGENTS[make], environment.start(task()), TOKENIZER, None,
                       lambda name: 'Qwrtzl' if name == 'Cusco' else None)
  first, second, *_ = texts(played)
  relation = task().questions[0].relations[0]
  assert first.endswith(f'= {relation} @</think><search> Qwrtzl</search>')
  assert second.startswith(f'<think> {relation} is unknown.')
  assert f'[kf]: unknown;>[zb] {two.text} = ' in second
  assert [turn.logprobs is None for turn in played.turns] == [True] + [False] * 3
  columns = layout.lay_out(played)
  assert set(columns['turn'][columns['is_generated']]) == {1, 2, 3}
  assert played.reward == 1.0


@pytest.mark.parametrize('make', list(AGENTS))
def test_the_expert_writes_a_garbled_turn_anew(environment, make):
  broken = iter([None, '<think>*>*>*>', '<think>*', None, None, None])
  played = expert.play(task(), AGENTS[make], environment.start(task()), TOKENIZER, None,
                       garble=lambda text: next(broken))
  plain = expert.play(task(), AGENTS[make], environment.start(task()), TOKENIZER, None)
  first, *rest = texts(plain)
  assert texts(played) == [first, '<think>*>*>*>', '<think>*', *rest]
  assert [turn.logprobs is None for turn in played.turns] == [False, True, True] + [False] * 3
  assert played.reward == 2.0


def test_an_expert_that_only_garbles_gives_no_answer(environment):
  played = expert.play(task(), AGENTS[Mem1Agent], environment.start(task()), TOKENIZER, None,
                       garble=lambda text: '<think>')
  assert (played.answer, played.reward, len(played.turns)) == (None, 0.0, 6)


def test_a_question_without_a_chain(environment):
  agent = AGENTS[Mem1Agent]
  unknown = types.Task('u', (types.Question('q', 'Who?', ('x',)),), ('[kf]',), 'test')
  with pytest.raises(expert.ExpertError, match="question 'q' has no chain"):
    expert.play(unknown, agent, environment.start(unknown), TOKENIZER, None)


def test_gaps_are_drawn_from_the_generator(environment):
  agent = Mem1Agent(TOKENIZER, 300, 'atlas', Gaps(50, 50, 1.0))

  def positions(seed):
    rng = np.random.default_rng(seed)
    played = expert.play(task(), agent, environment.start(task()), TOKENIZER, rng)
    return [played.prompt.positions, *(turn.context.segment.positions for turn in played.turns)]

  assert positions(1) == positions(1) != positions(2)


def test_a_task_without_relations_is_refused():
  without = types.Question('q', 'Who?', ('x',), chain=('Cusco',))
  with pytest.raises(expert.ExpertError, match="task 't' has no relations"):
    expert.Progress(types.Task('t', (without,), ('[kf]',), 'test'), True)
