"""Figures of a run, as PNG: results against the number of objectives, and learning curves.

Colours are Okabe and Ito's, told apart by every kind of colour vision; markers differ too.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes, figure, ticker

from mem1_jax.report import tables

STYLES = {
    'mem1_sft': {'color': '#56B4E9', 'marker': 's', 'linestyle': '--'},
    'mem1_ppo': {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'},
    'full_context': {'color': '#D55E00', 'marker': '^', 'linestyle': '-'},
}
DPI = 150
_SMOOTHED = 20  # steps from which on a curve has a running mean
# The sft curves are named by what was trained: the agent before PPO, and full context.
CURVES = {'ppo': ('reward', 'em'), 'sft': ('mem1', 'full_context')}


def validate_curves(curves: Mapping):
  """Checks learning curves; every part is optional.

      {'ppo': {'step', 'reward', 'em' (optional)},
       'sft': {'mem1' or 'full_context': {'step', 'loss'}}}

  Every entry is a sequence of numbers, as long as its `step`.

  Raises:
    ValueError: an unknown name, or lengths that differ.
  """
  unknown = [name for name in curves if name not in CURVES]
  if unknown:
    raise ValueError(f'curves has unknown names {unknown}; use {list(CURVES)}')
  lines = {f'sft.{agent}': line for agent, line in curves.get('sft', {}).items()}
  unknown = [name for name in curves.get('sft', {}) if name not in CURVES['sft']]
  if unknown:
    raise ValueError(f'curves.sft has unknown names {unknown}; use {list(CURVES["sft"])}')
  if 'ppo' in curves:
    lines['ppo'] = curves['ppo']
  for name, line in lines.items():
    needed = ('step', 'reward') if name == 'ppo' else ('step', 'loss')
    missing = [key for key in needed if key not in line]
    if missing:
      raise ValueError(f'curves.{name} lacks {missing}; add them')
    lengths = {key: len(values) for key, values in line.items()}
    if len(set(lengths.values())) > 1:
      raise ValueError(f'curves.{name} has lengths {lengths}; make them equal')


def _axes(num_panels: int, title: str) -> tuple[figure.Figure, list[axes.Axes]]:
  """A figure with `num_panels` panels side by side, without pyplot's global state."""
  picture = figure.Figure(figsize=(5.2 * num_panels, 3.9), layout='constrained')
  picture.suptitle(title, fontsize=12, fontweight='bold')
  panels = list(np.atleast_1d(picture.subplots(1, num_panels)))
  for panel in panels:
    panel.spines[['top', 'right']].set_visible(False)
    panel.grid(axis='y', color='#DDDDDD', linewidth=0.8)
    panel.set_axisbelow(True)
  return picture, panels


def _over_objectives(panel: axes.Axes, agents: Mapping, field: str, label: str, **style):
  """One line per agent: `field` against the number of objectives, on a log2 axis."""
  ticks = set()
  for agent in tables.NAMES:
    cells = agents.get(agent, {})
    xs = sorted(int(objectives) for objectives in cells)
    if not xs:
      continue
    ticks.update(xs)
    ys = [cells[str(x)][field] for x in xs]
    panel.plot(xs, ys, **{'label': tables.NAMES[agent], 'linewidth': 2, **STYLES[agent], **style})
  panel.set_xscale('log', base=2)
  panel.xaxis.set_major_locator(ticker.FixedLocator(sorted(ticks)))
  panel.xaxis.set_major_formatter(ticker.FormatStrFormatter('%d'))
  panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.set_xlabel('objectives per task (log scale)')
  panel.set_ylabel(label)
  panel.set_ylim(bottom=0)


def _mark_training(panel: axes.Axes):
  """A line at 2 objectives, the most that any training task had."""
  panel.axvline(2, color='#999999', linewidth=1, linestyle=':', zorder=1)
  panel.annotate(
      'trained on ≤ 2', (2, 1), xycoords=('data', 'axes fraction'), xytext=(3, -9),
      textcoords='offset points', fontsize=8, color='#666666',
  )  # fmt: skip


