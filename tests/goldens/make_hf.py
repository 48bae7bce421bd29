"""Writes hf_{qwen2,qwen3,llama}.npz: tiny random transformers models and their logits.

    python -m tests.goldens.make_hf [FAMILY …]        (needs torch and transformers)

What differs from every default on purpose: rope_theta, rms_norm_eps, K < N, H != D/N, and biases
and norm scales that are not 0 and 1.
"""

import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).parent
SIZES = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, intermediate_size=40)
# Qwen2's class has always taken head_dim from the config where it is given.
CONSTANTS = dict(rope_theta=321.0, rms_norm_eps=1e-3)
TIED = {'qwen2': False, 'qwen3': True, 'llama': False}


def raw_config(family: str, **overrides) -> dict:
  """config.json of these models, as it was before transformers 5."""
  return SIZES | CONSTANTS | {
      'model_type': family, 'tie_word_embeddings': TIED[family], 'hidden_act': 'silu',
      'rope_scaling': None, 'max_position_embeddings': 64, 'initializer_range': 0.02} | overrides


def make_model(family: str, seed: int, kind: str = 'ForCausalLM', **overrides):
  """A transformers model of `raw_config` with random weights, float32."""
  import torch
  import transformers

  raw = raw_config(family, **overrides)
  config_class, model_class = {
      'qwen2': (transformers.Qwen2Config, 'Qwen2'), 'qwen3': (transformers.Qwen3Config, 'Qwen3'),
      'llama': (transformers.LlamaConfig, 'Llama')}[family]
  rope = {'rope_type': 'default', 'rope_theta': raw.pop('rope_theta')}
  for key in ('model_type', 'rope_scaling'):
    raw.pop(key)
  model = getattr(transformers, model_class + kind)(config_class(
      **raw, rope_parameters=rope, attn_implementation='eager')).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      noise = torch.randn(weight.shape, generator=generator)
      weight.copy_(1 + 0.3 * noise if 'norm' in name else 0.3 * noise)
  return model


def logits_of(model, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(tokens [2, 33], logits [2, 33, V])."""
  import torch

  generator = torch.Generator().manual_seed(seed)
  tokens = torch.randint(model.config.vocab_size, (2, 33), generator=generator)
  with torch.no_grad():
    return tokens.numpy(), model(tokens).logits.numpy()


def weights_of(model) -> dict[str, np.ndarray]:
  return {name: weight.detach().numpy() for name, weight in model.named_parameters()}


if __name__ == '__main__':
  for family in sys.argv[1:] or TIED:
    model = make_model(family, seed=0)
    tokens, logits = logits_of(model, seed=0)
    np.savez_compressed(
        FOLDER / f'hf_{family}.npz', tokens=tokens, logits=logits, **weights_of(model))
