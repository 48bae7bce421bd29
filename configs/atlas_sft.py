"""Supervised training of an agent on the scripted expert's 2-objective episodes.

    python -m mem1_jax.main sft --config=atlas_sft --workdir=runs/mem1 \\
        --config.init=atlas/pretrained
    python -m mem1_jax.main sft --config=atlas_sft --workdir=runs/full_context \\
        --config.init=atlas/pretrained --config.agent=full_context
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.data.objectives = (1, 2)
  c.sft.steps = 1000
  c.sft.invented = 0.7
  c.sft.world_size = 500
  c.sft.drill_share = 0.5
  c.sft.rows_per_step = 3
  c.sft.save_dtype = 'bfloat16'
  c.rows.length = 1280
  c.optim.name = 'muon'
  c.optim.policy_lr = 2e-3
  c.optim.warmup = 20
  c.optim.schedule = 'cosine'
  return c