def exact_match(agents: Mapping) -> figure.Figure:
  """EM and EM per question against objectives."""
  picture, (left, right) = _axes(2, 'Exact match on held-out tasks')
  _over_objectives(left, agents, 'em', 'EM, sum over questions')
  _over_objectives(right, agents, 'em_per_question', 'EM per question')
  right.set_ylim(0, 1.02)
  for panel in (left, right):
    _mark_training(panel)
  left.legend(
      edgecolor='none', framealpha=0.9, fontsize=9, loc='upper left', bbox_to_anchor=(0, 0.93)
  )  # fmt: skip
  return picture


def peak_tokens(agents: Mapping) -> figure.Figure:
  """Most tokens of any one context against objectives, without and with the question."""
  picture, (left, right) = _axes(2, 'Peak context of a trajectory')
  _over_objectives(left, agents, 'peak_tokens', 'tokens, without the question')
  _over_objectives(right, agents, 'peak_tokens_with_question', 'tokens, with the question')
  top = max(left.get_ylim()[1], right.get_ylim()[1])
  for panel in (left, right):
    panel.set_ylim(0, top)  # one scale: the two are compared
  left.legend(frameon=False, fontsize=9, loc='upper left')
  return picture


def smoothed(values: Sequence[float]) -> np.ndarray:
  """Centred running mean, its window a tenth of the curve; shorter at both ends."""
  values = np.asarray(values, np.float64)
  half = len(values) // _SMOOTHED
  return np.array([
      values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))
  ])  # fmt: skip


def ppo_curve(curve: Mapping) -> figure.Figure:
  """Reward per PPO step, and of longer runs smoothed, too; training EM where it was recorded."""
  names = [name for name in CURVES['ppo'] if name in curve]
  picture, panels = _axes(len(names), 'PPO on tasks of at most 2 objectives')
  for panel, name in zip(panels, names, strict=True):
    color = STYLES['mem1_ppo']['color']
    panel.set_xlabel('PPO step')
    panel.set_ylabel({'reward': 'mean reward of an episode', 'em': 'EM of training episodes'}[name])
    panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if len(curve[name]) < _SMOOTHED:
      panel.plot(curve['step'], curve[name], color=color, linewidth=2, marker='o', markersize=4)
      continue
    panel.plot(curve['step'], curve[name], color=color, alpha=0.35, linewidth=1, label='step')
    panel.plot(
        curve['step'], smoothed(curve[name]), color=color, linewidth=2, label='running mean'
    )
    panel.legend(frameon=False, fontsize=9, loc='lower right')
  return picture


def sft_curve(curves: Mapping) -> figure.Figure:
  """Supervised loss of each agent, on a log scale."""
  picture, (panel,) = _axes(1, 'Supervised training on expert trajectories')
  for name, agent in (('mem1', 'mem1_ppo'), ('full_context', 'full_context')):
    if name in curves:
      style = {key: STYLES[agent][key] for key in ('color', 'linestyle')}
      label = tables.NAMES[agent].split(',')[0]
      panel.plot(curves[name]['step'], curves[name]['loss'], linewidth=2, label=label, **style)
  losses = [loss for line in curves.values() for loss in line['loss']]
  if all(math.isfinite(loss) and loss > 0 for loss in losses):
    panel.set_yscale('log')
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
    panel.yaxis.set_minor_locator(ticker.NullLocator())
  panel.set_xlabel('SFT step')
  panel.set_ylabel('loss per generated token (nats)')
  panel.legend(frameon=False, fontsize=9)
  return picture


def write_figures(folder: pathlib.Path, agents: Mapping, curves: Mapping) -> list[pathlib.Path]:
  """Draws what there are data for into `folder`; returns the files in reading order."""
  validate_curves(curves)
  pictures = {}
  if agents:
    pictures['exact_match'] = exact_match(agents)
    pictures['peak_tokens'] = peak_tokens(agents)
  if curves.get('ppo'):
    pictures['ppo'] = ppo_curve(curves['ppo'])
  if curves.get('sft'):
    pictures['sft'] = sft_curve(curves['sft'])
  folder.mkdir(parents=True, exist_ok=True)
  files = []
  for name, picture in pictures.items():
    files.append(folder / f'{name}.png')
    # No software tag: the same numbers give the same bytes.
    picture.savefig(files[-1], dpi=DPI, metadata={'Software': None})
  return files
