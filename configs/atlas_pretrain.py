"""Pre-training of the shipped checkpoints on atlas text, from random parameters.

    python -m mem1_jax.main sft --config=atlas_pretrain --workdir=runs/pretrain
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.sft.data = 'text'
  c.sft.steps = 5000
  c.sft.invented = 0.9
  c.sft.world_size = 1000
  c.sft.rows_per_step = 4
  c.rows.length = 1280
  c.optim.name = 'muon'
  c.optim.policy_lr = 6e-3
  c.optim.warmup = 30
  c.optim.schedule = 'cosine'
  return c
