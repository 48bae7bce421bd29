"""Figures of a sweep, as PNG: curves by point, what it is about against each knob, a heat map."""

import ast
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import axes, colormaps, figure, ticker

from mem1_jax.report import plots
from mem1_jax.sweep.points import REPLICATE
from mem1_jax.sweep.results import Row, Sweep

_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
_MARKERS = 'os^Dv<>P'
_MAX_LINES = 7  # of the settings of the other knobs; more would be unreadable
_MAX_LEGEND = 12  # points of a sweep with a legend of their curves
_WIDE = 10.0  # largest value over smallest, from which an axis is logarithmic


def write(out: pathlib.Path, sweep: Sweep) -> list[pathlib.Path]:
  """Draws what there are numbers for into `out`; returns the files in reading order."""
  pictures, knobs = {}, sweep.leading
  if any(row.curve for row in sweep.rows):
    pictures['curves'] = curves(sweep)
  done = [row for row in sweep.rows if row.final]
  for knob in knobs if done else ():
    pictures[f'by_{knobs[knob]}'] = against(sweep, knob, done)
  main = [knob for knob in knobs if knob != REPLICATE]
  if len(main) == 2 and done:
    pictures['_by_'.join(knobs[knob] for knob in main)] = heat_map(sweep, *main, done)
  out.mkdir(parents=True, exist_ok=True)
  for old in out.glob('*.png'):
    old.unlink()  # of an earlier report, whose numbers were others
  files = []
  for name, picture in pictures.items():
    files.append(out / f'{name}.png')
    # No software tag: the same numbers give the same bytes.
    picture.savefig(files[-1], dpi=plots.DPI, metadata={'Software': None})
  return files


def _figure(width: float, title: str) -> tuple[figure.Figure, axes.Axes]:
  picture = figure.Figure(figsize=(width, 4.2), layout='constrained')
  panel = picture.subplots()
  panel.set_title(title, fontsize=11, fontweight='bold')
  panel.spines[['top', 'right']].set_visible(False)
  panel.grid(axis='y', color='#DDDDDD', linewidth=0.8)
  panel.set_axisbelow(True)
  return picture, panel


def curves(sweep: Sweep) -> figure.Figure:
  """One line for each point, from dark to light in the sweep's order where they are many."""
  picture, panel = _figure(7.5, f'{sweep.curve.capitalize()} by point')
  has_curve = [row for row in sweep.rows if row.curve]
  is_few = len(has_curve) <= len(_COLORS)
  shades = colormaps['viridis'](np.linspace(0, 0.9, len(has_curve)))
  for i, row in enumerate(has_curve):
    xs, ys = zip(*row.curve)
    color = _COLORS[i] if is_few else shades[i]
    panel.plot(xs, ys, color=color, alpha=0.25, linewidth=0.8)
    panel.plot(xs, plots.smoothed(ys), color=color, linewidth=1.8,
               label=f'{row.point.index}: {_setting(row, sweep.leading)}')
  panel.set_xlabel('step')
  panel.set_ylabel({'reward': 'mean reward of an episode'}.get(sweep.curve, sweep.curve))
  if len(has_curve) <= _MAX_LEGEND:
    panel.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  return picture


def _setting(row: Row, knobs: dict[str, str]) -> str:
  return ', '.join(f'{short}={row.knobs[knob]}' for knob, short in knobs.items())


def values(rows: Sequence[Row], knob: str) -> list[Any]:
  """The knob's different values: numbers in order, else as they come up."""
  texts = dict.fromkeys(str(row.knobs[knob]) for row in rows)
  if all(isinstance(_number(text), float) for text in texts):
    return sorted(texts, key=_number)
  return list(texts)


def _number(text: str) -> float | str:
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return float(value) if is_number else text


def against(sweep: Sweep, knob: str, rows: Sequence[Row]) -> figure.Figure:
  """What the sweep is about against one knob: dots are points, lines means over replicates.

  A line for each setting of the other knobs; where they are too many, one over all of them.
  """
  picture, panel = _figure(6.5, f'{sweep.final} against {sweep.knobs[knob]}')
  others = {k: short for k, short in sweep.leading.items() if k not in (knob, REPLICATE)}
  order = values(rows, knob)
  is_number = isinstance(_number(order[0]), float)
  place = {text: _number(text) if is_number else float(i) for i, text in enumerate(order)}
  settings = {}
  for row in rows:
    settings.setdefault(_setting(row, others), []).append(row)
  if len(settings) > _MAX_LINES:
    settings = {'mean over the other knobs': list(rows)}
  for i, (label, some) in enumerate(settings.items()):
    style = {'color': _COLORS[i], 'marker': _MARKERS[i]}
    at = {text: [row.final.mean for row in some if str(row.knobs[knob]) == text]
          for text in order}
    xs = [place[text] for text in order if at[text]]
    panel.plot(xs, [np.mean(at[text]) for text in order if at[text]], linewidth=1.8, markersize=6,
               label=label, **style)
    for row in some:
      x, one = place[str(row.knobs[knob])], row.final
      is_alone = len(at[str(row.knobs[knob])]) == 1
      if is_alone and one.low is not None:
        panel.plot([x, x], [one.low, one.high], color=_COLORS[i], alpha=0.35, linewidth=4)
      if not is_alone:
        panel.plot([x], [one.mean], color=_COLORS[i], marker='.', alpha=0.5)
  _label_axis(panel, order, place, is_number)
  panel.set_xlabel(knob)
  panel.set_ylabel(sweep.final)
  if len(settings) > 1:
    panel.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  return picture


def _label_axis(panel: axes.Axes, order: Sequence[str], place: dict[str, float], is_number: bool):
  xs = [place[text] for text in order]
  if is_number and min(xs) > 0 and max(xs) / min(xs) >= _WIDE:
    panel.set_xscale('log')
    panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.set_xticks(xs, order)
  if len(xs) == 1 and not is_number:
    panel.set_xlim(-0.5, 0.5)


def heat_map(sweep: Sweep, across: str, up: str, rows: Sequence[Row]) -> figure.Figure:
  """Means over replicates at each pair of two knobs' values, blank where there is no point."""
  xs, ys = values(sweep.rows, across), values(sweep.rows, up)
  found_YX = np.full((len(ys), len(xs)), math.nan)
  for (i, y), (j, x) in itertools.product(enumerate(ys), enumerate(xs)):
    here = [row.final.mean for row in rows
            if str(row.knobs[across]) == x and str(row.knobs[up]) == y]
    if here:
      found_YX[i, j] = np.mean(here)
  picture, panel = _figure(6.5, f'{sweep.final}: {sweep.knobs[across]} and {sweep.knobs[up]}')
  panel.grid(False)
  image = panel.imshow(found_YX, origin='lower', aspect='auto', cmap='viridis')
  low, high = np.nanmin(found_YX), np.nanmax(found_YX)
  for (i, j), value in np.ndenumerate(found_YX):
    is_dark = not math.isnan(value) and value < (low + high) / 2
    panel.text(j, i, '–' if math.isnan(value) else f'{value:.3f}', ha='center', va='center',
               color='white' if is_dark else 'black')
  panel.set_xticks(range(len(xs)), xs)
  panel.set_yticks(range(len(ys)), ys)
  panel.set_xlabel(across)
  panel.set_ylabel(up)
  picture.colorbar(image, label=sweep.final)
  return picture
