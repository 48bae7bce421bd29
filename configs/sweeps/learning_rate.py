"""Which learning rate PPO wants, for an agent that gives up too soon: three rates, two seeds.

    python -m mem1_jax.main sweep --sweep=learning_rate --config=atlas_hasty --workdir=runs/lr

Six points of 24 iterations, about 5 minutes each on two CPU cores: half an hour. `--jobs=2` gives
each a core.
"""

from mem1_jax.sweep.points import product, sweep


def get_sweep():
  return product(sweep('optim.policy_lr', [3e-5, 1e-4, 3e-4]), sweep('seed', range(2)))
