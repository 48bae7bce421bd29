"""Named sizes are the published ones; nonsense is refused."""

import dataclasses

import jax
import pytest

from mem1_jax.model import build_policy, named_config
from mem1_jax.model.config import NAMED_CONFIGS

# Totals of the published checkpoints' safetensors (Hugging Face model cards).
PUBLISHED = {
    'qwen2.5-0.5b': 494_032_768, 'qwen2.5-1.5b': 1_543_714_304, 'qwen2.5-3b': 3_085_938_688,
    'qwen2.5-7b': 7_615_616_512, 'qwen3-0.6b': 596_049_920, 'qwen3-1.7b': 1_720_574_976,
    'qwen3-4b': 4_022_468_096, 'qwen3-8b': 8_190_735_360}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  assert named_config(name).num_params() == PUBLISHED[name]


@pytest.mark.parametrize('config', [
    *map(named_config, NAMED_CONFIGS), named_config('tiny', o_bias=True, tie_embeddings=False)])
def test_num_params_counts_what_init_makes(config):
  shapes = jax.eval_shape(build_policy(config).init, jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == config.num_params()


def test_atlas_is_small():
  assert 300_000 <= named_config('atlas').num_params() <= 2_000_000


def test_overrides():
  assert named_config('atlas', vocab_size=512).vocab_size == 512
  with pytest.raises(TypeError):
    named_config('atlas', vocab=512)
  with pytest.raises(ValueError, match='choose one of'):
    named_config('qwen9')


def test_differences_are_those_of_the_arithmetic():
  atlas = named_config('atlas')
  assert not atlas.differences(named_config('atlas', dtype='bfloat16', remat='full'))
  assert atlas.differences(named_config('atlas', rms_eps=1e-5, num_layers=2)) == [
      'num_layers', 'rms_eps']


def test_numbers_have_no_default():
  fields = {field.name: field for field in dataclasses.fields(named_config('atlas'))}
  for name in ('rope_theta', 'rms_eps', 'init_std', 'tie_embeddings', 'qk_norm', 'o_bias', 'dtype'):
    assert fields[name].default is dataclasses.MISSING


@pytest.mark.parametrize('override, message', [
    ({'num_kv_heads': 3}, 'num_kv_heads=3'), ({'head_dim': 7}, 'head_dim=7'),
    ({'dim': 0}, 'dim=0'), ({'rope_theta': 0.0}, 'rope_theta=0.0'),
    ({'remat': 'some'}, "'some'"), ({'dtype': 'int8'}, "'int8'")])
def test_nonsense_is_refused(override, message):
  with pytest.raises(ValueError, match=message):
    named_config('atlas', **override)
