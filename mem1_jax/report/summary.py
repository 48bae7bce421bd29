"""The result of a run, `summary.json`: its schema, its headline, and the report folder.

    {'agents': {agent: {objectives: {field: number}}},
     'ppo': {'reward_first', 'reward_last', 'seconds'}, 'machine', 'commit', 'seed'}

Fields of a cell, each a mean over all trajectories of the cell (failures included):
  em, f1: sums over the task's questions, in [0, objectives]
  em_per_question: em / objectives
  answered: fraction of tasks that ended in an answer
  peak_tokens, peak_tokens_with_question: most tokens of any one context
  dependency: sum over generated segments of (prefix + l / 2) · l, tokens²
  turns; seconds: wall time of a trajectory; episodes: trajectories (an integer)
"""

import dataclasses
import json
import math
import numbers
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mem1_jax.report import plots, tables

AGENTS = ('mem1_sft', 'mem1_ppo', 'full_context')
OBJECTIVES = ('1', '2', '4', '8', '16')
CELL = (
    'em', 'em_per_question', 'f1', 'answered', 'peak_tokens', 'peak_tokens_with_question',
    'dependency', 'turns', 'seconds', 'episodes',
)  # fmt: skip
PPO = ('reward_first', 'reward_last', 'seconds')
TOP = ('agents', 'ppo', 'machine', 'commit', 'seed')
MIN_EPISODES = 100  # fewer are reported with a warning


@dataclasses.dataclass(frozen=True)
class Headline:
  """One claim: `value` against `goal` (larger is better), in words; nan: undefined."""

  name: str
  value: float
  goal: float
  text: str

  @property
  def is_met(self) -> bool:
    return self.value >= self.goal


def _require(condition: bool, message: str):
  if not condition:
    raise ValueError(f'summary: {message}')


def _keys(where: str, found: Any, wanted: tuple[str, ...], *, is_partial: bool = False):
  _require(isinstance(found, Mapping), f'{where} is {found!r}; make it a dict')
  unknown = [key for key in found if key not in wanted]
  _require(not unknown, f'{where} has unknown keys {unknown}; use {list(wanted)}')
  missing = [key for key in wanted if key not in found]
  _require(is_partial or not missing, f'{where} lacks {missing}; add them')


def _number(where: str, value: Any, low: float = -math.inf, high: float = math.inf):
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  _require(is_number, f'{where} is {value!r}; make it a number')
  in_range = math.isfinite(value) and low <= value <= high
  _require(in_range, f'{where} is {value!r}; it must be finite and in [{low}, {high}]')


def _validate_cell(where: str, objectives: int, cell: Any):
  _keys(where, cell, CELL)
  highs = {'em': objectives, 'f1': objectives, 'em_per_question': 1.0, 'answered': 1.0}
  for field in CELL:
    # 1e-6: means of float32 scores may end a rounding above their bound
    _number(f'{where}.{field}', cell[field], 0.0, highs.get(field, math.inf) + 1e-6)
  episodes = cell['episodes']
  _require(
      isinstance(episodes, numbers.Integral) and episodes >= 1,
      f'{where}.episodes is {episodes!r}; make it an integer ≥ 1',
  )
  per_question = cell['em'] / objectives
  _require(
      math.isclose(cell['em_per_question'], per_question, abs_tol=1e-4),
      f'{where}.em_per_question is {cell["em_per_question"]!r} but em / {objectives} is '
      f'{per_question!r}; compute one from the other',
  )
  _require(
      cell['peak_tokens'] <= cell['peak_tokens_with_question'],
      f'{where}.peak_tokens {cell["peak_tokens"]!r} exceeds peak_tokens_with_question '
      f'{cell["peak_tokens_with_question"]!r}; they are swapped or miscounted',
  )


def validate(summary: Mapping[str, Any], *, is_partial: bool = False):
  """Checks a summary against the schema above.

  Args:
    summary: as read from or written to summary.json; NumPy scalars are numbers too.
    is_partial: whether agents, numbers of objectives and `ppo` may be missing, as after an
      evaluation of one checkpoint. What is there must be whole either way.

  Raises:
    ValueError: names the offending entry, its value and what it should be.
  """
  _keys('the top level', summary, TOP, is_partial=is_partial)
  missing = [key for key in TOP if key not in summary and key != 'ppo']
  _require(not missing, f'the top level lacks {missing}; add them')
  _keys('agents', summary['agents'], AGENTS, is_partial=is_partial)
  for agent, cells in summary['agents'].items():
    _keys(f'agents.{agent}', cells, OBJECTIVES, is_partial=is_partial)
    for objectives, cell in cells.items():
      _validate_cell(f'agents.{agent}.{objectives}', int(objectives), cell)
  if 'ppo' in summary:
    _keys('ppo', summary['ppo'], PPO)
    for field in PPO:
      _number(f'ppo.{field}', summary['ppo'][field], 0.0 if field == 'seconds' else -math.inf)
  for field in ('machine', 'commit'):
    value = summary[field]
    _require(isinstance(value, str) and value, f'{field} is {value!r}; make it a text')
  seed = summary['seed']
  is_integer = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
  _require(is_integer, f'seed is {seed!r}; make it an integer')


def _ratio(above: float, below: float) -> float:
  """above / below; nan where both are 0 (nothing to compare), inf where only below is."""
  if below:
    return above / below
  return math.inf if above else math.nan


def _cell(summary, agent, objectives):
  return summary['agents'].get(agent, {}).get(objectives)


