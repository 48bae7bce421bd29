"""The models that benchmarks give to all peers: sizes, and weights in a folder for all to read."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from mem1_jax.model import ModelConfig, build_critic, build_policy, hf, named_config
from mem1_jax.model.config import NAMED_CONFIGS

# Qwen2.5's proportions: the FFN is 5.5 times as wide as the residual stream.
SMALL = dict(vocab_size=2048, dim=128, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=32,
             ffn_dim=704, copy_heads=None)
NAMES = ('small', *NAMED_CONFIGS)


def sizes(name: str, **changes) -> ModelConfig:
  """Of one of `NAMES`."""
  if name == 'small':
    return named_config('atlas', **SMALL, **changes)
  return named_config(name, copy_heads=None, **changes)


def save_weights(folder: pathlib.Path, model: ModelConfig, seed: int):
  """Policy and critic as transformers reads them; the critic has a head that is not zero."""
  policy = build_policy(model, 'reference').init(jax.random.key(seed))
  critic = build_critic(model, 'reference')
  params = critic.from_policy(policy, jax.random.key(0))
  value = 0.02 * np.random.default_rng(seed).standard_normal((model.dim, 1))
  hf.save(folder / 'policy', policy, model, 'float32')
  hf.save(folder / 'critic', params | {'value': value}, critic.config, 'float32', is_critic=True)


def save_settings(folder: pathlib.Path, model: ModelConfig, **settings) -> pathlib.Path:
  """What workers are told: the sizes, where the weights are, and more."""
  file = folder / 'settings.json'
  file.write_text(json.dumps(
      {'model': dataclasses.asdict(model), 'weights': str(folder)} | settings))
  return file
