"""What the exact layout is worth: rows as the sampler saw them, or stitched as the paper's are.

    python -m mem1_jax.main sweep --sweep=layout --config=atlas_hasty \\
        --command='train then evaluate' --workdir=runs/layout

Two layouts, three seeds: six points of about 5 minutes of training and 4 of evaluation on two CPU
cores, an hour in all.
"""

from mem1_jax.sweep.points import product, sweep


def get_sweep():
  return product(sweep('rows.layout', ['exact', 'stitched']), sweep('seed', range(3)))
