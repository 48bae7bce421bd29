"""The embedded world: PPO on 2-objective tasks from the shipped checkpoint.

    python -m mem1_jax.main quickstart
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.init = 'atlas/mem1'
  return c
