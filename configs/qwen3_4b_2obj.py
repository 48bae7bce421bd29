"""The 7B run's recipe on Qwen3-4B-Base.

    python -m mem1_jax.main plan --config=qwen3_4b_2obj --topology=v6e:4x4
    python -m mem1_jax.main train --config=qwen3_4b_2obj --workdir=runs/qwen3_4b
"""

from ml_collections import ConfigDict

from mem1_jax.configs import qwen2p5_7b_2obj


def get_config() -> ConfigDict:
  c = qwen2p5_7b_2obj.get_config()
  c.init = c.tokenizer.path = 'hf:Qwen/Qwen3-4B-Base'
  c.model.name = 'qwen3-4b'
  return c
