"""The 7B run's recipe on Qwen2.5-1.5B, for sixteen chips of 16 GB (v5e-16) and up.

    python -m mem1_jax.main plan --config=qwen2p5_1p5b_2obj --topology=v5e:4x4
    python -m mem1_jax.main train --config=qwen2p5_1p5b_2obj --workdir=runs/qwen_1p5b
"""

from ml_collections import ConfigDict

from mem1_jax.configs import qwen2p5_7b_2obj


def get_config() -> ConfigDict:
  c = qwen2p5_7b_2obj.get_config()
  c.init = c.tokenizer.path = 'hf:Qwen/Qwen2.5-1.5B'
  c.model.name = 'qwen2.5-1.5b'
  c.mesh.tensor = 2  # as many as key/value heads
  return c