def headlines(summary: Mapping[str, Any]) -> tuple[Headline, ...]:
  """The claims that the summary's cells allow, in reading order; absent cells drop theirs."""
  sft_2, ppo_2, full_2 = (_cell(summary, agent, '2') for agent in AGENTS)
  _, ppo_16, full_16 = (_cell(summary, agent, '16') for agent in AGENTS)
  found = []
  if sft_2 and ppo_2:
    before, after = sft_2['em'], ppo_2['em']
    value, near_maximum = _ratio(after, before), after >= 0.9 * 2
    # The goal has two ways: +20 % relative, or ≥ .9 of the maximum.
    goal = min(1.2, value) if near_maximum else 1.2
    found.append(Headline(
        'ppo_gain', value, goal,
        f'PPO: EM on 2 objectives {before:.3f} → {after:.3f} ({value - 1:+.0%}), '
        f'{after / 2:.0%} of the maximum',
    ))  # fmt: skip
  if ppo_2 and ppo_16:
    at_2, at_16 = ppo_2['em_per_question'], ppo_16['em_per_question']
    value = _ratio(at_16, at_2)
    found.append(Headline(
        'kept', value, 0.7,
        f'Constant memory, EM per question: {at_16:.3f} at 16 objectives, {at_2:.3f} at 2: '
        f'{value:.0%} kept',
    ))  # fmt: skip
  if ppo_16 and full_16:
    value = _ratio(full_16['peak_tokens'], ppo_16['peak_tokens'])
    with_question = _ratio(
        full_16['peak_tokens_with_question'], ppo_16['peak_tokens_with_question']
    )
    found.append(Headline(
        'peak', value, 3.7,
        f'Peak context at 16 objectives: {ppo_16["peak_tokens"]:.0f} tokens against '
        f'{full_16["peak_tokens"]:.0f} of full context: {value:.1f}x fewer '
        f'({with_question:.1f}x with the question)',
    ))  # fmt: skip
    value = _ratio(ppo_16['em'], full_16['em'])
    found.append(Headline(
        'em', value, 3.5,
        f'EM at 16 objectives: {ppo_16["em"]:.2f} against {full_16["em"]:.2f} of full context: '
        f'{value:.1f}x',
    ))  # fmt: skip
  if ppo_2 and full_2:
    value = _ratio(full_2['em'], ppo_2['em'])
    found.append(Headline(
        'fair', value, 0.9,
        f'Full context reaches {value:.0%} of the constant-memory EM on 2 objectives'
        + ('' if value >= 0.9 else ', less than 90 %: THE COMPARISON WITH IT IS VOID'),
    ))  # fmt: skip
  return tuple(found)


def warnings(summary: Mapping[str, Any]) -> tuple[str, ...]:
  """What a reader must know before believing the numbers."""
  small = [
      f'{agent} at {objectives}: {cell["episodes"]}'
      for agent, cells in summary['agents'].items()
      for objectives, cell in cells.items()
      if cell['episodes'] < MIN_EPISODES
  ]
  return (f'Fewer than {MIN_EPISODES} episodes: {"; ".join(small)}.',) if small else ()


def markdown(summary: Mapping[str, Any], figures: tuple[str, ...] = ()) -> str:
  """summary.md: warnings, headline, table, figures, and where the numbers come from."""
  lines = ['# Report', '']
  lines += [f'**{warning}**\n' for warning in warnings(summary)]
  for line in headlines(summary):
    mark = 'met' if line.is_met else '**not met**'
    lines.append(f'- {line.text} (goal {line.goal:.2g}: {mark})')
  lines += ['', tables.markdown(summary['agents']), '', tables.LEGEND, '']
  if 'ppo' in summary:
    ppo = summary['ppo']
    lines += [
        f'PPO: mean reward {ppo["reward_first"]:.3f} in the first steps, '
        f'{ppo["reward_last"]:.3f} in the last, {ppo["seconds"]:.0f} s of training.',
        '',
    ]
  lines += [f'![{pathlib.PurePath(figure).stem}]({figure})\n' for figure in figures]
  lines.append(
      f'Machine: {summary["machine"]}. Commit: {summary["commit"]}. Seed: {summary["seed"]}.'
  )
  return '\n'.join(lines) + '\n'


def _plain(value):
  """NumPy scalars → Python numbers, in nested dicts."""
  if isinstance(value, Mapping):
    return {str(key): _plain(child) for key, child in value.items()}
  return value.item() if hasattr(value, 'item') else value


def write_report(
    run_dir: str | os.PathLike,
    summary: Mapping[str, Any],
    curves: Mapping[str, Any] | None = None,
    *,
    is_partial: bool = False,
) -> pathlib.Path:
  """Writes summary.json, summary.md and figures/*.png into `run_dir`; returns that folder.

  Args:
    run_dir: made if it is not there.
    summary: see `validate`.
    curves: see `plots.write_figures`; curves that are not there are not drawn.
    is_partial: see `validate`.

  Raises:
    ValueError: the summary or a curve is malformed; nothing has been written then.
  """
  validate(summary, is_partial=is_partial)
  plots.validate_curves(curves or {})
  summary = _plain(summary)
  run_dir = pathlib.Path(run_dir)
  run_dir.mkdir(parents=True, exist_ok=True)
  figures = plots.write_figures(run_dir / 'figures', summary['agents'], curves or {})
  (run_dir / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
  names = tuple(f'figures/{figure.name}' for figure in figures)
  (run_dir / 'summary.md').write_text(markdown(summary, names), encoding='utf-8')
  return run_dir
