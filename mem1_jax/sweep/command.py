"""`main sweep`: runs the points of a sweep, one of them, or shows what there is."""

import argparse
import pathlib
import shlex
import sys

from ml_collections import ConfigDict

from mem1_jax import progress
from mem1_jax.sweep import folder, points, report, runner
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import Point

_TAIL_LINES, _TAIL_BYTES = 8, 20_000
_SHOWN_RUNNING = 3  # names beside the bar


def run(config: ConfigDict, args: argparse.Namespace) -> int:
  """Does what the options say; the exit status.

  0: all that was asked for is done; 1: a point failed; 75: one was interrupted, `--resume` goes on.

  Raises:
    ValueError: a mistake in the sweep or the options, found before anything is run.
    FileExistsError: the folder holds this sweep, and it is not to be resumed.
    FileNotFoundError: there is no sweep to report.
  """
  workdir = pathlib.Path(args.workdir)
  if args.report:
    print(report.write(workdir))
    return 0
  if not args.sweep:
    raise ValueError('--sweep is missing; give it a file, or a name of configs/sweeps/')
  sweep = points.load(args.sweep)
  commands = runner.parse(args.stages)
  points.check(sweep, args.config, args.overrides, args.sweep)
  if args.list:
    for point in sweep:
      print(point.index, point.name, shlex.join(point.arguments))
    return 0
  if args.jobs < 1:
    raise ValueError(f'--jobs={args.jobs} must be ≥ 1')
  chosen = sweep
  if args.point is not None:
    if not 0 <= args.point < len(sweep):
      raise ValueError(f'--point={args.point} is none of the sweep, which has points 0 to '
                       f'{len(sweep) - 1}; --list shows them')
    chosen = sweep[args.point:args.point + 1]
  if not args.resume and any(folder.status(workdir, point).starts for point in chosen):
    raise FileExistsError(f'{workdir} holds runs of this sweep; continue it with --resume, or '
                          'begin in another --workdir')
  folder.define(workdir, sweep, commands, config, args.sweep)

  def stages_of(point: Point) -> list[runner.Stage]:
    return runner.stages(commands, folder_of(workdir, point), args.config,
                         [*args.overrides, *point.arguments])

  if args.point is not None:
    return _run_one(workdir, chosen[0], stages_of)
  return _run_all(workdir, sweep, stages_of, args.jobs)


def _run_one(workdir: pathlib.Path, point: Point, stages_of) -> int:
  """A point whose output is this process's; its exit status."""
  if folder.status(workdir, point).state == 'done':
    print(f'{point.name} is done')
    return 0
  ended = runner.run(workdir, [point], stages_of, 1, has_logs=False)
  if point.index not in ended:
    raise ValueError(f'{folder_of(workdir, point)} is being run by another process; wait for it')
  return _exit_status([ended[point.index]])


def _run_all(workdir: pathlib.Path, sweep: tuple[Point, ...], stages_of, jobs: int) -> int:
  before = [folder.status(workdir, point) for point in sweep]
  todo = [point for point, status in zip(sweep, before) if status.state != 'done']
  if len(todo) < len(sweep):
    print(f'{len(sweep) - len(todo)} of {len(sweep)} points are done already')
  with progress.bar('points', len(todo)) as bar:
    def show(running: list[Point], ended: Point | None):
      names = [point.name for point in running[:_SHOWN_RUNNING]]
      more = len(running) - len(names)
      bar.advance(int(ended is not None),
                  ' · '.join(names) + (f' and {more} more' if more else ''))

    runner.run(workdir, todo, stages_of, jobs, on_change=show)
  after = [folder.status(workdir, point) for point in sweep]
  _say(workdir, sweep, after)
  print(f'report: {report.write(workdir)}')
  return _exit_status(after)


def _say(workdir: pathlib.Path, sweep: tuple[Point, ...], after: list[folder.Status]):
  """Which points are not done, and why."""
  for point, status in zip(sweep, after):
    if status.state == 'failed':
      log = folder_of(workdir, point) / folder.LOG
      print(f'{point.name} failed with status {status.exit_status}; the end of {log}:',
            file=sys.stderr)
      print(*(f'    {line}' for line in _tail(log)), sep='\n', file=sys.stderr)
  for state, remedy in (('failed', '--resume tries them again'),
                        ('interrupted', '--resume continues them'),
                        ('running', 'another process runs them'),
                        ('waiting', '--resume runs them')):
    some = [point.name for point, status in zip(sweep, after) if status.state == state]
    if some:
      print(f'{len(some)} of {len(sweep)} points {state} ({remedy}): {", ".join(some)}',
            file=sys.stderr)


def _tail(log: pathlib.Path) -> list[str]:
  """The last lines of a log."""
  if not log.exists():
    return ['(it printed nothing)']
  with log.open('rb') as file:
    file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
    return file.read().decode(errors='replace').splitlines()[-_TAIL_LINES:]


def _exit_status(statuses: list[folder.Status]) -> int:
  states = {status.state for status in statuses}
  if 'failed' in states:
    return 1
  return 0 if states == {'done'} else runner.SAVED
