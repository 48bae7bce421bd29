"""Supervised training of the agent that PPO in the atlas begins from: it gives up too soon.

    python -m mem1_jax.main sft --config=atlas_hasty_sft --workdir=runs/hasty

In half of its episodes the expert looks up the first question alone.
"""

from ml_collections import ConfigDict

from mem1_jax.configs import atlas_sft


def get_config() -> ConfigDict:
  c = atlas_sft.get_config()
  c.init = 'atlas/mem1'
  c.sft.steps = 100
  c.sft.hasty = 0.5
  c.sft.drill_share = 0.0
  c.data.objectives = (2, 2)
  c.optim.policy_lr = 1e-3
  return c
