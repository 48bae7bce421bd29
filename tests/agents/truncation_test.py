"""The sliding window: what is in view at each turn, by hand."""

import numpy as np
import pytest

from mem1_jax.agents.truncation import TruncationAgent
from mem1_jax.memory.positions import Gaps
from tests.agents import by_hand
from tests.agents.by_hand import A, B, C, D, TOKENIZER, told

SCRIPT = [(A, ' a'), (B, ' c'), (C, ' a'), (D, ' c')]
BLOCKS = [text + told(reply) for text, reply in SCRIPT]


@pytest.mark.parametrize('budget, begins', [
    (40, (0, 0, 0, 0)), (39, (0, 0, 0, 1)), (30, (0, 0, 0, 1)), (29, (0, 0, 1, 2)),
    (20, (0, 0, 1, 2)), (19, (0, 1, 2, 3)), (6, (0, 1, 2, 3))])
def test_the_newest_whole_turns_that_fit(budget, begins):
  agent = by_hand.make(TruncationAgent, 200, budget=budget)
  assert [by_hand.size(block) for block in BLOCKS] == [10] * 4
  assert by_hand.seen(agent, SCRIPT) == [
      ''.join(BLOCKS[begin:j + 1]) for j, begin in enumerate(begins)]


def test_the_ids_are_those_that_were_sampled():
  agent = by_hand.make(TruncationAgent, 200)
  _, contexts = by_hand.play(agent, SCRIPT)
  written = [tuple(TOKENIZER.encode(text)) for text, _ in SCRIPT]
  replies = [tuple(TOKENIZER.encode(told(reply))) for _, reply in SCRIPT]
  assert contexts[2].segment.ids == written[0] + replies[0] + written[1] + replies[1]
  assert contexts[2].num_carried == len(written[0] + replies[0] + written[1])


def test_an_older_turn_never_stands_without_those_after_it():
  long = ' long' * 20
  script = [(A, ' a'), (B, long), (C, ' a')]
  agent = by_hand.make(TruncationAgent, 200, budget=20)
  assert by_hand.seen(agent, script)[2] == BLOCKS[2]  # turn 0 would fit, turn 1 does not


def test_the_last_turn_stays_and_only_the_end_of_its_reply_is_cut():
  agent = by_hand.make(TruncationAgent, 40, budget=30)
  _, contexts = by_hand.play(agent, [(A, ' a'), (B, ' big' * 99)])
  ids, written = contexts[2].segment.ids, tuple(TOKENIZER.encode(B))
  assert len(ids) == 40 and ids[:len(written)] == written
  assert TOKENIZER.decode(ids).endswith('</information>')
  assert contexts[2].num_cut == by_hand.size(B + told(' big' * 99)) - 40


def test_malformed_turns_are_not_in_the_window():
  script = [(A, ' a'), ('<think>', ' no'), ('<think>*', ' no no'), (B, ' b'), (C, '')]
  agent = by_hand.make(TruncationAgent, 200)
  a, b = A + told(' a'), B + told(' b')
  assert by_hand.seen(agent, script) == [
      a, a + told(' no'), a + told(' no no'), a + b, a + b + C + told('')]
  assert by_hand.seen(agent, [('<think>', ' no'), (A, ' a')]) == [told(' no'), a]


def test_gaps_stand_before_replies_and_stay():
  agent = by_hand.make(TruncationAgent, 200, Gaps(0, 1000, 1.0))
  prompt, contexts = by_hand.play(agent, SCRIPT[:3], np.random.default_rng(0))
  ends = [by_hand.size(text) for block, (text, _) in zip(BLOCKS, SCRIPT) for text in (text, block)]
  expected = [ends[0] - 1, ends[1] + ends[2] - 1, ends[1] + ends[3] + ends[4] - 1]
  steps = np.diff(contexts[3].segment.positions)
  assert np.flatnonzero(steps > 1).tolist() == expected
  assert np.diff(contexts[2].segment.positions).tolist() == steps[:ends[1] + ends[3] - 1].tolist()
  assert contexts[3].segment.positions[0] == prompt.positions[-1] + 1
