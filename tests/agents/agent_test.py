"""What every agent promises: the cache holds what its rule says, at rising positions."""

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.agents import expert
from mem1_jax.agents.amem import AMemAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.env import qa
from mem1_jax.memory.positions import Gaps
from tests.agents import by_hand
from tests.agents.by_hand import TOKENIZER

QUESTIONS = (
    types.Question('a', 'Capital of Norway?', ('Oslo',), 1, ('Norway',), ('Oslo',), ('capital',)),
    types.Question('b', 'Currency of the country of Cusco?', ('sol',), 2, ('Cusco', 'Peru'),
                   ('Peru', 'sol'), ('country', 'currency')))
TASK = types.Task('t', QUESTIONS, ('[kf]', '[zb]'), 'test')
CONFIG = qa.QAConfig(top_k=1, max_passage_chars=200, slack=3, max_turns=None)
FACTS = {'Norway': 'Its capital is Oslo.', 'Cusco': 'A city. Its country is Peru.',
         'Peru': 'And its currency is sol.'}


class Shelf:
  """A retriever that knows the task's documents by title (a fake)."""

  def search(self, queries, top_k):
    return [[types.Passage(query, FACTS[query])] for query in queries]


def play(agent, rng):
  return expert.play(TASK, agent, qa.QAEpisode(TASK, Shelf(), CONFIG), TOKENIZER, rng)


@pytest.mark.parametrize('make', by_hand.AGENTS)
@pytest.mark.parametrize('gap', [0, 30])
def test_the_cache_holds_what_the_agent_sees(make, gap):
  agent = by_hand.make(make, 300, Gaps(gap, gap, 1.0), notes=9)
  trajectory = play(agent, np.random.default_rng(1) if gap else None)
  prompt, turns = trajectory.prompt, trajectory.turns
  assert len(turns) == 4 and trajectory.is_append_only == agent.is_append_only
  keeps = [len(prompt) - 1]  # as the agent says, asked again with the turns that it had
  for j in range(1, len(turns)):
    text = TOKENIZER.decode(turns[j].context.segment.ids[turns[j].context.num_carried:])
    content = text.removeprefix('<information>').removesuffix('</information>')
    context, keep = agent.context(prompt, turns[:j], content, None)
    assert context.segment.ids == turns[j].context.segment.ids
    keeps.append(keep)
  ids, positions, everything = list(prompt.ids[:-1]), list(prompt.positions[:-1]), ''
  last, notes = '', ['']
  for j, (turn, keep) in enumerate(zip(turns, keeps)):
    context = turn.context.segment
    assert keep <= len(ids)
    ids = ids[:keep] + list(context.ids) + list(turn.written.ids)
    positions = positions[:keep] + list(context.positions) + list(turn.written.positions)
    assert (np.diff(positions) >= 1).all()
    assert len(turn.written) == turn.written.positions[-1] - context.positions[-1]
    block = TOKENIZER.decode(context.ids[turn.context.num_carried:])
    now = TOKENIZER.decode(turn.written.ids)
    everything += block + now
    seen = {Mem1Agent: last + block + now, AMemAgent: ''.join(notes) + last + block + now}
    assert TOKENIZER.decode(ids) == TOKENIZER.decode(prompt.ids) + seen.get(make, everything)
    notes += [last.partition('</think>')[2] + block] if j else []
    last = now
    if not gap:
      assert positions == list(range(len(ids)))
