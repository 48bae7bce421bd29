"""The paper's WebShop run: one goal, ten turns, the environment's reward; for a v5p-64.

    python -m mem1_jax.main plan --config=qwen2p5_7b_webshop --topology=v5p:2x4x4

Give it the official files: --config.shop.products=items_shuffle.json and its neighbours.
"""

from ml_collections import ConfigDict

from mem1_jax.configs import qwen2p5_7b_2obj


def get_config() -> ConfigDict:
  c = qwen2p5_7b_2obj.get_config()
  c.domain = 'webshop'
  c.shop.official_split = True
  c.eval.objectives = (1,)
  c.sft.drill_share = 0.0
  c.data.objectives = (1, 1)
  c.env.turns = '10'  # paper, release
  c.rollout.question_capacity = 1024
  c.rollout.max_tokens = 256  # a click or a search, and what to remember
  c.rollout.context_capacity = 1536  # a turn, and a page of up to 1,000 tokens
  c.rows.length = 12288
  return c
