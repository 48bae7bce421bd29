"""The summary's agents as a Markdown table and as a table for the terminal.

Both take `agents`: {agent: {objectives: {field: number}}} (report/summary.py).
"""

from collections.abc import Iterator, Mapping

from rich import box, console
from rich import table as rich_table

# agent → the name that people read
NAMES = {
    'mem1_sft': 'constant memory, before PPO',
    'mem1_ppo': 'constant memory, after PPO',
    'full_context': 'full context',
}
# field → (heading, format)
COLUMNS = {
    'em': ('EM', '.3f'),
    'em_per_question': ('EM/N', '.3f'),
    'f1': ('F1', '.3f'),
    'answered': ('answered', '.0%'),
    'peak_tokens': ('peak', '.0f'),
    'peak_tokens_with_question': ('peak+q', '.0f'),
    'dependency': ('dep.', '.3g'),
    'turns': ('turns', '.1f'),
    'seconds': ('s', '.3g'),
    'episodes': ('episodes', 'd'),
}
LEGEND = (
    'N objectives per task. EM, F1: sums over the questions of a task. answered: tasks that '
    'ended in an answer. peak, peak+q: most tokens of any one context, without and with the '
    'question. dep.: dependency, sum of (prefix + l/2)·l over generated segments. s: wall '
    'seconds of a trajectory. Means over all trajectories.'
)


def formatted(value: float, spec: str) -> str:
  """A number as the tables have it."""
  if spec == '.3g':  # never 1.23e+05 where 123k reads better
    for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
      if abs(value) >= size:
        return f'{value / size:.3g}{unit}'
  return format(value, spec)


def _rows(agents: Mapping) -> Iterator[tuple[str, str, list[str]]]:
  """(agent, objectives, formatted fields), agents in the order of NAMES, objectives rising."""
  for agent in NAMES:
    for objectives in sorted(agents.get(agent, {}), key=int):
      cell = agents[agent][objectives]
      yield agent, objectives, [formatted(cell[f], spec) for f, (_, spec) in COLUMNS.items()]


def markdown(agents: Mapping) -> str:
  """One line per agent and number of objectives, no line break at the end."""
  headings = ['agent', 'N', *(heading for heading, _ in COLUMNS.values())]
  lines = [
      '| ' + ' | '.join(headings) + ' |',
      '|---|' + '---:|' * (len(headings) - 1),
  ]
  for agent, objectives, values in _rows(agents):
    lines.append('| ' + ' | '.join([NAMES[agent], objectives, *values]) + ' |')
  return '\n'.join(lines)


def terminal(agents: Mapping) -> console.Group:
  """The same for a terminal of 80 columns, one table per agent; print it with `rich.print`."""
  parts = []
  for agent in NAMES:
    rows = [(objectives, values) for name, objectives, values in _rows(agents) if name == agent]
    if not rows:
      continue
    # One table each, the agent above it: a column of names would not fit 80 columns.
    table = rich_table.Table(
        box=box.SIMPLE_HEAD, title=NAMES[agent], title_justify='left', pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    for heading in ('N', *(heading for heading, _ in COLUMNS.values())):
      table.add_column(heading, justify='right', no_wrap=True)
    for objectives, values in rows:
      table.add_row(objectives, *values)
    parts.append(table)
  return console.Group(*parts)
