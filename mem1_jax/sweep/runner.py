"""Points as processes, some at a time; a signal ends them so that they can be resumed.

Each command of a point is a process in a session of its own: a terminal's
Ctrl-C reaches it once, through here. SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM, upon
which a run saves its state; a second one kills.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from mem1_jax.sweep import folder
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import Point

COMMANDS = ('train', 'sft', 'evaluate')
SAVED = 75  # os.EX_TEMPFAIL: a run was told to end, has saved its state, and can be resumed
_ENDED_BY = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_POLL_S = 0.1


def parse(text: str) -> tuple[str, ...]:
  """The commands of `--command`: 'train', or 'train then evaluate'.

  Raises:
    ValueError: one is unknown, given twice, or `evaluate` is not the last.
  """
  names = tuple(text.split(' then '))
  if any(name not in COMMANDS for name in names):
    raise ValueError(f'--command={text!r} is no command of a sweep; give one of {COMMANDS}, or '
                     "several as in 'train then evaluate'")
  if len(set(names)) < len(names) or 'evaluate' in names[:-1]:
    raise ValueError(f'--command={text!r}: each command comes once, and evaluate last')
  return names


@dataclasses.dataclass(frozen=True)
class Stage:
  """One process of a point.

  Attributes:
    name: train | sft | export | evaluate.
    command: the program and its arguments.
    makes_anew: a folder that a killed one leaves half made: it is deleted before another start.
  """

  name: str
  command: tuple[str, ...]
  makes_anew: pathlib.Path | None = None


def stages(commands: Sequence[str], place: pathlib.Path, config_name: str,
           knobs: Sequence[str]) -> list[Stage]:
  """What a point runs, one after another; each begins with the parameters of the one before.

  Between training and another command, `export` writes the best policy.

  Args:
    place: the point's folder.
    knobs: its overrides, those of all points before its own.
  """
  main, made, init = (sys.executable, '-m', 'mem1_jax.main'), [], []
  for i, name in enumerate(commands):
    common = (f'--config={config_name}', *knobs, *init)
    resume = ('--resume',) if name != 'evaluate' else ()  # that keeps whole cells anyway
    made.append(Stage(name, (*main, name, f'--workdir={place / name}', *resume, *common)))
    init = [f'--config.init={place / "sft" / "params"}']
    if name == 'train' and i + 1 < len(commands):
      out = place / 'params'
      made.append(Stage('export', (*main, 'export', f'--workdir={place / name}', f'--out={out}',
                                   *common), out))
      init = [f'--config.init={out}']
  return made


def share(index: int, jobs: int) -> tuple[set[int], dict[str, str]]:
  """(CPU cores, environment) of the `index`th of `jobs` that run side by side.

  Cores and the GPUs of CUDA_VISIBLE_DEVICES are dealt out, where there are enough; no cores: any.
  """
  if jobs == 1:
    return set(), {}
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  gpus = [name for name in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if name]
  size = len(gpus) // jobs
  return (set(cores[index::jobs]) if len(cores) >= jobs else set(),
          {'CUDA_VISIBLE_DEVICES': ','.join(gpus[index * size:][:size])} if size else {})


class Job:
  """A point that is being run, one process after another.

  Args:
    todo: its stages; those that are done are passed over.
    lock: the descriptor that its processes inherit.
    log: a file that their output is added to; None to leave it where this process's goes.
    part: cores and environment (`share`).
  """

  def __init__(self, workdir: pathlib.Path, point: Point, todo: Sequence[Stage], lock: int,
               log: pathlib.Path | None, part: tuple[set[int], dict[str, str]] = (set(), {})):
    self.point = point
    self._workdir, self._lock, self._log, self._part = workdir, lock, log, part
    self._begun = time.monotonic()
    before = folder.status(workdir, point)
    self._before_s = before.seconds
    self.status = dataclasses.replace(before, state='running', starts=before.starts + 1)
    self._todo = [stage for stage in todo if stage.name not in before.stages]
    self._process, self._num_told = None, 0
    self._note('running')
    self._next()

  def poll(self, num_signals: int) -> bool:
    """Whether it has come to an end; goes on to the next process where one is due.

    Args:
      num_signals: that have arrived so far: at the first it is told to end, at the second killed.
    """
    while num_signals > self._num_told:
      self._num_told += 1
      if self._process and self._process.poll() is None:
        self._process.send_signal(signal.SIGTERM if self._num_told == 1 else signal.SIGKILL)
    if self._process:
      exit_status = self._process.poll()
      if exit_status is None:
        return False
      if exit_status:
        is_ours = self._num_told > 0 or exit_status == SAVED or exit_status in _ENDED_BY
        self._note('interrupted' if is_ours else 'failed', exit_status)
        return True
      stages_ = (*self.status.stages, self._todo.pop(0).name)
      self.status = dataclasses.replace(self.status, stages=stages_, exit_status=0)
    if not self._todo:
      self._note('done')
      return True
    if self._num_told:
      self._note('interrupted')
      return True
    self._note('running')
    self._next()
    return False

  def stop(self):
    """Tells it to end and does not wait."""
    if self._process and self._process.poll() is None:
      self._process.terminate()

  def _next(self):
    """Starts the next process, if there is one."""
    self._process = None
    if not self._todo:
      return
    stage = self._todo[0]
    if stage.makes_anew and stage.makes_anew.exists():
      shutil.rmtree(stage.makes_anew)
    cores, environment = self._part
    with contextlib.ExitStack() as stack:
      out = stack.enter_context(self._log.open('a')) if self._log else None
      if out:
        print('$', *stage.command, file=out, flush=True)
      self._process = subprocess.Popen(
          stage.command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, pass_fds=[self._lock],
          env=os.environ | environment, start_new_session=True)
    if cores:
      os.sched_setaffinity(self._process.pid, cores)  # before jax starts its threads

  def _note(self, state: str, exit_status: int | None = None):
    self.status = dataclasses.replace(
        self.status, state=state, seconds=self._before_s + time.monotonic() - self._begun,
        exit_status=self.status.exit_status if exit_status is None else exit_status)
    folder.write_status(self._workdir, self.point, self.status)


def run(workdir: pathlib.Path, points: Sequence[Point],
        stages_of: Callable[[Point], Sequence[Stage]], jobs: int, *, has_logs: bool = True,
        on_change: Callable[[list[Point], Point | None], None] = lambda running, ended: None,
        ) -> dict[int, folder.Status]:
  """Runs the points, `jobs` at a time, until all have ended or a signal has come.

  Args:
    points: that are not done.
    stages_of: point → what it runs.
    has_logs: whether each point's output goes to its log, or where this process's goes.
    on_change: (running points, the one that has ended or None) whenever one begins or ends.

  Returns:
    {index: status} of the points that were run; one that another process runs is not among them.
  """
  ended, running, waiting, is_told = {}, {}, list(points), False
  with contextlib.ExitStack() as whole, _signals() as num_signals:
    whole.callback(lambda: [job.stop() for job, _ in running.values()])  # after an error here
    while running or waiting:
      if num_signals() and not is_told:
        is_told = True
        waiting.clear()
        print(f'{len(running)} points are told to save and end; once more kills them',
              file=sys.stderr)
      free = set(range(jobs)) - running.keys()
      while waiting and free:
        point, held = waiting.pop(0), contextlib.ExitStack()
        whole.push(held)  # an error here gives the locks back
        lock = held.enter_context(folder.locked(workdir, point))
        # Who had it before may have done it meanwhile.
        if lock is None or folder.status(workdir, point).state == 'done':
          held.close()
          on_change(_points(running), point)
          continue
        place, log = free.pop(), folder_of(workdir, point) / folder.LOG if has_logs else None
        job = Job(workdir, point, stages_of(point), lock, log, share(place, jobs))
        running[place] = job, held
        on_change(_points(running), None)
      for place, (job, held) in list(running.items()):
        if job.poll(num_signals()):
          del running[place]
          held.close()
          ended[job.point.index] = job.status
          on_change(_points(running), job.point)
      if running:
        time.sleep(_POLL_S)
  return ended


def _points(running: dict[int, tuple[Job, contextlib.ExitStack]]) -> list[Point]:
  return [job.point for job, _ in running.values()]


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int]]:
  """How many of the signals have come since; nothing else happens at one.

  One that is ignored (`nohup`) stays so.
  """
  count = 0

  def note(number, frame):
    nonlocal count
    del number, frame
    count += 1

  before = {number: signal.signal(number, note) for number in _SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN}
  try:
    yield lambda: count
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
