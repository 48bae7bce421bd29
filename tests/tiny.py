"""The atlas config at a size that compiles in seconds."""

from mem1_jax.configs import base


def tiny_config():
  c = base.get_config()
  c.compilation_cache = ''
  c.model.name = 'tiny'
  c.data.feed = 'numpy'
  c.data.objectives = (1, 2)
  r = c.rollout
  r.num_slots, r.question_capacity, r.context_capacity, r.turn_capacity = 4, 64, 160, 32
  r.append_capacity, r.prefill_chunk, r.max_tokens = 1024, 32, 12
  c.rows.length = 1024
  p = c.ppo
  p.entropy_coef = 0.01  # a random model earns no reward; this moves it all the same
  p.iterations, p.tasks, p.num_rows, p.micro_rows, p.minibatches = 4, 4, 4, 1, 2
  c.eval.every, c.eval.every_tasks, c.eval.tasks, c.eval.max_tokens = 2, 4, 4, 12
  c.eval.max_tokens_per_objective = 0
  c.eval.objectives = (1, 2)
  c.checkpoint.every = 2
  c.log.tensorboard = False
  c.sft.steps, c.sft.rows_per_step, c.sft.log_every, c.sft.checkpoint_every = 4, 2, 1, 2
  return c


def training_config(iterations, *mesh):
  """The tiny config with slots and rows that several devices share."""
  config = tiny_config()
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
  config.rollout.num_slots, config.ppo.num_rows = 4, 8
  config.ppo.tasks, config.ppo.micro_rows, config.ppo.iterations = 6, 2, iterations
  config.checkpoint.every = 1
  return config
