"""Supervised training of an agent on the scripted shopper's episodes in the embedded shop.

    python -m mem1_jax.main sft --config=webshop_sft --workdir=runs/webshop_sft
"""

from ml_collections import ConfigDict

from mem1_jax.configs import webshop


def get_config() -> ConfigDict:
  c = webshop.get_config()
  c.init = 'atlas/mem1'
  c.sft.steps = 350
  c.sft.hasty = 0.5
  c.sft.openings = 0.7
  c.sft.drill_share = 0.0
  c.sft.short_budget = 0.0
  c.sft.long_budget = 0.0
  c.sft.rows_per_step = 3
  c.sft.save_dtype = 'bfloat16'
  c.rows.length = 2560
  c.optim.name = 'muon'
  c.optim.policy_lr = 2e-3
  c.optim.warmup = 20
  c.optim.schedule = 'cosine'
  return c
