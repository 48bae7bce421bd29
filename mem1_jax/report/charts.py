"""Line charts as SVG that follows the reader's light or dark theme; no script, no inline style.

Drawn once: inside the HTML page, where chart.css is part of the page's style, and as files of
their own for Markdown, which carry it. Colours are Okabe and Ito's; markers differ too.
"""

from collections.abc import Sequence
import dataclasses
import html
import math
import pathlib

WIDTH, PLOT_HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM, LINE = 52, 14, 34, 40, 17
NUM_STYLES = 8
MAX_MARKERS = 20  # of a line; more would hide it
MAX_POINTS = 240  # of a curve; more are averaged, neighbours together
_CSS = pathlib.Path(__file__).with_name('chart.css')


@dataclasses.dataclass(frozen=True)
class Point:
  """A value; `low` and `high` are the ends of its interval, None without one."""

  x: float
  y: float
  low: float | None = None
  high: float | None = None


@dataclasses.dataclass(frozen=True)
class Series:
  """A line. `style` numbers its colour and marker, the same in every chart of a page."""

  label: str
  style: int
  points: tuple[Point, ...]


def thinned(points: Sequence[tuple[float, float]]) -> tuple[Point, ...]:
  """At most `MAX_POINTS` points: means of neighbours where there are more."""
  size = math.ceil(len(points) / MAX_POINTS)
  groups = [points[i:i + size] for i in range(0, len(points), max(size, 1))]
  return tuple(Point(*(sum(values) / len(group) for values in zip(*group))) for group in groups)


def ticks(low: float, high: float) -> list[float]:
  """Round numbers that span [low, high], three to seven of them."""
  span = high - low or abs(high) or 1.0
  step = 10.0 ** math.floor(math.log10(span / 4))
  step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * step) <= 5)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [step * i for i in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
  """A tick's or a value's text: `1,250`, `0.05`, `3e-07`."""
  if value and not 1e-4 <= abs(value) < 1e7:
    return f'{value:.2g}'
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def line_chart(title: str, series: Sequence[Series], x_label: str, *, is_log2: bool = False,
               is_from_zero: bool = True, is_file: bool = False) -> str:
  """An SVG of lines over x.

  Args:
    series: with at least one point in all.
    is_log2: x on a logarithmic axis, with a tick at each x there is.
    is_from_zero: whether y begins at 0, as it must where sizes are compared.
    is_file: whether it stands alone and so needs its style.

  Raises:
    ValueError: there is no point.
  """
  points = [point for one in series for point in one.points]
  if not points:
    raise ValueError(f'chart {title!r} has no point; leave it out')
  ends = [y for p in points for y in (p.y, p.low, p.high) if y is not None]
  y_ticks = ticks(min(0.0, *ends) if is_from_zero else min(ends), max(ends))
  xs = sorted({point.x for point in points})
  x_ticks = xs if is_log2 else [t for t in ticks(xs[0], xs[-1]) if xs[0] <= t <= xs[-1]] or xs[:1]
  scale = math.log2 if is_log2 else float
  x_low, x_span = scale(xs[0]), scale(xs[-1]) - scale(xs[0])

  def x_at(x: float) -> float:
    share = (scale(x) - x_low) / x_span if x_span else 0.5
    return LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16)

  def y_at(y: float) -> float:
    return TOP + PLOT_HEIGHT * (1 - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

  parts = [f'<text class="title" x="{LEFT}" y="18">{html.escape(title)}</text>']
  for tick in y_ticks:
    parts.append(f'<path class="grid" d="M{LEFT} {y_at(tick):.1f}H{WIDTH - RIGHT}"/>'
                 f'<text class="y" x="{LEFT - 7}" y="{y_at(tick) + 4:.1f}">{number(tick)}</text>')
  bottom = TOP + PLOT_HEIGHT
  parts += [f'<text class="x" x="{x_at(x):.1f}" y="{bottom + 17}">{number(x)}</text>'
            for x in x_ticks]
  parts.append(f'<text class="x" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 33}">'
               f'{html.escape(x_label)}</text>')
  for one in series:
    parts += _line(one, x_at, y_at)
  parts += _legend(series, bottom + BOTTOM)
  height = bottom + BOTTOM + LINE * len(series) + 6
  style = f'<style>{_CSS.read_text(encoding="utf-8")}</style>' if is_file else ''
  size = f' width="{WIDTH}" height="{height}"' if is_file else ''
  return (f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}"'
          f'{size} role="img" aria-label="{html.escape(title)}">{style}{"".join(parts)}</svg>')


def _line(one: Series, x_at, y_at) -> list[str]:
  """The line, its intervals, and a marker with its numbers where there are few."""
  style = f's{one.style % NUM_STYLES}'
  points = sorted(one.points, key=lambda point: point.x)
  path = 'L'.join(f'{x_at(p.x):.1f} {y_at(p.y):.1f}' for p in points)
  parts = [f'<path class="line {style}" d="M{path}"/>']
  for p in points:
    said = f'{one.label} at {number(p.x)}: {number(p.y)}'
    if p.low is not None:
      said += f' ({number(p.low)}–{number(p.high)})'
      parts.append(f'<path class="bar {style}" d="M{x_at(p.x):.1f} {y_at(p.low):.1f}'
                   f'V{y_at(p.high):.1f}"/>')
    if len(points) <= MAX_MARKERS:
      parts.append(_marker(one.style, x_at(p.x), y_at(p.y), said))
  return parts


def _marker(style: int, x: float, y: float, said: str = '') -> str:
  tag, place = (
      ('circle', f'cx="{x:.1f}" cy="{y:.1f}" r="4"'),
      ('path', f'd="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z"'),
      ('path', f'd="M{x:.1f} {y - 5:.1f}l5 9h-10z"'),
      ('path', f'd="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z"'),
  )[style % 4]
  title = f'<title>{html.escape(said)}</title>' if said else ''
  return f'<{tag} class="mark s{style % NUM_STYLES}" {place}>{title}</{tag}>'


def _legend(series: Sequence[Series], top: float) -> list[str]:
  parts = []
  for i, one in enumerate(series):
    y = top + LINE * i + 9
    parts += [f'<path class="line s{one.style % NUM_STYLES}" d="M{LEFT} {y}h24"/>',
              _marker(one.style, LEFT + 12, y),
              f'<text x="{LEFT + 32}" y="{y + 4}">{html.escape(one.label)}</text>']
  return parts
