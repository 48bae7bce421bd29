"""The web made of the embedded documents: PPO of the tiny model on 1- and 2-question tasks.

    python -m mem1_jax.main train --config=web --workdir=runs/web

The open web: --config.web.api=serper, with the key in MEM1_SEARCH_API_KEY.
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.domain = 'web'
  c.init = 'atlas/web'
  c.data.objectives = (1, 2)
  c.env.slack = 4
  c.rollout.question_capacity = 256
  c.rollout.context_capacity = 768
  c.rollout.turn_capacity = 128
  c.rows.length = 3072
  c.eval.objectives = (1, 2)
  c.eval.max_tokens_per_objective = 0
  return c
