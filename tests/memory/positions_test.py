"""Position gaps: pieces stay whole, move apart by no more than asked, and never in evaluation."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mem1_jax.memory import positions
from mem1_jax.types import Kind

LINES = [[1, 2], [3, 4, 5], [6, 7]]
NONE, ALWAYS = positions.Gaps(0, 0, 1.0), positions.Gaps(20, 10, 1.0)


def test_without_gaps_positions_count():
  rng = np.random.default_rng(0)
  for prompt in (positions.stretch_prompt(LINES, ALWAYS, None),
                 positions.stretch_prompt(LINES, NONE, rng),
                 positions.stretch_prompt(LINES, positions.Gaps(20, 10, 0.0), rng)):
    assert prompt.ids == (1, 2, 3, 4, 5, 6, 7)
    assert prompt.positions == (0, 1, 2, 3, 4, 5, 6)
    assert prompt.kinds == (Kind.PROMPT,) * 7
  assert positions.turn_gap(ALWAYS, None) == positions.turn_gap(NONE, rng) == 0
  assert positions.turn_gap(positions.Gaps(20, 10, 0.0), rng) == 0


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5), most=st.integers(1, 50),
       seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_pieces_stay_whole(lengths, most, seed):
  lines = [list(range(n)) for n in lengths]
  prompt = positions.stretch_prompt(lines, positions.Gaps(most, 0, 1.0),
                                    np.random.default_rng(seed))
  steps = np.diff(prompt.positions, prepend=-1)
  total = sum(lengths)
  assert len(prompt) == total and prompt.ids == tuple(i for line in lines for i in line)
  assert (steps >= 1).all() and prompt.positions[-1] - (total - 1) <= most
  # Only the first token of a line and the very last token may stand further on.
  may_skip = {0, total - 1, *np.cumsum(lengths)[:-1].tolist()}
  assert set(np.flatnonzero(steps > 1).tolist()) <= may_skip


def test_every_gap_is_reached():
  prompts = [positions.stretch_prompt(LINES, ALWAYS, np.random.default_rng(i)) for i in range(200)]
  steps = np.array([np.diff(p.positions, prepend=-1) for p in prompts])
  assert (steps.max(0) > 1).tolist() == [True, False, True, False, False, True, True]
  ends = {p.positions[-1] - 6 for p in prompts}
  assert min(ends) == 0 and max(ends) == 20


def test_gaps_of_turns():
  rng = np.random.default_rng(0)
  assert {positions.turn_gap(ALWAYS, rng) for _ in range(300)} == set(range(11))
  half = [positions.turn_gap(positions.Gaps(0, 1000, 0.5), rng) for _ in range(400)]
  assert 140 < sum(gap == 0 for gap in half) < 260


@pytest.mark.parametrize('values', [(-1, 0, 0.5), (0, -1, 0.5), (0, 0, 1.1), (0, 0, -0.1)])
def test_bad_gaps(values):
  with pytest.raises(ValueError, match='gaps ≥ 0 and a probability'):
    positions.Gaps(*values)
