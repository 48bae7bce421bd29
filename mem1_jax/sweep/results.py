"""What each point of a sweep came to: a row of numbers with intervals, as Markdown and as HTML."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import html
import json
import math
import pathlib
from typing import Any

from mem1_jax import metrics
from mem1_jax.report import intervals, runs, tables
from mem1_jax.report.intervals import Estimate
from mem1_jax.sweep import folder
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import Point, leading, short_names, swept

_HEADINGS = {'reward_first': 'reward, first quarter', 'reward_last': 'reward, last quarter',
             'loss_first': 'loss, first quarter', 'loss_last': 'loss, last quarter',
             'eval_em': 'validation EM'}
# what points are compared by → what it is called; the columns of their evaluation
_FINALS = {'em_per_question': 'EM per question',
           'reward': 'reward in evaluation'}
_SHOWN = {'em_per_question': ('em',), 'reward': ('reward', 'em')}
LEGEND = (
    'Quarters are of the iterations or steps done so far. Brackets are 95 % intervals: of rewards '
    'over the tasks of those iterations, of losses over their steps, of evaluation over '
    'trajectories; none of seeds. EM N: exact matches of a task of N questions, summed. minutes: '
    'wall time, all starts together.'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """A point and what it came to.

  Attributes:
    knobs: {swept knob: the config's value}.
    numbers: {column: estimate}, of what there is: reward_first, reward_last (`train`), loss_first,
      loss_last (`sft`), eval_em (validation in training), em_N and reward_N (`evaluate`).
    final: what points are compared by, None if there is nothing yet.
    curve: (step, reward or loss), finite ones.
  """

  point: Point
  status: folder.Status
  knobs: dict[str, Any]
  numbers: dict[str, Estimate]
  final: Estimate | None
  curve: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """All rows, and what `final` and `curve` are of."""

  name: str
  commands: tuple[str, ...]
  rows: tuple[Row, ...]
  final: str
  curve: str

  @property
  def knobs(self) -> dict[str, str]:
    """{swept knob: its short name}."""
    return short_names(swept([row.point.overrides for row in self.rows]))

  @property
  def leading(self) -> dict[str, str]:
    """Those of them that tell points apart: of knobs that were zipped the first one."""
    names = self.knobs
    return {knob: names[knob] for knob in leading([row.point.overrides for row in self.rows])}

  @property
  def columns(self) -> list[str]:
    """Names of the numbers that some row has."""
    return list(dict.fromkeys(name for row in self.rows for name in row.numbers))


def collect(workdir: pathlib.Path) -> Sweep:
  """What a sweep's folder holds.

  Raises:
    FileNotFoundError: it holds no sweep.
  """
  points, said = folder.read_definition(workdir)
  varied = swept([point.overrides for point in points])
  cells = [_cells(folder_of(workdir, point) / 'evaluate') for point in points]
  shown = _compared_by([cell for some in cells for cell in some])
  rows = []
  for point, some in zip(points, cells):
    numbers, curve = _trained(folder_of(workdir, point))
    numbers |= {f'{name}_{cell.objectives}': cell.estimates[name]
                for name in _SHOWN[shown] for cell in some}
    knobs = {knob: point.overrides.get(knob, said['config'].get(knob, '')) for knob in varied}
    rows.append(Row(point, folder.status(workdir, point), knobs, numbers, _pooled(some, shown),
                    curve))
  columns = {name for row in rows for name in row.numbers}
  final = _FINALS[shown]
  if not any(row.final for row in rows):
    best = next((n for n in ('eval_em', 'reward_last', 'loss_last') if n in columns), '')
    final = _HEADINGS.get(best, '')
    rows = [dataclasses.replace(row, final=row.numbers.get(best)) for row in rows]
  return Sweep(said['sweep'], tuple(said['commands']), tuple(rows), final,
               'loss' if 'loss_last' in columns else 'reward')


def _trained(place: pathlib.Path) -> tuple[dict[str, Estimate], tuple[tuple[float, float], ...]]:
  """(numbers, curve) of a point's PPO, or of its supervised training where there is no PPO."""
  for run, name, quarters in (('train', 'reward', _rewards), ('sft', 'loss', _losses)):
    steps = [step for step in _steps(place / run) if step.get(name) is not None]
    if not steps:
      continue
    numbers = quarters(steps)
    if validated := [step['eval_em'] for step in steps if step.get('eval_em') is not None]:
      numbers['eval_em'] = Estimate(validated[-1])
    return numbers, tuple((step['step'], step[name]) for step in steps)
  return {}, ()


def _steps(run: pathlib.Path) -> list[dict[str, Any]]:
  return metrics.read_metrics(run) if (run / metrics.JSONL).exists() else []


def _rewards(steps: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
  gain, found = metrics.reward_gain(steps), {}
  for name in ('reward_first', 'reward_last'):
    mean, half = gain[name], gain[f'{name}_ci']
    found[name] = Estimate(mean, mean - half, mean + half) if half else Estimate(mean)
  return found


def _losses(steps: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
  quarter = max(1, len(steps) // 4)
  return {f'loss_{name}': intervals.estimates([{'loss': step['loss']} for step in some])['loss']
          for name, some in (('first', steps[:quarter]), ('last', steps[-quarter:]))}


def _cells(run: pathlib.Path) -> list[runs.Cell]:
  return runs.find([run]).evaluated if any(run.glob('*-*.json')) else []


def _compared_by(cells: Sequence[runs.Cell]) -> str:
  """EM per question where the reward is EM, as in QA; else the reward."""
  is_em = all(math.isclose(cell.estimates['reward'].mean, cell.estimates['em'].mean, abs_tol=1e-6)
              for cell in cells if 'reward' in cell.estimates)
  return 'em_per_question' if is_em else 'reward'


def _pooled(cells: Sequence[runs.Cell], name: str) -> Estimate | None:
  """Over all trajectories: each number of questions has as many."""
  scores = [{name: record['score'][name]} for cell in cells for record in cell.records]
  return intervals.estimates(scores)[name] if scores else None


def heading(column: str) -> str:
  """A column of numbers, as people read it."""
  return _HEADINGS.get(column) or column.replace('em_', 'EM ').replace('_', ' ')


def said(estimate: Estimate | None) -> tuple[str, str]:
  """(mean, interval) as text; a dash and nothing where it is not known."""
  if estimate is None:
    return '–', ''
  ends = () if estimate.low is None else (estimate.low, estimate.high)
  return tables.formatted(estimate.mean, '.3f'), '–'.join(
      tables.formatted(end, '.3f') for end in ends)


def as_json(sweep: Sweep) -> str:
  """sweep.json."""
  rows = [{
      'index': row.point.index, 'name': row.point.name, 'overrides': row.point.overrides,
      **dataclasses.asdict(row.status), 'minutes': row.status.seconds / 60,
      'numbers': {name: dataclasses.asdict(one) for name, one in row.numbers.items()},
      'final': dataclasses.asdict(row.final) if row.final else None,
  } for row in sweep.rows]
  return json.dumps({'sweep': sweep.name, 'commands': sweep.commands, 'final_is': sweep.final,
                     'points': rows}, indent=2) + '\n'


def _grid(sweep: Sweep) -> tuple[list[str], list[tuple[Row, list[tuple[str, str]]]]]:
  """(headings, rows of (text, small text))."""
  headings = ['point', *sweep.knobs.values(), 'state', 'minutes', *map(heading, sweep.columns)]
  lines = []
  for row in sweep.rows:
    plain = [str(row.point.index), *(str(row.knobs[knob]) for knob in sweep.knobs),
             row.status.state, f'{row.status.seconds / 60:.1f}' if row.status.starts else '–']
    lines.append((row, [*((text, '') for text in plain),
                        *(said(row.numbers.get(name)) for name in sweep.columns)]))
  return headings, lines


def markdown(sweep: Sweep, figures: Iterable[str] = ()) -> str:
  """sweep.md; `figures` are files beside it."""
  headings, lines = _grid(sweep)
  text = [f'# Sweep {_escaped(sweep.name)}: {" then ".join(sweep.commands)}', '',
          '| ' + ' | '.join(map(_escaped, headings)) + ' |', '|' + '---:|' * len(headings)]
  for _, cells in lines:
    joined = (f'{_escaped(mean)} [{interval}]' if interval else _escaped(mean)
              for mean, interval in cells)
    text.append('| ' + ' | '.join(joined) + ' |')
  text += ['', LEGEND, '', *(f'![{name}]({name})' for name in figures)]
  return '\n'.join(text) + '\n'


def table(sweep: Sweep) -> str:
  """The same table as HTML."""
  headings, lines = _grid(sweep)
  body = ''
  for _, cells in lines:
    body += '<tr>' + ''.join(
        f'<td>{html.escape(mean)}{f"<small>{interval}</small>" * bool(interval)}</td>'
        for mean, interval in cells) + '</tr>'
  head = ''.join(f'<th>{html.escape(text)}</th>' for text in headings)
  return (f'<div class="sheet"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
          f'</div><p class="legend">{html.escape(LEGEND)}</p>')


def _escaped(text: str) -> str:
  """Names and values are text, not markup."""
  for char in '\\`*_{}[]<>|#':
    text = text.replace(char, f'\\{char}')
  return text
