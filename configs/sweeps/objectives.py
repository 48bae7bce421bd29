"""Does training on more questions help with more questions? PPO on 1 to N, asked 1 to 16.

    python -m mem1_jax.main sweep --sweep=objectives --command='train then evaluate' \\
        --config.critic=head --config.optim.policy_lr=1e-4 --workdir=runs/objectives

Four points of 12 iterations and 500 episodes of evaluation: about 4, 5, 8 and 15 minutes of
training on two CPU cores, and 4 of evaluation each.
"""

from mem1_jax.sweep.points import sweep, zipped


def get_sweep():
  # A row holds the longest episode, a turn the list of all answers.
  return zipped(sweep('data.objectives', [(1, 1), (1, 2), (1, 4), (1, 8)]),
                sweep('rows.length', [1024, 1280, 2048, 3840]),
                sweep('rollout.max_tokens', [96, 96, 128, 192]))
