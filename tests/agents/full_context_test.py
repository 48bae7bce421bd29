"""The full-context agent: nothing is dropped, nothing is read twice."""

import numpy as np

from mem1_jax import types
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.data import sources
from mem1_jax.memory.positions import Gaps
from mem1_jax.text.tokenizer import SentencePieceTokenizer
from mem1_jax.types import Kind

TOKENIZER = SentencePieceTokenizer(sources.tokenizer_path())
TASK = types.Task('t', (types.Question('a', 'Capital of Norway?', ('Oslo',)),), ('[kf]',), 'test')
AGENT = FullContextAgent(TOKENIZER, 20, 'atlas', Gaps(0, 0, 0.0))


def turn(context, ids):
  first = context.segment.positions[-1] + 1
  written = types.Segment(ids, tuple(range(first, first + len(ids))), (Kind.STATE,) * len(ids))
  return types.TurnRecord(context, written, (0.0,) * len(ids),
                          types.Action(types.ActionKind.SEARCH, 'x'), types.Stop.TAG, 0.0)


def test_the_cache_grows_by_what_is_new():
  prompt = AGENT.prompt(TASK, None)
  P = len(prompt)
  context, keep = AGENT.context(prompt, (), '', None)
  assert (context.segment.positions, keep) == ((P - 1,), P - 1)
  turns = (turn(context, (40, 41, 42)),)
  context, keep = AGENT.context(prompt, turns, ' none', None)
  assert TOKENIZER.decode(context.segment.ids) == '<information> none</information>'
  assert (keep, context.num_carried) == (P + 3, 0)
  assert context.segment.positions[0] == P + 3
  n = len(context.segment)
  turns += (turn(context, (50, 51)),)
  context, keep = AGENT.context(prompt, turns, ' none', None)
  assert keep == P + 3 + n + 2
  assert context.segment.positions == tuple(range(keep, keep + n))


def test_a_long_reply_is_cut_to_the_capacity_of_a_turn():
  prompt = AGENT.prompt(TASK, None)
  turns = (turn(AGENT.context(prompt, (), '', None)[0], (40,) * 50),)
  text = ' Oslo is big.' * 30
  context, _ = AGENT.context(prompt, turns, text, None)
  assert len(context.segment) == 20
  assert TOKENIZER.decode(context.segment.ids).endswith('</information>')
  assert context.num_cut == len(TOKENIZER.encode_data(text)) - 18


def test_a_gap_before_the_information():
  agent = FullContextAgent(TOKENIZER, 20, 'atlas', Gaps(0, 500, 1.0))
  prompt = agent.prompt(TASK, None)
  turns = (turn(agent.context(prompt, (), '', None)[0], (40, 41)),)
  begins = {agent.context(prompt, turns, ' a', np.random.default_rng(i))[0].segment.positions[0]
            for i in range(5)}
  assert len(begins) == 5 and min(begins) >= len(prompt) + 2
