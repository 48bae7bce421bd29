"""A minimal map from transformers' parameter names to ours, enough for tests."""

import numpy as np


def from_hf(weights: dict[str, np.ndarray], config) -> dict:
  """Our parameters from a state_dict of Qwen2ForCausalLM or Qwen3ForCausalLM, as NumPy."""
  D, H = config.dim, config.head_dim

  def stack(name, shape, transpose=True):
    per_layer = [weights[f'model.layers.{i}.{name}'] for i in range(config.num_layers)]
    return np.stack([(x.T if transpose else x).reshape(shape) for x in per_layer])

  def projection(letter, heads):
    name = f'self_attn.{letter}_proj'
    leaves = {'kernel': stack(f'{name}.weight', (D, heads, H))}
    if config.qkv_bias:
      leaves['bias'] = stack(f'{name}.bias', (heads, H), transpose=False)
    return leaves

  attention = {
      'q': projection('q', config.num_heads), 'k': projection('k', config.num_kv_heads),
      'v': projection('v', config.num_kv_heads),
      'o': {'kernel': stack('self_attn.o_proj.weight', (config.num_heads, H, D))}}
  for norm in ('q_norm', 'k_norm') if config.qk_norm else ():
    attention[norm] = {'scale': stack(f'self_attn.{norm}.weight', (H,), transpose=False)}
  shapes = {'gate': (D, config.ffn_dim), 'up': (D, config.ffn_dim), 'down': (config.ffn_dim, D)}
  params = {
      'embed': {'embedding': weights['model.embed_tokens.weight']},
      'final_norm': {'scale': weights['model.norm.weight']},
      'layers': {
          'attention': attention,
          'mlp': {name: {'kernel': stack(f'mlp.{name}_proj.weight', shape)}
                  for name, shape in shapes.items()},
          'attention_norm': {'scale': stack('input_layernorm.weight', (D,), transpose=False)},
          'mlp_norm': {'scale': stack('post_attention_layernorm.weight', (D,), transpose=False)}}}
  if not config.tie_embeddings:
    params['head'] = weights['lm_head.weight'].T
  return params
