"""Truncation by hand, frequencies, and keys that know no slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.rollout import sampling

SAMPLE = jax.jit(sampling.sample)
LOGITS = jnp.log(jnp.array([[0.5, 0.05, 0.3, 0.15], [0.1, 0.2, 0.3, 0.4]]))


def kept(top_k=0, top_p=1.0):
  cut = sampling.truncate(LOGITS, jnp.int32(top_k), jnp.float32(top_p))
  is_kept = np.isfinite(cut)
  np.testing.assert_array_equal(np.where(is_kept, cut, 0), np.where(is_kept, LOGITS, 0))
  return [np.flatnonzero(row).tolist() for row in is_kept]


def test_truncation():
  everything = [[0, 1, 2, 3]] * 2
  assert kept() == kept(top_k=4) == everything
  assert kept(top_k=9) == everything  # more than the vocabulary
  assert kept(top_k=1) == [[0], [3]]
  assert kept(top_k=2) == [[0, 2], [2, 3]]
  # The smallest sets that reach 0.75: 0.5 + 0.3, and 0.4 + 0.3 + 0.2.
  assert kept(top_p=0.75) == [[0, 2], [1, 2, 3]]
  assert kept(top_p=0.45) == [[0], [2, 3]]
  assert kept(top_p=1e-6) == [[0], [3]]
  assert kept(top_k=2, top_p=0.75) == [[0, 2], [2, 3]]


def test_truncation_ignores_masked_ids():
  logits = jnp.array([[2.0, 1.0, -1e30, -1e30]])
  cut = sampling.truncate(logits, jnp.int32(0), jnp.float32(0.999))
  assert np.isfinite(cut).tolist() == [[True, True, False, False]]


def draw(options, num=4000, logits=LOGITS[:1], step=0):
  ids = jnp.arange(num, dtype=jnp.int32)
  keys = sampling.slot_keys(jnp.int32(0), jnp.int32(0), ids, ids * 0, ids * 0)
  return SAMPLE(jnp.repeat(logits, num, axis=0), keys, jnp.full(num, step, jnp.int32), options)


def test_frequencies():
  token, logprob = draw(sampling.sampling())
  counts = np.bincount(token, minlength=4) / 4000
  np.testing.assert_allclose(counts, [0.5, 0.05, 0.3, 0.15], atol=0.03)  # 3.7 sigma
  np.testing.assert_allclose(logprob, LOGITS[0][token], rtol=1e-6)
  assert token.dtype == jnp.int32
  assert not np.array_equal(token, draw(sampling.sampling(), step=1)[0])


@pytest.mark.parametrize('size', [7, 96, 512])
def test_frequencies_over_pieces_of_a_vocabulary(size):
  logits = 1.5 * jax.random.normal(jax.random.key(size), (1, size)) - 1e30 * (
      jnp.arange(size) % 5 == 4)[None]  # ids that cannot be sampled
  token, _ = draw(sampling.sampling(), num=20_000, logits=logits)
  counts, share = np.bincount(token, minlength=size), np.asarray(jax.nn.softmax(logits[0]))
  assert not counts[share == 0].any()
  expected = 20_000 * share[share > 0]
  chi2 = ((counts[share > 0] - expected)**2 / expected).sum()
  freedom = (share > 0).sum() - 1
  assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


def test_the_ends_of_the_uniform_numbers_are_tokens_that_may_be_sampled():
  logits = jnp.log(jnp.array([[0.0, 1e-30, 1.0, 1e-9, 0.0, 0.0, 0.0, 0.0]]))
  last = np.nextafter(np.float32(1), np.float32(0))
  for first, second, want in ((0.0, 0.0, 1), (0.5, 0.5, 2), (last, last, 2)):
    uniform = jnp.array([[first, second]], jnp.float32)
    assert int(sampling.categorical(logits, uniform)[0]) == want


def test_truncated_frequencies_keep_the_whole_distributions_logprob():
  token, logprob = draw(sampling.sampling(top_k=2))
  counts = np.bincount(token, minlength=4) / 4000
  np.testing.assert_allclose(counts, [0.625, 0, 0.375, 0], atol=0.03)
  np.testing.assert_allclose(logprob, LOGITS[0][token], rtol=1e-6)


def test_greedy():
  token, logprob = draw(sampling.sampling(is_greedy=True))
  assert set(token.tolist()) == {0}
  np.testing.assert_allclose(logprob, np.log(0.5), rtol=1e-6)


def test_keys_are_folded_by_what_a_turn_is_and_not_by_its_slot():
  def keys(seed=0, iteration=0, task=(5, 6), sample=(0, 0), turn=(2, 2)):
    arrays = [jnp.array(x, jnp.int32) for x in (task, sample, turn)]
    made = sampling.slot_keys(jnp.int32(seed), jnp.int32(iteration), *arrays)
    return jax.random.key_data(made).tolist()

  first, second = keys()
  assert first != second
  assert keys(task=(6, 5)) == [second, first]
  changes = [dict(seed=1), dict(iteration=1), dict(sample=(1, 1)), dict(turn=(3, 3)),
             dict(task=(2, 2), turn=(5, 5))]
  others = [keys(**change)[0] for change in changes]
  assert len({tuple(key) for key in [first, *others]}) == 1 + len(changes)


@pytest.mark.parametrize('options, message', [
    (dict(temperature=0.0), 'temperature 0.0 must be > 0; for greedy use is_greedy'),
    (dict(top_k=-1), 'top_k -1 must be ≥ 0'), (dict(top_p=0.0), 'top_p 0.0 in'),
    (dict(top_p=1.5), 'top_p 1.5 in'), (dict(max_tokens=0), 'max_tokens 0 must be ≥ 1')])
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    sampling.sampling(**options)
