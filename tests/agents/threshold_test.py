"""Memory on a threshold: grows like full context, then the last turn alone, and again."""

import numpy as np
import pytest

from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.threshold import ThresholdAgent
from mem1_jax.memory.positions import Gaps
from tests.agents import by_hand
from tests.agents.by_hand import A, B, C, D, TOKENIZER, told

SCRIPT = [(A, ' a'), (B, ' c'), (C, ' a'), (D, ' c'), (A, ' a')]  # 10 tokens each
BLOCKS = [text + told(reply) for text, reply in SCRIPT]


@pytest.mark.parametrize('budget, begins', [
    (50, (0, 0, 0, 0, 0)), (49, (0, 0, 0, 0, 4)), (30, (0, 0, 0, 3, 3)), (29, (0, 0, 2, 2, 4)),
    (20, (0, 0, 2, 2, 4)), (19, (0, 1, 2, 3, 4)), (6, (0, 1, 2, 3, 4))])
def test_it_grows_until_it_passes_the_budget_and_grows_again(budget, begins):
  agent = by_hand.make(ThresholdAgent, 200, budget=budget)
  assert by_hand.seen(agent, SCRIPT) == [
      ''.join(BLOCKS[begin:j + 1]) for j, begin in enumerate(begins)]


def test_below_the_budget_it_sees_what_full_context_sees():
  """Malformed turns and gaps included: ids and positions of the whole cache."""
  script = [(A, ' a'), ('<think>', ' no'), (B, ''), ('<think>*', ' no')]
  gaps = Gaps(9, 40, 0.9)
  whole = by_hand.play(by_hand.make(ThresholdAgent, 200, gaps), script, np.random.default_rng(3))
  prompt, parts = by_hand.play(by_hand.make(FullContextAgent, 200, gaps), script,
                               np.random.default_rng(3))
  assert whole[0] == prompt
  ids, positions = [], []
  for j, context in enumerate(parts[1:]):
    first = parts[j].segment.positions[-1] + 1
    written = TOKENIZER.encode(script[j][0])
    ids += [*written, *context.segment.ids]
    positions += [*range(first, first + len(written)), *context.segment.positions]
    again = whole[1][j + 1].segment
    assert (list(again.ids), list(again.positions)) == (ids, positions)


def test_past_it_the_last_valid_turn_stays_with_its_reply_and_the_correction():
  a, b = A + told(' a'), B + told(' c')
  script = [(A, ' a'), (B, ' c'), ('<think>', ' no'), (C, ' c')]
  agent = by_hand.make(ThresholdAgent, 200, budget=20)
  assert by_hand.seen(agent, script) == [a, a + b, b + told(' no'), C + told(' c')]
  roomy = by_hand.make(ThresholdAgent, 200, budget=20 + by_hand.size('<think>' + told(' no')))
  assert by_hand.seen(roomy, script)[2:] == [a + b + '<think>' + told(' no'), C + told(' c')]


def test_the_last_turn_may_be_longer_than_the_budget_and_its_reply_is_cut_at_the_capacity():
  agent = by_hand.make(ThresholdAgent, 40, budget=30)
  _, contexts = by_hand.play(agent, [(A, ' a'), (B, ' big' * 99)])
  ids, written = contexts[2].segment.ids, tuple(TOKENIZER.encode(B))
  assert len(ids) == 40 and ids[:len(written)] == written
  assert contexts[2].num_carried == len(written)
  assert contexts[2].num_cut == by_hand.size(B + told(' big' * 99)) - 40
