"""A supervised step and rollout turns are the same on every mesh."""

import functools

import jax
import numpy as np
import pytest

from tests.parallel import programs

stepped = functools.cache(programs.sft_step)


@pytest.mark.parametrize('sizes', [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_a_supervised_step(sizes):
  ((_, one), want), ((_, many), got) = stepped(1, 1, 1), stepped(*sizes)
  np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)
  for x, y in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):  # gradients
    assert np.linalg.norm(np.asarray(x) - y) <= 1e-5 * np.linalg.norm(y)


def test_turns_write_the_tokens_of_one_device():
  one, _ = programs.turns(1, 1, 1)
  many, cache = programs.turns(2, 2, 2)
  for got, want in zip(many, one, strict=True):
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.length, want.length)
    np.testing.assert_allclose(got.logprob, want.logprob, atol=1e-5)
    assert want.length[5] == 0 and np.delete(want.length, 5).min() > 0
  assert len(np.unique(one[1].tokens, axis=0)) > 4  # slots differ
  # [L, B, M, K, H]: slots over data and fsdp, heads over tensor
  assert cache.k.addressable_shards[0].data.shape == (2, 8 // 4, 96, 2 // 2, 8)
