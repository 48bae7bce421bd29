"""LoRA on Qwen2.5-0.5B-Instruct, sized for one GPU of 16 GB (a T4, as Colab lends it).

    python -m mem1_jax.main sft --config=qwen2p5_0p5b_lora_colab --workdir=runs/qwen_sft \\
        --config.optim.policy_lr=2e-4
    python -m mem1_jax.main train --config=qwen2p5_0p5b_lora_colab --workdir=runs/qwen_ppo \\
        --config.init=runs/qwen_sft/params
    python -m mem1_jax.main export --config=qwen2p5_0p5b_lora_colab --workdir=runs/qwen_ppo \\
        --config.init=runs/qwen_sft/params --out=runs/qwen_hf

The model does not know the format, so it is supervised first; that run writes its adapters merged,
and PPO's are new ones beside the result. Nothing here has been run on a T4. The update, the program
that has most to hold but for SFT's:

    base, bfloat16, once for policy, critic and reference   494.0M * 2 bytes               0.99 GB
    adapters of rank 16 and Adam's moments, two networks    8.8M * 2 * 3 * 4               0.21 GB
      new ones, and gradients                               8.8M * 2 * 4 * 4               0.28 GB
    the base in float32, if converted before the layers     494.0M * 4                     1.98 GB
    inputs of the layers, kept by policy and critic         2 * 24 * 4096 * 896 * 4        0.70 GB
    one layer computed again, and its gradient              ~ 8 * 4096 * 4864 * 4          0.64 GB
    logits of 256 positions, and their gradient             ~ 4 * 256 * 151,936 * 4        0.62 GB
                                                                                     sum   5.42 GB

An adapter of rank 16 on all seven projections has 24 * 16 * (2 * (896 + 896) + 2 * (896 + 128)
+ 3 * (896 + 4864)) = 8.8M parameters. XLA's plan of the programs, arguments and temporaries, for a
CPU: score 4.1 GB, update 5.5 GB, a turn of 16 slots 4.7 GB (of which 0.63 GB are keys and values,
24 * 16 * 1600 * 2 * 2 * 64 * 4), a step of SFT 6.0 GB.
"""

from ml_collections import ConfigDict

from mem1_jax.configs import base

_MODEL = 'hf:Qwen/Qwen2.5-0.5B-Instruct'


def get_config() -> ConfigDict:
  c = base.get_config()
  c.init = _MODEL
  c.prompt_style = 'chatml'
  c.model.name = 'checkpoint'
  c.model.remat = 'full'
  c.model.param_dtype = 'bfloat16'  # as published: the frozen base loses nothing
  c.model.dtype = 'float32'  # no bfloat16 on a T4; float16 needs optim.loss_scale=16384.0
  c.tokenizer.kind = 'huggingface'
  c.tokenizer.path = _MODEL
  c.lora.rank = 16
  c.critic = 'lora'
  c.gaps.probability = 0.0  # it has seen real distances: nothing to stretch
  c.rollout.num_slots = 16
  c.rollout.question_capacity = 768
  c.rollout.context_capacity = 640
  c.rollout.turn_capacity = 192
  c.rollout.max_tokens = 128
  c.rows.length = 4096
  c.sft.rows_per_step = 2
  c.sft.save_dtype = 'bfloat16'
  c.optim.policy_lr = 1e-5  # ten times the paper's, whose networks are trained whole
  c.optim.value_lr = 1e-4
  c.ppo.tasks = 16
  c.ppo.num_rows = 16
  c.ppo.micro_rows = 1
  c.eval.objectives = (1, 2, 4)
  c.eval.num_slots = 16
  c.eval.max_tokens = 128
  c.eval.max_tokens_per_objective = 16
  return c
