"""A supervised step and rollout turns are the same on every mesh."""

import functools
import re

import jax
import numpy as np
import pytest

from tests.parallel import programs

RANKS = pytest.mark.parametrize('rank', [0, programs.RANK], ids=['whole', 'lora'])
stepped, turns = functools.cache(programs.sft_step), functools.cache(programs.turns)


@RANKS
@pytest.mark.parametrize('sizes', [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_a_supervised_step(sizes, rank):
  ((_, one), want), ((_, many), got) = stepped(1, 1, 1, rank=rank), stepped(*sizes, rank=rank)
  np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)
  for x, y in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):  # gradients
    assert np.linalg.norm(np.asarray(x) - y) <= 1e-5 * np.linalg.norm(y)


@RANKS
@pytest.mark.parametrize('sizes', [(1, 1, 2), (2, 2, 2)], ids=str)  # slots whole, and split
def test_turns_write_the_tokens_of_one_device(sizes, rank):
  one, whole = turns(1, 1, 1, rank=rank)
  many, cache = turns(*sizes, rank=rank)
  for got, want in zip(many, one, strict=True):
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.length, want.length)
    np.testing.assert_allclose(got.logprob, want.logprob, atol=1e-5)
  for turn in one[:2]:
    assert turn.length[5] == 0 and np.delete(turn.length, 5).min() > 0
    assert len(np.unique(turn.tokens, axis=0)) > 4  # slots differ
  assert np.flatnonzero(one[2].length).tolist() == [3]
  np.testing.assert_array_equal(cache.length, whole.length)
  for slot, length in enumerate(whole.length):
    np.testing.assert_allclose(cache.k[:, slot, :length], whole.k[:, slot, :length], atol=1e-5)
  # [L, B, M, K, H]: slots over data and fsdp, heads over tensor
  num_groups = sizes[0] * sizes[1]
  assert cache.k.addressable_shards[0].data.shape == (2, 8 // num_groups, 96, 2 // 2, 8)


def test_no_cache_goes_from_device_to_device():
  sent = re.findall(r'= (\S+|\(.*?\)) (?:all-|ragged-|collective-|reduce-scatter)',
                    programs.turn_text(2, 2, 2))
  assert len(sent) > 10
  assert not [shapes for shapes in sent if re.search(r'\b96\b', shapes)]  # the cache's capacity
