"""The constant-memory agent: the question and its last turn, cut only in its information."""

import numpy as np

from mem1_jax import types
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.data import sources
from mem1_jax.memory.positions import Gaps
from mem1_jax.text.tokenizer import SentencePieceTokenizer
from mem1_jax.types import Kind

TOKENIZER = SentencePieceTokenizer(sources.tokenizer_path())
TASK = types.Task('t', (types.Question('a', 'Capital of Norway?', ('Oslo',)),), ('[kf]',), 'test')
AGENT = Mem1Agent(TOKENIZER, 60, 'atlas', Gaps(0, 0, 0.0))
OPEN, CLOSE = TOKENIZER.encode('<information>'), TOKENIZER.encode('</information>')


def turn(context, text, kind=types.ActionKind.SEARCH):
  ids = tuple(TOKENIZER.encode(text))
  first = context.segment.positions[-1] + 1
  written = types.Segment(ids, tuple(range(first, first + len(ids))), (Kind.STATE,) * len(ids))
  return types.TurnRecord(context, written, (0.0,) * len(ids),
                          types.Action(kind, 'x'), types.Stop.TAG, 0.0)


def test_the_question():
  prompt = AGENT.prompt(TASK, None)
  assert TOKENIZER.decode(prompt.ids) == '*>[kf] [kf]>.\n[kf] Capital of Norway?\n'
  assert prompt.positions == tuple(range(len(prompt)))
  context, keep = AGENT.context(prompt, (), '', None)
  assert (context.segment.ids, keep) == (prompt.ids[-1:], len(prompt) - 1)


def test_a_turn_reads_the_turn_before_and_nothing_older():
  prompt = AGENT.prompt(TASK, None)
  first = turn(AGENT.context(prompt, (), '', None)[0], '<think>[kf]</think><search> Oslo</search>')
  second = turn(AGENT.context(prompt, (first,), ' Oslo: big.', None)[0], '<think>new</think>')
  context, keep = AGENT.context(prompt, (first, second), ' none', None)
  assert keep == len(prompt)
  assert TOKENIZER.decode(context.segment.ids) == (
      '<think>new</think><information> none</information>')
  assert context.num_carried == len(second.written)
  n = len(prompt)
  assert context.segment.positions == tuple(range(n, n + len(context.segment)))
  # The copy is of the ids that were sampled, not of their text encoded again.
  assert context.segment.ids[:context.num_carried] == second.written.ids


def test_only_information_is_cut_and_its_closing_tag_stays():
  prompt = AGENT.prompt(TASK, None)
  first = turn(AGENT.context(prompt, (), '', None)[0], '<think>[kf]</think><search> Oslo</search>')
  text = ' Oslo is big.' * 30
  context, _ = AGENT.context(prompt, (first,), text, None)
  ids, n = context.segment.ids, len(first.written)
  assert len(ids) == 60 and ids[:n] == first.written.ids
  assert list(ids[n:n + len(OPEN)]) == OPEN and list(ids[-len(CLOSE):]) == CLOSE
  room = 60 - n - len(OPEN) - len(CLOSE)
  body = TOKENIZER.encode_data(text)
  assert list(ids[n + len(OPEN):-len(CLOSE)]) == body[:room]
  assert context.num_cut == len(body) - room > 0


def test_a_gap_before_the_information():
  agent = Mem1Agent(TOKENIZER, 60, 'atlas', Gaps(0, 1000, 1.0))
  prompt = agent.prompt(TASK, np.random.default_rng(0))
  first = turn(agent.context(prompt, (), '', None)[0], '<think>a</think>')
  context, _ = agent.context(prompt, (first,), ' none', np.random.default_rng(0))
  steps = np.diff(context.segment.positions)
  assert np.flatnonzero(steps > 1).tolist() == [len(first.written) - 1]


def test_a_malformed_turn_is_dropped_and_the_memory_stays():
  agent, bad = Mem1Agent(TOKENIZER, 100, 'atlas', Gaps(0, 0, 0.0)), types.ActionKind.MALFORMED
  prompt = agent.prompt(TASK, None)
  good = turn(agent.context(prompt, (), '', None)[0], '<think>a</think><search> Oslo</search>')
  second = turn(agent.context(prompt, (good,), ' big', None)[0], '<think>bbb', bad)
  context, keep = agent.context(prompt, (good, second), ' no', None)
  told = '<think>a</think><search> Oslo</search><information> big</information>'
  assert keep == len(prompt)
  assert TOKENIZER.decode(context.segment.ids) == told + '<information> no</information>'
  assert TOKENIZER.decode(context.segment.ids[context.num_carried:]) == (
      '<information> no</information>')
  n = len(prompt)
  assert context.segment.positions == tuple(range(n, n + len(context.segment)))
  third = turn(context, '<think>ccc', bad)  # once more: one correction is enough
  again, _ = agent.context(prompt, (good, second, third), ' nono', None)
  assert TOKENIZER.decode(again.segment.ids) == told + '<information> nono</information>'


def test_a_first_turn_that_is_malformed_leaves_the_question_and_the_correction():
  prompt = AGENT.prompt(TASK, None)
  first = turn(AGENT.context(prompt, (), '', None)[0], '<think>a', types.ActionKind.MALFORMED)
  context, keep = AGENT.context(prompt, (first,), ' no', None)
  assert TOKENIZER.decode(context.segment.ids) == '<information> no</information>'
  assert (keep, context.num_carried, context.segment.positions[0]) == (len(prompt), 0, len(prompt))


def test_a_correction_takes_the_place_of_a_reply_that_leaves_no_room():
  prompt = AGENT.prompt(TASK, None)
  good = turn(AGENT.context(prompt, (), '', None)[0], '<think>a</think><search> Oslo</search>')
  reply, _ = AGENT.context(prompt, (good,), ' Oslo is big.' * 30, None)
  context, _ = AGENT.context(prompt, (good, turn(reply, 'b', types.ActionKind.MALFORMED)), ' no',
                             None)
  assert TOKENIZER.decode(context.segment.ids) == (
      '<think>a</think><search> Oslo</search><information> no</information>')
  assert context.num_cut == 60 - len(good.written)
