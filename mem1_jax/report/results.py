"""What the runs found say: a headline, and tables of runs × agents × objectives with intervals.

The rows and claims here are drawn twice: as Markdown (below) and as HTML (report/page.py).
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math

from mem1_jax.report import intervals, paper, runs, tables

# heading and format of a metric; those of report/tables.py and what trajectories add
COLUMNS = {
    **tables.COLUMNS, 'judged': ('judged', '.3f'), 'reward': ('reward', '.3f'),
    'compression': ('compr.', '.2f'), 'searches': ('searches', '.1f'),
    'generated_tokens': ('tokens', '.0f'), 'episodes': ('episodes', '.0f'),
}  # fmt: skip
TABLES = {
    'How well': ('em', 'em_per_question', 'f1', 'judged', 'reward', 'answered', 'episodes'),
    'At what cost': ('peak_tokens', 'peak_tokens_with_question', 'dependency', 'compression',
                     'turns', 'searches', 'seconds', 'generated_tokens'),
}
LEGEND = (
    'N: objectives, the questions of a task. EM, F1: sums over a task\'s questions. EM/N: per '
    'question. judged: answers that another model found right, a sum, over the trajectories that '
    'it judged. peak, peak+q: most tokens of any one context, without and with the question. '
    'dep.: dependency, sum of (prefix + l/2)·l over generated segments. compr.: whole history by '
    'peak. s: wall seconds of a trajectory. tokens: generated. Means over all trajectories, '
    'failed ones included, with 95 % bootstrap intervals over trajectories: of the choice of '
    'tasks, not of seeds or training; '
    'none where all trajectories are alike.'
)
FAIR = 0.9  # of the constant-memory agent's EM, or a comparison with full context is void


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table; `cell` where it is of a run, None for the paper's."""

  label: str
  objectives: int
  values: dict[str, intervals.Estimate]
  cell: runs.Cell | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
  """A number to be seen first, and the sentence that it stands for."""

  number: str
  text: str
  is_void: bool = False  # it compares with a full-context agent that is too weak to compare with


def label(cell: runs.Cell, found: runs.Found) -> str:
  """How people read a cell's agent; with its run where there are several."""
  agent = tables.NAMES.get(cell.agent, cell.agent)
  is_alone = len({other.run for other in found.cells if other.is_sample == cell.is_sample}) == 1
  return agent if is_alone else f'{cell.run} · {agent}'


def rows(found: runs.Found) -> list[Row]:
  """The evaluated cells, those of one number of objectives side by side."""
  made = [Row(label(cell, found), cell.objectives, cell.estimates, cell)
          for cell in found.evaluated]
  return sorted(made, key=lambda row: (row.objectives, order(row)))


def order(row: Row) -> tuple[str, int, str]:
  """By run; in it constant memory, what we know no better, full context."""
  agent, known = row.cell.agent, list(tables.NAMES)
  place = 0 if agent.startswith('mem1') else 2 if agent.startswith('full_context') else 1
  return row.cell.run, place, str(known.index(agent)) if agent in known else agent


def paper_rows() -> list[Row]:
  """The paper's, in the same columns."""
  return [Row(f'{row.agent} ({row.domain})', row.objectives,
              {name: intervals.Estimate(value) for name, value in row.values.items()})
          for row in paper.ROWS]


def columns(names: Iterable[str], of: Sequence[Row]) -> list[str]:
  """Those that a row has; the reward only where it is not EM, as in QA."""
  present = [name for name in names if any(name in row.values for row in of)]
  is_em = all(math.isclose(row.values['reward'].mean, row.values['em'].mean, abs_tol=1e-6)
              for row in of if {'reward', 'em'} <= row.values.keys())
  return [name for name in present if name != 'reward' or not is_em]


def value(estimate: intervals.Estimate | None, name: str) -> tuple[str, str]:
  """(mean, interval) as text; a dash and nothing where it is not known."""
  spec = COLUMNS[name][1]
  if estimate is None:
    return '–', ''
  mean = tables.formatted(estimate.mean, spec)
  if estimate.low is None:
    return mean, ''
  return mean, f'{tables.formatted(estimate.low, spec)}–{tables.formatted(estimate.high, spec)}'


def claims(found: runs.Found) -> list[Claim]:
  """The headline, as far as the cells allow it: the largest tasks, and what was kept."""
  memory, made = _cells(found, 'mem1'), []
  if memory:
    made += _alone(memory[max(memory)], memory.get(2))
    full = _cells(found, 'full_context', memory)
    if full:
      made += _compared(memory, full, max(full))
  for curve in found.curves:
    made += _trained(curve)
  return made


def _cells(found: runs.Found, prefix: str, like: Mapping[int, runs.Cell] | None = None,
           ) -> dict[int, runs.Cell]:
  """{objectives: cell} of the agent, so named, that was asked the most and has the best EM.

  Args:
    like: the cells that they are to be compared with: those on the same tasks alone count.
  """
  agents = {}
  for cell in found.evaluated:
    if cell.agent.startswith(prefix) and 'em' in cell.estimates and (
        like is None or cell.objectives in like and _are_same_tasks(cell, like[cell.objectives])):
      agents.setdefault((cell.run, cell.agent), {})[cell.objectives] = cell
  return max(agents.values(), default={},
             key=lambda cells: (max(cells), cells[max(cells)].estimates['em'].mean))


