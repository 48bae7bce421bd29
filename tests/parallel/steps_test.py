"""A supervised step and rollout turns are the same on every mesh."""

import functools
import re

import jax
import numpy as np
import pytest

from mem1_jax.model import cache as cache_lib
from tests.parallel import programs

RANKS = pytest.mark.parametrize('rank', [
    0, pytest.param(programs.RANK, marks=pytest.mark.slow)], ids=['whole', 'lora'])
stepped, turns, texts = map(functools.cache, (programs.sft_step, programs.turns, programs.texts))


@RANKS
@pytest.mark.parametrize('sizes', [
    *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((8, 1, 1), (1, 8, 1))), (2, 2, 2),
], ids=str)
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
  _, second, third = one
  for turn in one[:2]:
    assert turn.length[5] == 0 and np.delete(turn.length, 5).min() > 0
    assert len(np.unique(turn.tokens, axis=0)) > 4  # slots differ
  for _, before, after in (one, many):  # the third is of one slot: the others have their second
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
      np.testing.assert_array_equal(np.delete(x, 3, 0), np.delete(y, 3, 0))
  assert third.length[3] > 0 and (third.tokens[3] != second.tokens[3]).any()
  np.testing.assert_array_equal(cache.length, whole.length)
  for slot, length in enumerate(whole.length):
    np.testing.assert_allclose(cache.k[:, slot, :length], whole.k[:, slot, :length], atol=1e-5)
  # [L, B, M, E]: slots over data and fsdp, heads over tensor
  num_groups = sizes[0] * sizes[1]
  assert cache.k.addressable_shards[0].data.shape == (
      2, programs.SLOTS // num_groups, programs.CACHE, 2 // 2 * 8)


def is_of_a_cache(shape):
  """Whether it has the tokens of a cache, or of a block of one, as only a cache has."""
  return (not {programs.QUESTION, programs.CACHE}.isdisjoint(shape)
          or (len(shape) > 2 and cache_lib.BLOCK in shape))


@pytest.mark.parametrize('name', ['read', 'refill', 'decode'])
def test_no_cache_goes_from_device_to_device(name):
  sent = re.findall(r'= (\S+|\(.*?\)) (?:all-|ragged-|collective-|reduce-scatter)',
                    texts(2, 2, 2)[name])
  assert len(sent) > 10
  shapes = [tuple(map(int, shape.split(','))) for arrays in sent
            for shape in re.findall(r'\[([\d,]+)\]', arrays)]
  assert not list(filter(is_of_a_cache, shapes))
