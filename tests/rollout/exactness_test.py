"""The learner's log-probs are the sampler's, on every turn, and evicted tokens are gone.

    float64 ≤ 1e-9 shows the logic, float32 at highest matmul precision ≤ 1e-5 the arithmetic
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.arrays import overlay
from mem1_jax.memory import layout
from mem1_jax.model import lora
from mem1_jax.rollout.sampling import sampling
from tests.rollout import small

TOLERANCE = {'float64': 1e-9, 'float32': 1e-5}
NUM_JOBS = 6


def roll_out(dtype, agent, gap, temperature=1.0, params=None):
  params = small.model(dtype)[1] if params is None else params
  options = sampling(temperature, max_tokens=small.MAX_TOKENS)
  trajectories, stats = small.collector(dtype, agent, gap).run(
      params, small.jobs(NUM_JOBS), options)
  assert stats.num_overflow == 0
  return trajectories


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('agent, gap, is_led, temperature', [
    ('mem1', 0, False, 1.0),  # every turn is malformed, told so and dropped
    ('mem1', 0, True, 1.0),  # every turn is carried on, and told what it would have to search
    ('mem1', 60, True, 0.7),
    ('full_context', 0, True, 1.0),
    ('full_context', 60, False, 1.0),
    ('truncation', 60, True, 0.7),
    ('truncation', 0, False, 1.0),
    ('threshold', 60, True, 1.0),
    ('threshold', 0, False, 0.7),
    ('amem', 60, True, 0.7),
    ('amem', 0, False, 1.0),
])
def test_exact_on_every_turn(monkeypatch, dtype, agent, gap, is_led, temperature):
  if is_led:
    small.lead(monkeypatch)
  with small.exact_arithmetic(dtype):
    trajectories = roll_out(dtype, agent, gap, temperature)
    found = small.compare(dtype, trajectories, 'exact', temperature)
  assert [len(t.turns) for t in trajectories] == [5] * NUM_JOBS
  assert all(turn.context.segment.ids for t in trajectories for turn in t.turns)
  for number, turn, difference in found:
    assert difference.max() <= TOLERANCE[dtype], (number, turn)
  logprobs = np.concatenate([turn.logprobs for t in trajectories for turn in t.turns])
  assert logprobs.std() > 0.5  # not a flat distribution, which anything would reproduce


def kept(trajectory):
  """How many earlier turns each turn reads again, in part at least, by the replies there."""
  opening = small.tokenizer().encode('<information>')[0]
  return [turn.context.segment.ids.count(opening) for turn in trajectory.turns[1:]]


def test_those_turns_had_read_what_only_their_agent_keeps(monkeypatch):
  small.lead(monkeypatch)
  with small.exact_arithmetic('float64'):
    seen = {agent: [kept(t) for t in roll_out('float64', agent, 60)] for agent in small.AGENTS}
  assert all(some == [1] * 4 for agent in ('mem1', 'full_context') for some in seen[agent])
  assert max(max(some) for some in seen['truncation']) > 1 < max(map(max, seen['amem']))
  # It grew, dropped what it had, and grew again.
  assert any((np.diff(some) > 0).any() and (np.diff(some) < 0).any() for some in seen['threshold'])


def test_exact_with_adapters(monkeypatch):
  small.lead(monkeypatch)
  with small.exact_arithmetic('float32'):
    _, base = small.model('float32')
    adapters = lora.init(jax.random.key(2), base, 4, tuple(lora.TARGETS))
    adapters = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), adapters)
    params = overlay(base, adapters)
    trajectories = roll_out('float32', 'mem1', 60, params=params)
    found = small.compare('float32', trajectories, 'exact', params=params)
    without = small.compare('float32', trajectories, 'exact')
  assert max(difference.max() for *_, difference in found) <= TOLERANCE['float32']
  assert np.mean([difference.mean() for *_, difference in without]) > 0.1  # they do something


@pytest.mark.parametrize('gap', [0, 60])
def test_stitched_is_exact_on_two_turns_only(monkeypatch, gap):
  small.lead(monkeypatch)
  with small.exact_arithmetic('float64'):
    found = small.compare('float64', roll_out('float64', 'mem1', gap), 'stitched')
  for number, turn, difference in found:
    assert difference.max() <= 1e-9 if turn < 2 else difference.max() > 1e-3, (number, turn)
  assert np.mean([difference.mean() for _, turn, difference in found if turn >= 2]) > 0.05


def test_a_wrong_row_is_noticed():
  """The comparison fails where a turn sees one token less, or stands one position off."""
  with small.exact_arithmetic('float64'):
    trajectory, = roll_out('float64', 'mem1', 0)[:1]
    _, params = small.model('float64')
    row = layout.lay_out(trajectory)
    rows, _ = layout.pack([row], 1, small.ROW_LENGTH, small.tokenizer().pad_id)
    first = int(np.flatnonzero(row['turn'] == 2)[0])
    own = np.flatnonzero(row['is_generated'] & (row['turn'] == 2))
    arrays = {'position': rows.tags.position, 'key_end': rows.tags.key_end}
    run = small.learner('float64')
    right = run(params, rows.tokens, *arrays.values(), jnp.float32(1))
    for name, value in (('key_end', first + 1), ('position', row['position'][first] + 1)):
      wrong = {key: array.copy() for key, array in arrays.items()}
      wrong[name][0, first] = value
      changed = run(params, rows.tokens, *wrong.values(), jnp.float32(1))
      assert np.abs(changed - right)[0, own].max() > 1e-5


@pytest.fixture(scope='module')
def row():
  """Parameters, and layout name → a float32 episode's row and tokens → its log-probs."""
  with small.exact_arithmetic('float32'):
    trajectory = roll_out('float32', 'mem1', 0)[0]
    _, params = small.model('float32')

  def make(name):
    rows, _ = layout.pack([layout.lay_out(trajectory, name)], 1, small.ROW_LENGTH, 0)
    tags = rows.tags

    def logprobs(tokens):
      return np.asarray(small.learner('float32')(params, tokens, tags.position, tags.key_end,
                                                 jnp.float32(1)))[0]

    return rows, logprobs

  return params, make


