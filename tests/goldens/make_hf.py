"""Writes hf_qwen2.npz and hf_qwen3.npz: tiny random transformers models and their logits.

    python -m tests.goldens.make_hf        (needs torch and transformers)

What differs from every default on purpose: rope_theta, rms_norm_eps, K < N, H != D/N, and biases
and norm scales that are not 0 and 1.
"""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
SIZES = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, intermediate_size=40)
# Qwen2's class has always taken head_dim from the config where it is given.
CONSTANTS = dict(rope_theta=321.0, rms_norm_eps=1e-3)
TIED = {'qwen2': False, 'qwen3': True}


def make(family: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
  """(weights by transformers' name, tokens [2, 33], logits [2, 33, V]), float32."""
  import torch
  import transformers

  config_class, model_class = {
      'qwen2': (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
      'qwen3': (transformers.Qwen3Config, transformers.Qwen3ForCausalLM)}[family]
  rms_norm_eps = CONSTANTS['rms_norm_eps']
  rope = {'rope_type': 'default', 'rope_theta': CONSTANTS['rope_theta']}
  model = model_class(config_class(
      **SIZES, rms_norm_eps=rms_norm_eps, rope_parameters=rope,
      tie_word_embeddings=TIED[family], attn_implementation='eager')).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      noise = torch.randn(weight.shape, generator=generator)
      weight.copy_(1 + 0.3 * noise if 'norm' in name else 0.3 * noise)
    tokens = torch.randint(SIZES['vocab_size'], (2, 33), generator=generator)
    logits = model(tokens).logits
  weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
  return weights, tokens.numpy(), logits.numpy()


if __name__ == '__main__':
  for family in TIED:
    weights, tokens, logits = make(family, seed=0)
    np.savez_compressed(FOLDER / f'hf_{family}.npz', tokens=tokens, logits=logits, **weights)
