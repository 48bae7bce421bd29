"""Constant memory beside full context, trained alike, asked 1 to 32 questions: the headline.

    python benchmarks/headline.py [--jobs 2] [--seed 0] [--workdir FOLDER] [--out FILE]
    python benchmarks/headline.py --check --workdir /tmp/look        a few steps of everything

Three agents of one model, each supervised and then trained by PPO, by the same configs:

    mem1              constant memory, trained on tasks of 1 and 2 questions
    full_context      all turns in view, the same tasks
    full_context_16   all turns in view, tasks of 1 to 16 questions

Their budgets are alike: the same pre-trained parameters, 1,400 supervised steps on rows of 3,840
tokens in sum, then 12 iterations of PPO on 64 tasks. The first two begin from the supervised
parameters that the package ships, made just so; `--own-sft` makes them anew. Then each answers,
greedily and by a cache, the same 200 test tasks of each size, some of whose questions are in
wordings that no training uses.

Each agent's commands are `main sft`, `train`, `export` and `evaluate`, one after another on its
share of the cores; what a killed run has done whole is kept, what it began goes on. Intervals
(95 %) are over tasks; ratios are void unless full context has ≥ 0.9 of constant memory's
EM at 2. Everything else is passed on: --config.NAME=VALUE. The last line is JSON.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import metrics, progress  # noqa: E402
from mem1_jax.report import intervals  # noqa: E402

OBJECTIVES = (1, 2, 3, 4, 6, 8, 16, 32)
SHOWN = ('em', 'em_per_question', 'f1', 'answered', 'peak_tokens', 'peak_tokens_with_question',
         'dependency', 'turns', 'generated_tokens', 'seconds')
_GOALS = {'em_ratio': 3.5, 'peak_ratio': 3.7, 'kept': 0.9}
_DRAWS = 2000
_CHECK = ['sft.steps=4', 'sft.log_every=1', 'optim.warmup=1', 'ppo.iterations=2', 'ppo.tasks=4',
          'ppo.minibatches=2', 'rollout.num_slots=4', 'eval.tasks=3', 'eval.num_slots=3',
          'log.tensorboard=False']


@dataclasses.dataclass(frozen=True)
class Agent:
  """One of the agents.

  Attributes:
    name: of its folders.
    kind: `config.agent`.
    most: questions of a training task.
    row: tokens of a packed row, ≥ its longest training episode.
    max_tokens: of a training turn: the list of all answers must fit.
    shipped: its supervised parameters, '' for none.
  """

  name: str
  kind: str
  most: int
  row: int
  max_tokens: int
  shipped: str = ''

  def commands(self, folder: pathlib.Path, is_own_sft: bool) -> list[list[str]]:
    """The arguments of `main`, one command after another."""
    data = [f'agent={self.kind}', f'data.objectives=(1,{self.most})']
    sft, ppo, out = (folder / stage / self.name for stage in ('sft', 'ppo', 'params'))
    start, found = self.shipped, []
    if is_own_sft or not start:
      start = str(sft / 'params')
      found.append(['sft', '--config=atlas_sft', f'--workdir={sft}', '--resume', *_knobs(
          'init=atlas/pretrained', 'sft.steps=1400', f'sft.rows_per_step={3840 // self.row}',
          f'rows.length={self.row}', *data)])
    ours = _knobs(f'init={start}', 'critic=head', 'optim.policy_lr=1e-4', 'eval.every=0', *data,
                  f'rows.length={self.row}', f'rollout.max_tokens={self.max_tokens}')
    return found + [
        ['train', '--config=atlas', f'--workdir={ppo}', '--resume', *ours],
        ['export', '--config=atlas', f'--workdir={ppo}', f'--out={out}', *ours],
        ['evaluate', '--config=atlas', f'--workdir={folder / "evaluation" / self.name}',
         *_knobs(f'init={out}', f'agent={self.kind}', f'eval.objectives={OBJECTIVES}',
                 'eval.tasks=200')]]


AGENTS = (  # the longest first
    Agent('full_context_16', 'full_context', 16, 3840, 256),
    Agent('mem1', 'mem1', 2, 1280, 96, 'atlas/mem1'),
    Agent('full_context', 'full_context', 2, 1280, 96, 'atlas/full_context'),
)


def _knobs(*texts: str) -> list[str]:
  return [f'--config.{text}' for text in texts]


def do(agent: Agent, folder: pathlib.Path, cores: set[int], more: Sequence[str], is_own_sft: bool,
       on_done=lambda text: None):
  """What is still to be done for an agent; its output goes to FOLDER/AGENT.log.

  Raises:
    RuntimeError: a command failed.
  """
  log = folder / f'{agent.name}.log'
  for arguments in agent.commands(folder, is_own_sft):
    done = folder / 'done' / f'{arguments[0]}-{agent.name}'
    if not done.exists():
      command = [sys.executable, '-m', 'mem1_jax.main', *arguments, *more]
      with log.open('a') as file:
        print(*command[1:], file=file, flush=True)
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
        if cores:
          os.sched_setaffinity(process.pid, cores)  # before jax starts its threads
        status = process.wait()
      if status:
        raise RuntimeError(f'`main {arguments[0]}` of {agent.name} ended with status {status}; '
                           f'{log} says why. What is whole is kept, so begin again when mended')
      done.parent.mkdir(exist_ok=True)
      done.touch()
    on_done(f'{arguments[0]} of {agent.name}')


def scores(cell: pathlib.Path) -> list[dict[str, float]]:
  """The metrics of each trajectory of a cell's file, with the id of its task."""
  path = cell.with_suffix('.jsonl')
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return [line['score'] | {'task': line['task']['id']} for line in lines]


