"""How far a loop has come: a bar on a terminal, now and then a line elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress
import rich.text

from mem1_jax.parallel import multihost
from mem1_jax.types import Trajectory

_LINE_EVERY_S = 20.0


class Progress:
  """Counts towards `total` and shows rate, time elapsed and time remaining.

      with progress.bar('train', 200) as bar:
        for step in range(200):
          …
          bar.advance(1, f'reward {reward:.2f}')

  On a terminal this is a bar; elsewhere (a pipe, a log file) a plain line at
  the first and last advance and every `line_every_s` seconds between.
  """

  def __init__(self, name: str, total: int, rich_bar: rich.progress.Progress | None,
               emit: Callable[[str], None], line_every_s: float,
               clock: Callable[[], float] = time.monotonic, is_part: bool = False):
    self._name, self._total, self._bar, self._emit = name, total, rich_bar, emit
    self._line_every_s, self._clock = line_every_s, clock
    self._done, self._start, self._is_part = 0, clock(), is_part
    self._last = self._start if is_part else -float('inf')
    self._task = rich_bar.add_task(name, total=total, text='') if rich_bar else None

  def advance(self, count: int = 1, text: str = '') -> None:
    """`count` more are done; `text` is shown beside."""
    self._done += count
    if self._bar is not None:
      self._bar.update(self._task, advance=count, text=text)
      return
    now = self._clock()
    is_end = self._done >= self._total and not self._is_part
    if now - self._last >= self._line_every_s or is_end:
      self._last = now
      self._emit(self._line(now - self._start, text))

  @contextlib.contextmanager
  def part(self, name: str, total: int) -> Iterator['Progress']:
    """Progress within one step: a bar below while it lasts; in a log, lines if that is long."""
    part = Progress(
        name, total, self._bar, self._emit, self._line_every_s, self._clock, is_part=True)
    try:
      yield part
    finally:
      if self._bar is not None:
        self._bar.remove_task(part._task)

  def _line(self, elapsed_s: float, text: str) -> str:
    rate = self._done / max(elapsed_s, 1e-9)
    left = _minutes(max(self._total - self._done, 0) / rate) if rate else '?'
    line = (f'{self._name} {self._done}/{self._total} · {_rate(rate)} · elapsed '
            f'{_minutes(elapsed_s)} · left {left}')
    return f'{line} · {text}' if text else line


def of_episodes(bar: Progress) -> Callable[[Trajectory], None]:
  """Shows each episode that ends, and the tokens that they wrote a second, on a bar."""
  begun, num_tokens = time.monotonic(), 0

  def on_done(trajectory: Trajectory):
    nonlocal num_tokens
    num_tokens += sum(len(turn.written) for turn in trajectory.turns)
    bar.advance(1, f'{num_tokens / max(time.monotonic() - begun, 1e-9):.0f} tokens/s')

  return on_done


class _RateColumn(rich.progress.ProgressColumn):
  """Advances per second."""

  def render(self, task):
    speed = task.finished_speed or task.speed
    return rich.text.Text('' if speed is None else _rate(speed))


def _rate(per_s: float) -> str:
  """In the unit that leaves a digit to read: whole runs take minutes or hours."""
  for seconds, unit in ((1, 's'), (60, 'min')):
    if not 0 < per_s * seconds < 0.01:
      return f'{per_s * seconds:.2f}/{unit}'
  return f'{per_s * 3600:.2f}/h'


def _minutes(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes}:{seconds:02d}'


@contextlib.contextmanager
def bar(name: str, total: int, console: rich.console.Console | None = None,
        line_every_s: float = _LINE_EVERY_S) -> Iterator[Progress]:
  """A `Progress` on standard error, so that standard output stays for results.

  Only the main process shows it.
  """
  if not multihost.is_main():
    yield Progress(name, total, None, lambda line: None, line_every_s)
    return
  console = console or rich.console.Console(file=sys.stderr)
  if not console.is_terminal:
    emit = lambda line: print(line, file=console.file, flush=True)
    yield Progress(name, total, None, emit, line_every_s)
    return
  columns = (
      rich.progress.TextColumn('{task.description}'), rich.progress.BarColumn(bar_width=30),
      rich.progress.MofNCompleteColumn(), _RateColumn(), rich.progress.TimeElapsedColumn(),
      rich.progress.TextColumn('left'), rich.progress.TimeRemainingColumn(),
      rich.progress.TextColumn('{task.fields[text]}'))
  with rich.progress.Progress(*columns, console=console) as rich_bar:
    yield Progress(name, total, rich_bar, console.print, line_every_s)
