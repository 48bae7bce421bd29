"""Supervised training of an agent on the scripted expert's episodes in the small web.

    python -m mem1_jax.main sft --config=web_sft --workdir=runs/web_sft
"""

from ml_collections import ConfigDict

from mem1_jax.configs import web


def get_config() -> ConfigDict:
  c = web.get_config()
  c.init = 'atlas/mem1'
  c.sft.steps = 200
  c.sft.drill_share = 0.0
  c.sft.rows_per_step = 2
  c.sft.save_dtype = 'bfloat16'
  c.rows.length = 3072
  c.optim.name = 'muon'
  c.optim.policy_lr = 2e-3
  c.optim.warmup = 20
  c.optim.schedule = 'cosine'
  return c
