"""What a run writes down: metrics by step, and the folder that explains itself.

    metrics.jsonl   one line per step, flushed at once
    tensorboard/    the same, through tensorboardX (no TensorFlow)
    run.json        command, seed, commit, versions, machine
    config.txt      the config as it ran
    README.txt      what is in the folder
"""

import collections
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import jax

from mem1_jax import storage
from mem1_jax.parallel import multihost

JSONL, TENSORBOARD = 'metrics.jsonl', 'tensorboard'
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_BACKEND_COMPILE = '/jax/core/compile/backend_compile_duration'

_README = '''This folder holds one run of mem1_jax.

run.json        how it was started: command, seed, commit, versions, machine
config.txt      the config as it ran, every knob
metrics.jsonl   one JSON object per step; null where a number was not finite
tensorboard/    the same numbers: tensorboard --logdir <this folder>
'''


class MetricsWriter:
  """Writes scalars to `metrics.jsonl`, TensorBoard and, if asked, wandb; only the main process does.

  Args:
    run_dir: created if missing.
    tensorboard: whether to write TensorBoard files.
    wandb: keyword arguments of `wandb.init`, or None for no wandb.
    resume_step: the step a run continues after: later lines are dropped, since
      those steps will be done again. None appends. A line that a kill cut
      short is dropped in any case.

  Raises:
    ValueError: wandb is asked for and not installed.
  """

  def __init__(self, run_dir: str | os.PathLike, tensorboard: bool = True,
               wandb: Mapping | None = None, resume_step: int | None = None):
    folder = storage.path(run_dir)
    self.path = folder / JSONL
    self._lines = self._board = self._wandb = None
    if not multihost.is_main():
      return
    folder.mkdir(parents=True, exist_ok=True)
    self._events = storage.Staged(folder / TENSORBOARD)
    if self.path.exists():
      _drop_after(self.path, math.inf if resume_step is None else resume_step)
    self._lines = storage.Lines(self.path)
    if tensorboard:
      import tensorboardX  # takes a second to import
      purge_step = None if resume_step is None else resume_step + 1
      self._board = tensorboardX.SummaryWriter(str(self._events.folder), purge_step=purge_step)
    if wandb is not None:  # it sends its files to its own server
      self._wandb = _start_wandb(None if storage.is_remote(folder) else folder, wandb)

  def write(self, step: int, scalars: Mapping) -> None:
    """Records numbers, numpy or jax scalars under `step` (waits for jax ones)."""
    if self._lines is None:
      return
    values = {name: float(x) for name, x in scalars.items()}
    finite = {name: x if math.isfinite(x) else None for name, x in values.items()}
    line = {'step': int(step), 'time': time.time()} | finite
    self._lines.add(json.dumps(line, allow_nan=False))
    if self._board is not None:
      for name, x in values.items():
        self._board.add_scalar(name, x, int(step))
      self._board.flush()
      self._events.send()
    if self._wandb is not None:
      self._wandb.log(values, step=int(step))

  def close(self) -> None:
    if self._lines is not None:
      self._lines.close()
    if self._board is not None:
      self._board.close()
      self._events.close()
    if self._wandb is not None:
      self._wandb.finish()


@contextlib.contextmanager
def profiled(folder: storage.Path, is_on: bool = True) -> Iterator[None]:
  """Writes a trace for TensorBoard or Perfetto into that folder."""
  if not is_on:
    yield
    return
  with storage.staged(folder) as here, jax.profiler.trace(str(here)):
    yield


def read_metrics(run_dir: str | os.PathLike) -> list[dict]:
  """The lines of `metrics.jsonl`; a last one that was cut short is left out."""
  lines = (storage.path(run_dir) / JSONL).read_text().split('\n')
  return [json.loads(line) for line in lines[:-1]]  # a whole line ends with a newline


def standard_error(rewards: Sequence[float], tasks: Sequence[str]) -> float:
  """Of their mean, where rewards of one task (its samples) depend on one another; 0 for one task."""
  by_task = collections.defaultdict(list)
  for reward, task in zip(rewards, tasks, strict=True):
    by_task[task].append(reward)
  means = [statistics.fmean(some) for some in by_task.values()]
  return statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0


