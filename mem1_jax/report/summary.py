"""The result of a run, `summary.json`: its schema, its headline, and the report folder.

    {'agents': {agent: {objectives: {field: number}}},
     'ppo': {'reward_first', 'reward_first_ci', … 'seconds'}, 'machine', 'commit', 'seed'}

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
PPO = ('reward_first', 'reward_first_ci', 'reward_last', 'reward_last_ci', 'seconds')
TOP = ('agents', 'ppo', 'machine', 'commit', 'seed')
MIN_EPISODES = 100  # fewer are reported with a warning


@dataclasses.dataclass(frozen=True)
class Headline:
  """One claim in words, with its number, its goal, and whether it may be made at all."""

  name: str
  value: float  # larger is better; nan where there is nothing to compare
  goal: str
  is_met: bool
  text: str
  is_void: bool = False  # it compares with a full-context agent that was trained too weakly


def _require(condition: bool, message: str):
  if not condition:
    raise ValueError(f'summary: {message}')


def reward_line(ppo: Mapping[str, float]) -> str:
  """What PPO's reward was and became, with 95 % intervals (`metrics.reward_gain`)."""
  return (f'mean reward {ppo["reward_first"]:.3f} ± {ppo["reward_first_ci"]:.3f} in the first quarter '
          f'of the steps, {ppo["reward_last"]:.3f} ± {ppo["reward_last_ci"]:.3f} in the last')


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


def _times(ratio: float) -> str:
  if math.isnan(ratio):
    return 'nothing to compare'
  return 'which has none right' if math.isinf(ratio) else f'{ratio:.1f}x'


def _cell(summary, agent, objectives):
  return summary['agents'].get(agent, {}).get(objectives)


def _ppo_gain(before: float, after: float) -> Headline:
  gain = _ratio(after, before)
  return Headline(
      'ppo_gain', gain, '+20 %, or 90 % of the maximum', gain >= 1.2 or after >= 0.9 * 2,
      f'PPO: EM on 2 objectives {before:.3f} → {after:.3f} ({gain - 1:+.0%}), {after / 2:.0%} of '
      'the maximum',
  )  # fmt: skip


def _kept(at_2: float, at_16: float) -> Headline:
  kept = _ratio(at_16, at_2)
  return Headline(
      'kept', kept, '70 %', kept >= 0.7,
      f'Constant memory, EM per question: {at_16:.3f} at 16 objectives, {at_2:.3f} at 2: '
      f'{kept:.0%} kept',
  )  # fmt: skip


def _fair(mem1_em: float, full_em: float) -> Headline:
  share = _ratio(full_em, mem1_em)
  text = f'Full context reaches {share:.0%} of the constant-memory EM on 2 objectives'
  if not share >= 0.9:
    text += ', less than 90 %: THE COMPARISON WITH IT IS VOID'
  return Headline('fair', share, '90 %', share >= 0.9, text)


def _against_full_context(mem1: Mapping, full: Mapping, is_void: bool) -> tuple[Headline, ...]:
  peak = _ratio(full['peak_tokens'], mem1['peak_tokens'])
  with_question = _ratio(full['peak_tokens_with_question'], mem1['peak_tokens_with_question'])
  em = _ratio(mem1['em'], full['em'])
  return (
      Headline(
          'peak', peak, '3.7x', peak >= 3.7,
          f'Peak context at 16 objectives: {mem1["peak_tokens"]:.0f} tokens against '
          f'{full["peak_tokens"]:.0f} of full context: {peak:.1f}x fewer ({with_question:.1f}x '
          'with the question)', is_void,
      ),
      Headline(
          'em', em, '3.5x', em >= 3.5,
          f'EM at 16 objectives: {mem1["em"]:.2f} against {full["em"]:.2f} of full context: '
          + _times(em), is_void,
      ),
  )  # fmt: skip


def headlines(summary: Mapping[str, Any]) -> tuple[Headline, ...]:
  """The claims that the summary's cells allow, in reading order; absent cells drop theirs.

  Compared are the agent after PPO and the full-context agent. Where the latter has less than
  .9 of the former's EM on 2 objectives, claims against it are void.
  """
  sft_2, ppo_2, full_2 = (_cell(summary, agent, '2') for agent in AGENTS)
  _, ppo_16, full_16 = (_cell(summary, agent, '16') for agent in AGENTS)
  found = []
  if sft_2 and ppo_2:
    found.append(_ppo_gain(sft_2['em'], ppo_2['em']))
  if ppo_2 and ppo_16:
    found.append(_kept(ppo_2['em_per_question'], ppo_16['em_per_question']))
  is_void = False
  if ppo_2 and full_2:
    found.append(_fair(ppo_2['em'], full_2['em']))
    is_void = not found[-1].is_met
  if ppo_16 and full_16:
    found += _against_full_context(ppo_16, full_16, is_void)
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
    mark = '**void**' if line.is_void else 'met' if line.is_met else '**not met**'
    lines.append(f'- {line.text} (goal: {line.goal}; {mark})')
  lines += ['', tables.markdown(summary['agents']), '', tables.LEGEND, '']
  if 'ppo' in summary:
    ppo = summary['ppo']
    lines += [
        f'PPO: {reward_line(ppo)}; {ppo["seconds"]:.0f} s of training.',
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
