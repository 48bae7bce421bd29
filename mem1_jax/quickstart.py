"""The main job in one command: train, evaluate three agents, write the report.

    PPO of the constant-memory agent        → WORKDIR/ppo
    greedy evaluation of mem1 before, mem1 after, and full context
                                            → WORKDIR/evaluation/AGENT-N.json
    tables and figures                      → WORKDIR/report

Each piece is kept when done, so that `--resume` goes on where a run stopped.
"""

import json
import pathlib
import time
from typing import Any

from rich.console import Console

from mem1_jax import checkpoint, evaluate, initial, metrics, train
from mem1_jax.report import summary, tables

_SHIPPED = {'mem1': 'atlas/mem1', 'full_context': 'atlas/full_context'}


def run(config: Any, workdir: pathlib.Path, is_resumed: bool = False):
  """Does what is still to be done in `workdir`, then prints the table and the report's path.

  Raises:
    FileExistsError: the folder holds an earlier run and is not to be resumed.
  """
  out = Console()
  out.print(f'1/3 PPO on {max(config.data.objectives)}-objective tasks', style='bold')
  trained = _train(config, workdir / 'ppo', is_resumed)
  out.print('2/3 evaluation: before and after PPO, and a full-context agent', style='bold')
  agents = {
      'mem1_sft': _evaluate(config, 'mem1', _SHIPPED['mem1'], workdir, 'mem1_sft'),
      'mem1_ppo': _evaluate(config, 'mem1', str(trained), workdir, 'mem1_ppo'),
      'full_context': _evaluate(config, 'full_context', _SHIPPED['full_context'], workdir,
                                'full_context'),
  }
  out.print('3/3 report', style='bold')
  steps = metrics.read_metrics(workdir / 'ppo')
  result = {
      'agents': agents, 'ppo': _ppo_summary(steps), 'machine': _machine(),
      'commit': metrics.commit(), 'seed': config.seed,
  }
  folder = workdir / 'report'
  is_partial = tuple(str(n) for n in config.eval.objectives) != summary.OBJECTIVES
  summary.write_report(folder, result, _curves(steps), is_partial=is_partial)
  out.print(tables.terminal(agents))
  for headline in summary.headlines(result):
    out.print(headline.text, highlight=False, markup=False)
  out.print(f'report: {folder}', highlight=False, markup=False, soft_wrap=True)


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


def _evaluate(config: Any, agent: str, init: str, workdir: pathlib.Path,
              name: str) -> dict[str, dict[str, float]]:
  """The agent's cells, one file for each number of objectives."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.agent, config.init = agent, init
  cells = evaluate.run(config, workdir / 'evaluation', name)
  return {n: {field: cell[field] for field in summary.CELL} for n, cell in cells.items()}


def _machine() -> str:
  m = metrics.machine()
  return f'{m["system"]}, {m["cpu_cores"]} CPU cores, {m["num_devices"]} x {m["device"]}'


def _ppo_summary(steps: list[dict]) -> dict[str, float]:
  quarter = max(1, len(steps) // 4)
  rewards = [step['reward'] for step in steps]
  return {'reward_first': sum(rewards[:quarter]) / quarter,
          'reward_last': sum(rewards[-quarter:]) / quarter,
          'seconds': sum(step['seconds'] for step in steps)}


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
