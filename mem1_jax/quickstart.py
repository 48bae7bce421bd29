"""The main job in one command: train, evaluate three agents, write the report.

    PPO of the constant-memory agent        → WORKDIR/ppo
    greedy evaluation of mem1 before, mem1 after, and full context
                                            → WORKDIR/evaluation/AGENT-N.json
    tables, figures, and a page of it all   → WORKDIR/report

On CPU cores, a second process on half of them begins meanwhile to evaluate the two agents that
PPO does not change, the longest cells first, and in the end both share what is left. Each piece
is kept when done, so that `--resume` goes on where a run stopped.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from rich.console import Console

from mem1_jax import checkpoint, domains, evaluate, initial, metrics, progress, train
from mem1_jax.report import page, runs, summary, tables

_SHIPPED = {'mem1': 'atlas/mem1', 'full_context': 'atlas/full_context'}


def run(config: Any, workdir: pathlib.Path, is_resumed: bool = False):
  """Does what is still to be done in `workdir`, then prints the table and the report's path.

  Raises:
    FileExistsError: the folder holds an earlier run and is not to be resumed.
  """
  out = Console()
  before = 'mem1', _SHIPPED['mem1'], 'mem1_sft'
  full = 'full_context', _SHIPPED['full_context'], 'full_context'
  with _meanwhile(config, [full, before], workdir) as (log, claim):
    out.print(f'1/3 PPO on {domains.validated(config)}-objective tasks'
              + (f'; meanwhile evaluation, see {log}' if log else ''), style='bold')
    trained = _train(config, workdir / 'ppo', is_resumed)
    out.print('2/3 evaluation: before and after PPO, and a full-context agent', style='bold')
    after = 'mem1', str(trained), 'mem1_ppo'
    _evaluate(config, *after, workdir)
    _evaluate_all(config, [before, full], workdir, claim)  # from the other end
  agents = {agent[-1]: _evaluate(config, *agent, workdir) for agent in (before, after, full)}
  out.print('3/3 report', style='bold')
  steps = metrics.read_metrics(workdir / 'ppo')
  result = {
      'agents': agents, 'machine': _machine(),
      'ppo': metrics.reward_gain(steps) | {'seconds': sum(step['seconds'] for step in steps)},
      'commit': metrics.commit(), 'seed': config.seed,
  }
  folder = workdir / 'report'
  is_partial = tuple(str(n) for n in config.eval.objectives) != summary.OBJECTIVES
  summary.write_report(folder, result, _curves(steps), is_partial=is_partial)
  shown = page.report(runs.find([workdir]), 'mem1_jax quickstart')
  (folder / 'index.html').write_text(shown.html, encoding='utf-8')
  out.print(tables.terminal(agents))
  for headline in summary.headlines(result):
    out.print(headline.text, highlight=False, markup=False)
  out.print(f'report: {folder}, in a browser: {folder / "index.html"}', highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _meanwhile(config: Any, agents: list, workdir: pathlib.Path,
               ) -> Iterator[tuple[pathlib.Path | None, Callable[[str, int], bool]]]:
  """Evaluates `agents` in another process, which is waited for in the end.

  Only where programs run on CPU cores, and there are two that can be shared out. What it
  has not done by the end, for whatever reason, is left to the caller.

  Yields:
    its log, None without it; and `claim(name, objectives)`, by which the caller may take a cell
    that it has not begun.
  """
  files = [workdir / 'evaluation' / f'{name}-{n}.json'
           for *_, name in agents for n in config.eval.objectives]
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  half = len(cores) // 2
  if not half or jax.config.jax_platforms != 'cpu' or all(f.exists() for f in files):
    yield None, lambda *cell: True
    return
  log = workdir / 'evaluation' / 'meanwhile.log'
  log.parent.mkdir(parents=True, exist_ok=True)
  context = multiprocessing.get_context('spawn')
  claim = _Claims([(name, n) for *_, name in agents for n in config.eval.objectives],
                  context.Array('b', len(files)))
  process = context.Process(target=_other_process, args=(
      config, agents, workdir, claim, log, cores[half:], jax.config.jax_compilation_cache_dir))
  process.start()
  try:
    os.sched_setaffinity(0, cores[:half])  # jax starts its threads there
    yield log, claim
    _wait(process, files)
    if process.exitcode:
      print(f'the evaluation meanwhile ended with status {process.exitcode}, see {log}; '
            'what it left is done now')
  finally:
    os.sched_setaffinity(0, cores)
    process.terminate()
    process.join()


def _wait(process: Any, files: list[pathlib.Path]):
  """Shows how many of the missing `files` are there until the process has ended."""
  num_done = sum(f.exists() for f in files)
  with progress.bar('cells of the other process', len(files) - num_done) as bar:
    is_alive = True
    while is_alive:
      is_alive = process.is_alive()
      num_there = sum(f.exists() for f in files)
      if num_there > num_done:
        bar.advance(num_there - num_done)
        num_done = num_there
      process.join(1.0)


@dataclasses.dataclass(frozen=True)
class _Claims:
  """Which cells have been begun, in memory that both processes see."""

  cells: list[tuple[str, int]]
  is_taken: Any  # one byte per cell

  def __call__(self, name: str, objectives: int) -> bool:
    """Takes the cell, unless it is taken."""
    index = self.cells.index((name, objectives))
    with self.is_taken.get_lock():
      was_taken, self.is_taken[index] = self.is_taken[index], 1
    return not was_taken


def _other_process(config: Any, agents: list, workdir: pathlib.Path, claim: _Claims,
                   log: pathlib.Path, cores: list[int], cache: str | None):
  """The other process: ends with its parent, writes what it prints to `log`."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  os.sched_setaffinity(0, cores)  # before jax starts its threads
  jax.config.update('jax_compilation_cache_dir', cache)
  with log.open('a') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  _evaluate_all(config, agents, workdir, claim)