def edited(tokens, index, vocabulary=1024):
  """`tokens` with another id at `index`, one that the row has nowhere else."""
  tokens = tokens.copy()
  tokens[0, index] = next(i for i in range(20, vocabulary) if i not in tokens)
  return tokens


def test_an_evicted_token_changes_no_bit(row):
  _, make = row
  rows, logprobs = make('exact')
  turn_S, before_S = rows.tags.turn[0], logprobs(rows.tokens)
  for turn in (0, 1):
    index = int(np.flatnonzero(turn_S == turn)[0])
    after_S = logprobs(edited(rows.tokens, index))
    end = int(rows.tags.key_end[0, index])
    np.testing.assert_array_equal(after_S[end + 1:], before_S[end + 1:])
    np.testing.assert_array_equal(after_S[:index], before_S[:index])  # causality
    assert (after_S[index + 1:end] != before_S[index + 1:end]).all()


def test_in_the_stitched_row_it_leaks(row):
  _, make = row
  rows, logprobs = make('stitched')
  turn_S, before_S = rows.tags.turn[0], logprobs(rows.tokens)
  after_S = logprobs(edited(rows.tokens, int(np.flatnonzero(turn_S == 0)[0])))
  is_later = rows.tags.is_generated[0] & (turn_S >= 2)
  assert np.abs(after_S - before_S)[is_later].max() > 1e-3


def test_an_evicted_token_has_no_gradient(row):
  params, make = row
  rows, _ = make('exact')
  turn_S = rows.tags.turn[0]
  index = int(np.flatnonzero(turn_S == 0)[0])
  tokens = edited(rows.tokens, index)
  token = int(tokens[0, index])

  @jax.jit
  def embedding_gradient(weight_S):
    def total(params):
      return (small.learner('float32')(params, tokens, rows.tags.position, rows.tags.key_end,
                                       jnp.float32(1))[0] * weight_S).sum()
    return jax.grad(total)(params)['embed']['embedding'][token]

  is_generated_S = rows.tags.is_generated[0]
  later = embedding_gradient((is_generated_S & (turn_S >= 1)).astype(np.float32))
  own = embedding_gradient((is_generated_S & (turn_S == 0)).astype(np.float32))
  assert (np.asarray(later) == 0).all()
  assert np.abs(own).max() > 1e-3
