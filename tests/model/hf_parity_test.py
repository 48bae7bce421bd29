"""Logits equal transformers' Qwen2 and Qwen3: stored ones, and live ones where torch is."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mem1_jax.model import build_policy
from mem1_jax.ops.logprobs import sampling_logits
from tests.goldens import make_hf
from tests.model import small
from tests.model.hf_weights import from_hf

VARIANTS = {'qwen2': small.QWEN2, 'qwen3': small.QWEN3}


def _config(family):
  return small.small_config(
      rope_theta=make_hf.CONSTANTS['rope_theta'], rms_eps=make_hf.CONSTANTS['rms_norm_eps'],
      **VARIANTS[family])


def _largest_gap(family, weights, tokens, logits):
  config = _config(family)
  params = jax.tree.map(jnp.asarray, from_hf(weights, config))
  policy = build_policy(config, 'reference')
  tokens = jnp.asarray(tokens, jnp.int32)
  position = jnp.tile(jnp.arange(tokens.shape[1])[None], (len(tokens), 1))
  with jax.default_matmul_precision('highest'):
    hidden = jax.jit(policy.apply)(params, tokens, position, position * 0 + tokens.shape[1])
    ours = sampling_logits(hidden, policy.head(params), 1.0, config.vocab_size)
  assert np.abs(logits).max() > 1  # there is something to get wrong
  return np.abs(ours - logits).max()


@pytest.mark.parametrize('family', VARIANTS)
def test_stored_logits(family):
  stored = dict(np.load(make_hf.FOLDER / f'hf_{family}.npz'))
  tokens, logits = stored.pop('tokens'), stored.pop('logits')
  assert _largest_gap(family, stored, tokens, logits) <= 1e-4


@pytest.mark.parametrize('family', VARIANTS)
def test_the_map_covers_every_parameter(family):
  stored = dict(np.load(make_hf.FOLDER / f'hf_{family}.npz'))
  config = _config(family)
  mapped = jax.tree.map(np.shape, from_hf(stored, config))
  expected = jax.tree.map(lambda x: x.shape, jax.eval_shape(
      build_policy(config).init, jax.random.key(0)))
  assert mapped == expected


@pytest.mark.skipif(importlib.util.find_spec('torch') is None, reason='torch is not installed')
@pytest.mark.parametrize('family', VARIANTS)
def test_live_logits(family):
  assert _largest_gap(family, *make_hf.make(family, seed=1)) <= 1e-4