def _are_same_tasks(*cells: runs.Cell) -> bool:
  """Whether they were asked the same; where no trajectories say it, whether they are of one run."""
  if not all(cell.records for cell in cells):
    return len({cell.run for cell in cells}) == 1
  first, second = ([[q['text'] for q in record['task']['questions']] for record in cell.records]
                   for cell in cells)
  return first == second


def _said(cell: runs.Cell, name: str) -> str:
  return _brief(cell.estimates.get(name))


def _brief(estimate: intervals.Estimate | None) -> str:
  """A mean and its interval in prose."""
  if estimate is None:
    return 'unknown'
  mean, *ends = (f'{x:.0f}' if abs(x) >= 100 else f'{x:.3g}' for x in dataclasses.astuple(estimate)
                 if x is not None)
  return f'{mean} ({"–".join(ends)})' if ends else mean


def _objectives(count: int) -> str:
  return f'{count} objective{"s" * (count != 1)}'


def _alone(cell: runs.Cell, at_2: runs.Cell | None) -> list[Claim]:
  made = [Claim(f'{cell.estimates["em"].mean:.3g} / {cell.objectives}',
                f'EM of constant memory at {_objectives(cell.objectives)}: {_said(cell, "em")}')]
  if at_2 and cell.objectives > 2 and at_2.estimates['em'].mean:
    kept = cell.estimates['em_per_question'].mean / at_2.estimates['em_per_question'].mean
    made.append(Claim(f'{kept:.0%}', f'of its EM per question at 2 objectives kept at '
                      f'{cell.objectives}: {_said(at_2, "em_per_question")} → '
                      f'{_said(cell, "em_per_question")}'))
  return made


def _compared(memory: dict[int, runs.Cell], full: dict[int, runs.Cell], most: int) -> list[Claim]:
  """Against full context, by the rule that report/summary.py states."""
  made, is_void = [], False
  if 2 in memory and 2 in full:
    ours, theirs = (cells[2].estimates['em'].mean for cells in (memory, full))
    is_void = theirs < FAIR * ours
    share = theirs / ours if ours else math.nan
    made.append(Claim(f'{share:.0%}', 'of constant memory\'s EM on 2 objectives is what full '
                      'context reaches' + (f', less than {FAIR:.0%}: the comparison is void'
                                           if is_void else '')))
  peaks = [cells[most].estimates.get('peak_tokens') for cells in (memory, full)]
  if all(peaks) and peaks[0].mean:
    made.append(Claim(
        f'{peaks[1].mean / peaks[0].mean:.1f}×',
        f'smaller peak context than full context at {_objectives(most)}: '
        f'{_said(memory[most], "peak_tokens")} against {_said(full[most], "peak_tokens")} tokens; '
        f'EM {_said(memory[most], "em")} against {_said(full[most], "em")}', is_void))
  return made


def _trained(curve: runs.Curve) -> list[Claim]:
  """The reward in the first and in the last quarter of training."""
  rewards = [{'reward': y} for _, y in curve.lines.get('reward', [])]
  if not rewards:
    return []
  quarter = max(1, len(rewards) // 4)
  parts = [intervals.estimates(some)['reward'] for some in (rewards[:quarter], rewards[-quarter:])]
  return [Claim(f'{parts[0].mean:.2f} → {parts[1].mean:.2f}', f'mean reward of {curve.run} in the '
                f'first and the last quarter of {len(rewards)} iterations: '
                f'{_brief(parts[0])}, {_brief(parts[1])}')]


def markdown(found: runs.Found, figures: Sequence[str] = ()) -> str:
  """The report as Markdown: headline, tables, the paper's figures, pictures, origins, problems."""
  lines = ['# Report', '']
  lines += [f'- **{"void: " * claim.is_void}{claim.number}** {claim.text}'
            for claim in map(_escaped_claim, claims(found))] + ['']
  ours = rows(found)
  for title, names in TABLES.items():
    if kept := columns(names, ours):
      lines += [f'## {title}', '', *_table(ours, kept), '']
  if ours:
    lines += [LEGEND, '']
  lines += [f'![{name.rpartition("/")[2].removesuffix(".svg")}]({name})\n' for name in figures]
  theirs = paper_rows()
  names = [name for group in TABLES.values() for name in group]
  lines += ['## For orientation: the paper', '', f'*{paper.CAVEAT}*', '',
            *_table(theirs, columns(names, theirs)), '']
  for title, said in (('Where from', found.origins), ('What could not be read', found.problems)):
    if said:
      lines += [f'## {title}', '', *(f'- {_escaped(line)}' for line in said), '']
  return '\n'.join(lines)


def _table(of: Sequence[Row], names: Sequence[str]) -> list[str]:
  headings = ['N', 'agent', *(COLUMNS[name][0] for name in names)]
  lines = ['| ' + ' | '.join(headings) + ' |', '|---:|---|' + '---:|' * len(names)]
  for row in of:
    cells = []
    for name in names:
      mean, interval = value(row.values.get(name), name)
      cells.append(f'{mean} [{interval}]' if interval else mean)
    lines.append('| ' + ' | '.join([str(row.objectives), _escaped(row.label), *cells]) + ' |')
  return lines


def _escaped(text: str) -> str:
  """Names of files are text, not markup."""
  for char in '\\`*_{}[]<>|#':
    text = text.replace(char, f'\\{char}')
  return text.replace('\n', ' ')


def _escaped_claim(claim: Claim) -> Claim:
  return dataclasses.replace(claim, text=_escaped(claim.text))
