"""The embedded shop: PPO of the tiny model, one goal a task, from the shipped checkpoint.

    python -m mem1_jax.main train --config=webshop --workdir=runs/webshop
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.domain = 'webshop'
  c.init = 'atlas/webshop'
  c.data.objectives = (1, 1)
  c.env.turns = '8'
  c.shop.page_products = 5
  c.shop.page_name_chars = 60
  c.shop.page_text_chars = 300
  c.rollout.question_capacity = 128
  c.rollout.context_capacity = 640
  c.rollout.turn_capacity = 96
  c.rows.length = 2304
  c.gaps.probability = 0.0
  c.critic = 'head'
  c.optim.policy_lr = 5e-5
  c.optim.value_lr = 1e-4
  c.ppo.iterations = 20
  c.eval.objectives = (1,)
  c.eval.max_tokens = 96
  c.eval.max_tokens_per_objective = 0
  return c