def _evaluate_all(config: Any, agents: list, workdir: pathlib.Path,
                  claim: Callable[[str, int], bool]):
  """Those of the agents' cells that can be claimed, the longest first."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.eval.objectives = tuple(sorted(config.eval.objectives, reverse=True))
  for agent, init, name in agents:
    _evaluate(config, agent, init, name, workdir, functools.partial(claim, name))


def _end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)  # a parent that was killed left no word


def _train(config: Any, workdir: pathlib.Path, is_resumed: bool) -> pathlib.Path:
  """PPO unless it is done already; the folder of the best parameters."""
  params, begun = workdir / 'params', time.monotonic()
  if (params / 'config.json').exists():
    checkpoint.check_resumed(workdir, is_resumed)
    return params
  trainer = train.run(config, workdir, is_resumed)
  best = train.best_policy(trainer, workdir)
  checkpoint.save_params(params, best, {'agent': config.agent, 'seed': config.seed,
                                        'seconds': time.monotonic() - begun}, 'float32')
  return params


def _evaluate(config: Any, agent: str, init: str, name: str, workdir: pathlib.Path,
              claim: Callable[[int], bool] = lambda _: True) -> dict[str, dict[str, float]]:
  """The agent's cells, one file for each number of objectives."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.agent, config.init = agent, init
  cells = evaluate.run(config, workdir / 'evaluation', name, claim)
  return {n: {field: cell[field] for field in summary.CELL} for n, cell in cells.items()}


def _machine() -> str:
  m = metrics.machine()
  return f'{m["system"]}, {m["cpu_cores"]} CPU cores, {m["num_devices"]} x {m["device"]}'


def _curves(steps: list[dict]) -> dict[str, Any]:
  """PPO's reward, and the shipped checkpoints' training losses."""
  ppo = {'step': [s['step'] for s in steps], 'reward': [s['reward'] for s in steps]}
  sft = {}
  for agent, name in _SHIPPED.items():
    path = initial.folder(name) / 'metrics.jsonl'
    if path.exists():
      lines = [json.loads(line) for line in path.read_text().splitlines()]
      sft[agent] = {'step': [s['step'] for s in lines], 'loss': [s['loss'] for s in lines]}
  return {'ppo': ppo, 'sft': sft} if sft else {'ppo': ppo}
