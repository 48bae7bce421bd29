"""PPO in the atlas from an agent that gives up too soon, and learns to go on within minutes.

    python -m mem1_jax.main train --config=atlas_hasty --workdir=runs/hasty
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.init = 'atlas/hasty'
  c.critic = 'head'
  c.optim.policy_lr = 1e-4
  c.ppo.iterations = 24
  return c