def reward_gain(steps: Sequence[Mapping]) -> dict[str, float]:
  """Mean rewards of the first and the last quarter of a PPO run, each `_ci`: half of its 95 % interval.

  Args:
    steps: of `read_metrics`, at least one, with `reward` and `reward_error`, its standard error.
  """
  quarter, found = max(1, len(steps) // 4), {}
  for name, some in (('first', steps[:quarter]), ('last', steps[-quarter:])):
    found[f'reward_{name}'] = sum(step['reward'] for step in some) / quarter
    found[f'reward_{name}_ci'] = 1.96 * math.hypot(*(s['reward_error'] for s in some)) / quarter
  return found


def _drop_after(path: storage.Path, step: float) -> None:
  kept = [line for line in read_metrics(path.parent) if line['step'] <= step]
  # A kill here must not lose the history.
  storage.write_whole(path, ''.join(json.dumps(line) + '\n' for line in kept))


def _start_wandb(run_dir: pathlib.Path | None, settings: Mapping):
  try:
    import wandb
  except ImportError as error:
    raise ValueError('the config asks for wandb, which is not installed; pip install wandb, or '
                     'leave it out of the config') from error
  return wandb.init(dir=run_dir and str(run_dir), **settings)


class CompileCounter:
  """Counts programs compiled (or fetched from the compilation cache) since it was made.

  It hears of every compilation in the process, those of small eager operations
  on new shapes included.
  """

  _compiled: list[str] | None = None  # of the process; jax offers no per-listener removal

  def __init__(self):
    if CompileCounter._compiled is None:
      CompileCounter._compiled = []
      jax.monitoring.register_event_duration_secs_listener(_hear_compile)
    self.reset()

  def reset(self) -> None:
    """Starts counting anew."""
    self._start = len(CompileCounter._compiled)

  @property
  def names(self) -> list[str]:
    """The functions compiled since the start, in order."""
    return CompileCounter._compiled[self._start:]

  @property
  def count(self) -> int:
    return len(self.names)

  def assert_none(self, allowed: tuple[str, ...] = ()) -> None:
    """Checks that nothing was compiled but functions named in `allowed`.

    Raises:
      RuntimeError: names what was compiled.
    """
    compiled = [name for name in self.names if name not in allowed]
    if compiled:
      raise RuntimeError(
          f'{len(compiled)} programs were compiled after warm-up: {", ".join(compiled[:8])}; '
          'a shape, dtype or static argument changed (JAX_EXPLAIN_CACHE_MISSES=1 says which)')


def _hear_compile(event: str, duration_s: float, **details) -> None:
  del duration_s
  if event == _BACKEND_COMPILE:
    CompileCounter._compiled.append(str(details.get('fun_name', 'unknown')))


def describe_run(run_dir: str | os.PathLike, config_text: str, seed: int,
                 extra: Mapping | None = None, files: Mapping[str, str] | None = None) -> dict:
  """Writes `run.json`, `config.txt` and `README.txt`; returns what is in run.json.

  Called again (a resumed run), it adds to run.json's list of starts. Only the main process writes;
  others get {}.

  Args:
    config_text: the config, readable.
    extra: JSON to add to run.json.
    files: {name: what it is} of further files, for README.txt.
  """
  if not multihost.is_main():
    return {}
  run_dir = storage.path(run_dir)
  run_dir.mkdir(parents=True, exist_ok=True)
  start = {
      'time': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
      'command': [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
      'commit': commit(),
      'versions': versions(),
      'machine': machine(),
  }
  path = run_dir / 'run.json'
  starts = json.loads(path.read_text())['starts'] if path.exists() else []
  described = {'seed': seed, 'starts': [*starts, start]} | dict(extra or {})
  path.write_text(json.dumps(described, indent=2) + '\n')
  (run_dir / 'config.txt').write_text(config_text)
  more = ''.join(f'{name:<15} {text}\n' for name, text in (files or {}).items())
  (run_dir / 'README.txt').write_text(_README + more)
  return described


def machine() -> dict:
  """Where this process computes; no host or user name."""
  devices = jax.devices()
  return {'platform': devices[0].platform, 'device': devices[0].device_kind,
          'num_devices': len(devices), 'num_processes': jax.process_count(),
          'cpu_cores': os.cpu_count(), 'system': f'{platform.system()} {platform.machine()}'}


def versions() -> dict[str, str]:
  """Of Python and of the packages that numbers depend on."""
  return {'python': platform.python_version()} | {p: _version(p) for p in _PACKAGES}


def commit() -> str:
  """The git commit of this package: of its installation, else of its checkout, else 'unknown'.

  A copy without either (an image, a TPU host) is told by MEM1_COMMIT in the environment.
  '+changes' is added for a checkout with uncommitted changes to the package.
  """
  try:
    direct_url = importlib.metadata.distribution('mem1_jax').read_text('direct_url.json')
    installed = json.loads(direct_url or '{}').get('vcs_info', {}).get('commit_id')
    if installed:
      return installed
  except importlib.metadata.PackageNotFoundError:
    pass
  here = pathlib.Path(__file__)
  git = ['git', '-C', str(here.parent)]
  try:
    # Only if this very file is tracked: a wheel may lie inside someone else's repository.
    _run([*git, 'ls-files', '--error-unmatch', here.name])
    changes = '+changes' if _run([*git, 'status', '--porcelain', '.']) else ''
    return _run([*git, 'rev-parse', 'HEAD']) + changes
  except (OSError, subprocess.SubprocessError):
    return os.environ.get('MEM1_COMMIT') or 'unknown'


def _run(command: list[str]) -> str:
  return subprocess.run(
      command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'
