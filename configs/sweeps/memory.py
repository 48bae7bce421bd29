"""How much memory an agent needs: constant memory, budgets of three kinds, and full context.

    python -m mem1_jax.main sweep --sweep=memory --config=atlas_sft --config.init=atlas/pretrained \\
        --command='sft then evaluate' --workdir=runs/memory

Eleven agents, each supervised on the same tasks as it reads them, then evaluated on 1 to 16
questions. Rows are longer than the config's, so that they hold what such agents read again:
an hour each on two CPU cores, at a guess; `--config.sft.steps=100` for a look.
"""

from mem1_jax.sweep.points import chain, product, sweep

_ROOM = sweep('rows.length', [2560])  # tokens


def get_sweep():
  budgets = product(sweep('agent', ['truncation', 'threshold', 'amem']),
                    sweep('memory.budget', [128, 256, 512]), _ROOM)
  return chain(product(sweep('agent', ['mem1']), _ROOM), budgets,
               product(sweep('agent', ['full_context']), _ROOM))