def ratio(above: Sequence[float], below: Sequence[float], is_paired: bool, seed: int = 0,
          ) -> dict[str, float | None]:
  """Ratio of two means with its bootstrap interval; no value where the mean below is 0.

  Args:
    above, below: of each task.
    is_paired: they are of the same tasks, in order, which are then drawn together.
  """
  rng = np.random.default_rng(seed)
  above, below = np.asarray(above, float), np.asarray(below, float)
  draws_A = rng.integers(len(above), size=(_DRAWS, len(above)))
  draws_B = draws_A if is_paired else rng.integers(len(below), size=(_DRAWS, len(below)))
  tops, bottoms = above[draws_A].mean(1), below[draws_B].mean(1)
  # A draw without a right answer below has an infinite ratio, which quantiles bear.
  with np.errstate(divide='ignore', invalid='ignore'):
    low, high = np.quantile(np.where(bottoms > 0, tops / bottoms, np.inf), [0.025, 0.975],
                            method='nearest')
  mean = float(above.mean() / below.mean()) if below.mean() > 0 else None
  return {'value': mean, 'low': _finite(low), 'high': _finite(high)}


def _finite(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None


def compare(cells: dict[str, dict[int, list[dict]]]) -> dict:
  """What the experiment is for: ratios of constant memory to each full-context agent at 16.

  Args:
    cells: {agent: {objectives: scores}}.

  Raises:
    ValueError: agents were asked different tasks.
  """
  found, ours = {}, cells['mem1']
  per_question = [[row['em_per_question'] for row in ours[n]] for n in (16, 2)]
  found['mem1'] = {'kept': ratio(*per_question, is_paired=False)}
  for agent in ('full_context', 'full_context_16'):
    theirs = cells[agent]
    for n in (2, 16):
      if [row['task'] for row in ours[n]] != [row['task'] for row in theirs[n]]:
        raise ValueError(f'mem1 and {agent} were asked different tasks of {n} questions; '
                         'evaluate them with the same seed and eval.tasks')

    def between(field, n, is_ours_above=True):
      pair = [row[field] for row in ours[n]], [row[field] for row in theirs[n]]
      return ratio(*(pair if is_ours_above else pair[::-1]), is_paired=True)

    at_two = between('em', 2, is_ours_above=False)
    found[agent] = {
        'em_at_2': at_two, 'is_void': bool((at_two['value'] or 0.0) < 0.9),
        'em_ratio': between('em', 16), 'peak_ratio': between('peak_tokens', 16, False),
        'seconds_ratio': between('seconds', 16, False)}
  return found


def measured(folder: pathlib.Path, seed: int, parameters: int) -> dict:
  """The result, once all is done."""
  files = {agent.name: {n: folder / 'evaluation' / agent.name / f'{agent.kind}-{n}.json'
                        for n in OBJECTIVES} for agent in AGENTS}
  cells = {name: {n: scores(path) for n, path in row.items()} for name, row in files.items()}
  table = {}
  for agent, row in files.items():
    for n, path in row.items():
      rows = [{name: score[name] for name in SHOWN} for score in cells[agent][n]]
      cell = json.loads(path.read_text())
      table.setdefault(agent, {})[str(n)] = {
          name: dataclasses.asdict(value) for name, value in intervals.estimates(rows).items()
      } | {name: cell[name] for name in ('em_seen_wording', 'em_held_out_wording', 'episodes',
                                         'overflow', 'faults') if name in cell}
  runs = {str(path.parent.relative_to(folder)): json.loads(path.read_text())
          for path in sorted(folder.glob('*/*/run.json'))}
  curves = {agent.name: [step['reward'] for step in metrics.read_metrics(
      folder / 'ppo' / agent.name)] for agent in AGENTS}
  return {
      'parameters': parameters, 'seed': seed, 'compared': compare(cells), 'cells': table,
      'ppo_rewards': curves, 'commit': metrics.commit(), 'versions': metrics.versions(),
      'machine': metrics.machine(), 'runs': runs}


def show(result: dict):
  """Absolute values first, then the ratios."""
  print(f'{result["parameters"]:,} parameters, seed {result["seed"]}\n')
  print(f'{"agent":16}{"N":>4}{"EM":>8}{"EM/N (95 %)":>22}{"seen/held out":>16}{"answered":>10}'
        f'{"peak":>7}{"s":>8}')
  for agent, row in result['cells'].items():
    for n, cell in row.items():
      em, share = cell['em'], cell['em_per_question']
      ends = f'[{share["low"]:.3f}, {share["high"]:.3f}]' if share['low'] is not None else ''
      print(f'{agent:16}{n:>4}{em["mean"]:8.2f}{share["mean"]:7.3f}{ends:>15}'
            f'{cell.get("em_seen_wording", math.nan):9.2f} / '
            f'{cell.get("em_held_out_wording", math.nan):.2f}'
            f'{cell["answered"]["mean"]:10.2f}{cell["peak_tokens"]["mean"]:7.0f}'
            f'{cell["seconds"]["mean"]:8.2f}')
  print(f'\nmem1 keeps of its EM per question at 2 when asked 16: '
        f'{_text(result["compared"]["mem1"]["kept"])} (goal ≥ {_GOALS["kept"]})')
  for agent in ('full_context', 'full_context_16'):
    found = result['compared'][agent]
    void = '  VOID: below 0.9' if found['is_void'] else ''
    print(f'{agent}: {_text(found["em_at_2"])} of the EM of mem1 at 2{void}; at 16, EM of mem1 to '
          f'its {_text(found["em_ratio"])} (goal ≥ {_GOALS["em_ratio"]}), its peak to that of mem1 '
          f'{_text(found["peak_ratio"])} (goal ≥ {_GOALS["peak_ratio"]}), its seconds '
          f'{_text(found["seconds_ratio"])}')


def _text(value: dict) -> str:
  if value['value'] is None:
    return 'no ratio, it has none right'
  ends = [f'{end:.2f}' if end is not None else '∞' for end in (value['low'], value['high'])]
  return f'{value["value"]:.2f} [{ends[0]}, {ends[1]}]'


def shares(jobs: int) -> list[set[int]]:
  """The cores of each job; none are fixed where that cannot be done."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  each = len(cores) // jobs
  return [set(cores[i * each:(i + 1) * each]) for i in range(jobs)]


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seed', type=int, default=0, help='of all training (default: %(default)s)')
  parser.add_argument('--jobs', type=int, default=1, metavar='N', help='agents at a time, each on '
                      'its share of the CPU cores (default: %(default)s)')
  parser.add_argument('--own-sft', action='store_true', help='supervise all agents anew, instead '
                      'of beginning from shipped parameters')
  parser.add_argument('--only', nargs='+', choices=[agent.name for agent in AGENTS],
                      metavar='AGENT', help='do these and compare nothing: another process, or '
                      'machine, on the same folder does the others')
  parser.add_argument('--check', action='store_true', help='a few steps of everything')
  parser.add_argument('--workdir', type=pathlib.Path, default=ROOT / 'runs' / 'headline')
  parser.add_argument('--out', type=pathlib.Path, help='JSON of everything but trajectories')
  args, more = parser.parse_known_args()
  more = [*_knobs(f'seed={args.seed}', *(_CHECK if args.check else [])), *more]
  folder = (args.workdir / f'seed{args.seed}').resolve()
  folder.mkdir(parents=True, exist_ok=True)
  cores = shares(args.jobs)
  agents = [agent for agent in AGENTS if agent.name in (args.only or agent.name)]
  num = sum(len(agent.commands(folder, args.own_sft)) for agent in agents)
  free = list(range(args.jobs))
  with (progress.bar('headline', num) as bar,
        concurrent.futures.ThreadPoolExecutor(args.jobs) as pool):

    def one(agent):
      job = free.pop()
      try:
        do(agent, folder, cores[job], more, args.own_sft, lambda text: bar.advance(1, text))
      finally:
        free.append(job)

    print(f'the output of each agent: {folder}/AGENT.log', flush=True)
    for future in [pool.submit(one, agent) for agent in agents]:
      future.result()
  if args.only:
    return
  sizes = json.loads((folder / 'params' / 'mem1' / 'config.json').read_text())
  result = measured(folder, args.seed, _num_parameters(folder / 'params' / 'mem1'))
  result['model'] = sizes
  show(result)
  if args.out:
    args.out.write_text(json.dumps(result, indent=1) + '\n')
  print(f'a page of it: python -m mem1_jax.main report {folder / "evaluation"} --out FOLDER')
  print(json.dumps(result['compared']))


def _num_parameters(folder: pathlib.Path) -> int:
  import safetensors.numpy
  return sum(x.size for x in safetensors.numpy.load_file(
      folder / 'model.safetensors').values())


if __name__ == '__main__':
  main()
