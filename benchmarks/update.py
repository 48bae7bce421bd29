"""How many episodes a second does one PPO update take? Ours against other learners, side by side.

    python benchmarks/update.py [--turns 6 16] [--repeats 5] [--out FILE] [--tunix PYTHON]

Episodes of random ids have the lengths of MEM1's (arXiv 2506.15841): a question of 500 tokens,
turns that write 250, replies of 450. All peers get the same ones, with the same old log-probs,
advantages, values and targets, and update a policy and a critic of its size, one row at a time:

    ours    the learner of mem1_jax (`make_update`) on the exact layout
    torch   peers/torch_update.py: a dense mask over the stitched layout, as MEM1's release does
    tunix   peers/tunix_update.py, where --tunix names a Python that has it

Ours and torch start from the same parameters. Before it is timed torch computes the update of the
exact rows, too: losses and gradient norms must be ours.

Each peer is a process. It builds, warms up, then times one update for each line that it reads; the
peers take turns, so what else the machine does hurts all alike. Medians; the table's last column is
episodes a second over torch's. The last line is JSON.

On a GPU: --model qwen2.5-1.5b --dtype bfloat16 --remat attention; MFU counts visible pairs only.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

# Workers share the device with this process.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import metrics, progress  # noqa: E402
from mem1_jax.arrays import Episodes  # noqa: E402
from mem1_jax.memory import layout  # noqa: E402
from mem1_jax.model import ModelConfig, build_critic, build_policy, hf, named_config  # noqa: E402
from mem1_jax.model.config import NAMED_CONFIGS  # noqa: E402
from mem1_jax.rl import advantages  # noqa: E402
from mem1_jax.roofline import forward_flops  # noqa: E402
from mem1_jax.types import (  # noqa: E402
    Action, ActionKind, Context, Kind, Question, Segment, Stop, Task, Trajectory, TurnRecord)

PEERS = pathlib.Path(__file__).resolve().parent / 'peers'
TOLERANCE = 1e-4  # relative, of losses and gradient norms
# Of configs/base.py, and what differs from it: the paper's rates, one step, no reference.
PPO = {'clip': 0.2, 'value_clip': 0.2, 'epochs': 1, 'minibatches': 1, 'micro_rows': 1,
       'kl_coef': 0.0}
OPTIM = {'policy_lr': 1e-6, 'value_lr': 1e-5, 'warmup': 0, 'b1': 0.9, 'b2': 0.95, 'eps': 1e-8,
         'weight_decay': 0.01, 'max_grad_norm': 1.0}
# Qwen2.5's proportions: the FFN is 5.5 times as wide as the residual stream.
SMALL = dict(vocab_size=2048, dim=128, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=32,
             ffn_dim=704, copy_heads=None)
PEAK_FLOPS = {'H100': 989e12, 'H200': 989e12, 'A100': 312e12}  # bfloat16, dense


def sizes(args) -> ModelConfig:
  if args.model == 'small':
    return named_config('atlas', **SMALL, dtype=args.dtype, remat=args.remat)
  return named_config(args.model, dtype=args.dtype, remat=args.remat, copy_heads=None)


def episode(args, num_turns: int, vocab_size: int, rng: np.random.Generator) -> Trajectory:
  """One of random ids; the sampler's log-probs are those of a policy that is not far."""
  written_kinds = (Kind.STATE,) * args.think + (Kind.ACTION,) * args.action

  def segment(ids, begin, kinds):
    return Segment(tuple(ids), tuple(range(begin, begin + len(ids))), tuple(kinds))

  def draw(n):
    return rng.integers(0, vocab_size, n).tolist()

  carried, turns, context = [], [], Context(segment([], 0, []))
  for j in range(num_turns):
    if j:
      ids, kinds = carried + draw(args.information), (*written_kinds,) + (Kind.INFO,) * args.information
      context = Context(segment(ids, args.question, kinds), len(carried))
    carried = draw(len(written_kinds))
    written = segment(carried, args.question + len(context.segment), written_kinds)
    logprobs = -np.log(vocab_size) + 0.1 * rng.standard_normal(len(carried))
    is_last = j == num_turns - 1
    turns.append(TurnRecord(
        context, written, tuple(logprobs.tolist()),
        Action(ActionKind.ANSWER if is_last else ActionKind.SEARCH, ''), Stop.TAG,
        float(rng.random()) if is_last else 0.0))
  question = Question('q', '', ('',))
  return Trajectory(Task('random', (question,), ('a',), 'random'),
                    segment(draw(args.question), 0, (Kind.PROMPT,) * args.question), tuple(turns),
                    is_append_only=False)


def pack(trajectories: list[Trajectory], name: str) -> Episodes:
  """A row for each, in their order: all are of one length."""
  columns = [layout.lay_out(t, name) for t in trajectories]
  return layout.pack(columns, len(columns), max(len(c['tokens']) for c in columns), 0)[0]


def batch(trajectories: list[Trajectory], rng: np.random.Generator) -> dict[str, np.ndarray]:
  """What an update reads, [rows, tokens] each: of exact rows, and `stitched_…` of the others."""
  exact, stitched = (pack(trajectories, name) for name in layout.LAYOUTS)
  is_generated = exact.tags.is_generated
  value = np.where(is_generated, 0.1 * rng.standard_normal(is_generated.shape), 0)
  value = value.astype(np.float32)
  advantage = advantages.gae(exact.reward, value, exact.tags, 1.0, 1.0)
  target = np.where(is_generated, advantage + value, 0)
  scored = {'value': value, 'target': target,
            'advantage': np.asarray(advantages.whiten(advantage, is_generated))}
  arrays = {}
  for prefix, rows in (('', exact), ('stitched_', stitched)):
    tags = rows.tags
    named = {'tokens': rows.tokens, 'logprob': rows.logprob, 'position': tags.position,
             'key_end': tags.key_end, 'is_generated': tags.is_generated}
    for name, x in scored.items():  # both layouts hold what was generated in the same order
      named[name] = np.zeros(rows.tokens.shape, np.float32)
      named[name][tags.is_generated] = x[is_generated]
    arrays |= {prefix + name: x for name, x in named.items()}
  return arrays


def flops(model: ModelConfig, arrays: dict[str, np.ndarray], prefix: str) -> float:
  """Of all rows' update: policy and critic forward and, twice as much, backward."""
  index = np.arange(arrays[prefix + 'key_end'].shape[1])
  pairs = float(np.maximum(arrays[prefix + 'key_end'] - index, 0).sum())
  tokens, described = arrays[prefix + 'key_end'].size, int(arrays['is_generated'].sum())
  return 3 * sum(forward_flops(model, tokens, pairs, n) for n in (described, 0))


def save_weights(folder: pathlib.Path, model: ModelConfig, seed: int):
  """Policy and critic as transformers reads them; the critic has a head that is not zero."""
  with jax.default_device(jax.devices('cpu')[0]):
    policy = build_policy(model, 'reference').init(jax.random.key(seed))
    value = 0.02 * jax.random.normal(jax.random.key(seed + 1), (model.dim, 1))
    critic = build_critic(model, 'reference').from_policy(policy, jax.random.key(0))
  hf.save(folder / 'policy', policy, model, 'float32')
  hf.save(folder / 'critic', critic | {'value': value}, model, 'float32', is_critic=True)


class NotRun(Exception):
  """A peer cannot run here."""


class Worker:
  """A peer's process: a line in, an update timed, a line of JSON out."""

  def __init__(self, command: list[str]):
    self._process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

  def update(self) -> dict:
    """What the peer says of one update: `seconds` at least.

    Raises:
      NotRun: with the reason.
    """
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write('update\n')
      self._process.stdin.flush()
    for line in self._process.stdout:
      if line.startswith('{'):  # libraries print, too
        reply = json.loads(line)
        if 'not_run' in reply:
          raise NotRun(reply['not_run'])
        return reply
    raise NotRun(f'its process ended with code {self._process.wait()}')

  def close(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(30)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()


def commands(args, folder: pathlib.Path, episodes: pathlib.Path) -> dict[str, list[str] | None]:
  """How each peer is started; None: it is not."""
  settings = ['--settings', str(folder / 'settings.json')]
  python = [sys.executable, '-u']
  return {
      'ours': [*python, str(PEERS / 'ours_update.py'), str(episodes), *settings],
      'torch': [*python, str(PEERS / 'torch_update.py'), str(episodes), *settings],
      'tunix': args.tunix and [args.tunix, '-u', str(PEERS / 'tunix_update.py'), str(episodes),
                               '--model-json', str(folder / 'model.json')],
  }


def measure(args, folder: pathlib.Path, episodes: pathlib.Path) -> dict[str, dict]:
  """{peer: its replies, or why it did not run}; the first reply comes after the warm-up."""
  results, workers = {}, {}
  with contextlib.ExitStack() as stack, progress.bar(
      episodes.stem, 1 + args.repeats, line_every_s=0.0) as bar:
    for name, command in commands(args, folder, episodes).items():
      results[name] = {'replies': []}
      if name in args.skip or not command:
        results[name]['not_run'] = '--skip' if name in args.skip else 'no interpreter was given'
        continue
      workers[name] = Worker(command)
      stack.callback(workers[name].close)
    for number in range(1 + args.repeats):  # the first round is warm-up
      for name in list(workers):
        try:
          results[name]['replies'].append(workers[name].update())
        except NotRun as reason:
          if name == 'ours':
            raise
          results[name]['not_run'] = str(reason)
          del workers[name]
      last = {name: results[name]['replies'][-1]['seconds'] for name in workers}
      bar.advance(1, ', '.join(f'{name} {seconds:.2f} s' for name, seconds in last.items()))
  return results


def check(results: dict[str, dict]) -> dict | None:
  """Torch's losses and gradient norms of the exact rows beside ours, at equal parameters.

  Raises:
    AssertionError: they differ.
  """
  if 'not_run' in results['torch'] or not results['torch']['replies']:
    return None
  ours, torch = (results[name]['replies'][0]['exact'] for name in ('ours', 'torch'))
  for name, value in ours.items():
    if not np.isclose(value, torch[name], rtol=results['ours']['tolerance'], atol=1e-7):
      raise AssertionError(f'{name} of the same rows: ours {value}, torch {torch[name]}')
  return {'ours': ours, 'torch': torch}


def summary(args, model: ModelConfig, arrays: dict[str, np.ndarray], results: dict) -> dict:
  """Rates of each peer; `tokens` are those of its own rows."""
  num, cells = len(arrays['tokens']), {}
  peak = next((peak for name, peak in PEAK_FLOPS.items()
               if name in jax.devices()[0].device_kind), None) if args.dtype != 'float32' else None
  for name, result in results.items():
    if 'not_run' in result:
      cells[name] = {'not_run': result['not_run']}
      continue
    prefix = 'stitched_' if name == 'torch' else ''
    raw = [reply['seconds'] for reply in result['replies'][1:]]
    seconds = statistics.median(raw)
    rate = flops(model, arrays, prefix) / seconds
    cells[name] = {'seconds': seconds, 'episodes_s': num / seconds, 'raw': raw,
                   'tokens_s': arrays[prefix + 'tokens'].size / seconds, 'flops_s': rate,
                   'mfu': peak and rate / peak}
  for cell in cells.values():
    if 'seconds' in cell and 'seconds' in cells['torch']:
      cell['ratio'] = cells['torch']['seconds'] / cell['seconds']
  return cells


def table(turns: dict[str, dict]) -> str:
  lines = ['turns  peer     seconds  episodes/s  tokens/s  GFLOP/s     MFU  to torch']
  for number, cells in turns.items():
    for name, cell in cells['peers'].items():
      head = f'{number:>5}  {name:<6}'
      if 'not_run' in cell:
        lines.append(f'{head}  not run: {cell["not_run"]}')
        continue
      mfu = f'{cell["mfu"]:.1%}' if cell['mfu'] else '–'
      ratio = f'{cell["ratio"]:.2f}' if 'ratio' in cell else '–'
      lines.append(f'{head}  {cell["seconds"]:8.3f}  {cell["episodes_s"]:10.4f}  '
                   f'{cell["tokens_s"]:8.0f}  {cell["flops_s"] / 1e9:7.0f}  {mfu:>6}  {ratio:>8}')
  return '\n'.join(lines)


def headline(turns: dict[str, dict]) -> dict:
  """The last line: of each number of turns, and of the first one at the top."""
  short = {}
  for number, cells in turns.items():
    peers = cells['peers']
    short[number] = {'ours_episodes_s': peers['ours']['episodes_s'],
                     'torch_dense_episodes_s': peers['torch'].get('episodes_s', 'not run'),
                     'ratio': peers['ours'].get('ratio', 'not run'),
                     'tunix_episodes_s': peers['tunix'].get('episodes_s', 'not run')}
  return short[min(short, key=lambda number: number != '6')] | {'turns': short}


def prepare(args, model: ModelConfig, folder: pathlib.Path):
  save_weights(folder, model, args.seed)
  (folder / 'model.json').write_text(json.dumps(dataclasses.asdict(model)))
  (folder / 'settings.json').write_text(json.dumps({
      'model': dataclasses.asdict(model), 'weights': str(folder), 'ppo': PPO, 'optim': OPTIM,
      'attention': args.attention, 'threads': args.threads, 'seed': args.seed,
      'platform': jax.devices()[0].platform}))


def run(args, folder: pathlib.Path) -> dict[str, dict]:
  """{number of turns: peers, check}."""
  model, turns = sizes(args), {}
  prepare(args, model, folder)
  for i, num_turns in enumerate(args.turns):
    rng = np.random.default_rng([args.seed, num_turns])
    num_episodes = args.episodes[min(i, len(args.episodes) - 1)]
    trajectories = [episode(args, num_turns, model.vocab_size, rng) for _ in range(num_episodes)]
    arrays, file = batch(trajectories, rng), folder / f'{num_turns} turns.npz'
    np.savez(file, **arrays, question=args.question, turns=num_turns)
    results = measure(args, folder, file)
    results['ours']['tolerance'] = TOLERANCE if args.dtype == 'float32' else 0.05
    turns[str(num_turns)] = {
        'episodes': num_episodes, 'check': check(results),
        'row_tokens': {name or 'exact_': arrays[name + 'tokens'].shape[1]
                       for name in ('', 'stitched_')},
        'peers': summary(args, model, arrays, results)}
  return turns


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--turns', type=int, nargs='+', default=[6, 16])
  parser.add_argument('--episodes', type=int, nargs='+', default=[4, 1],
                      help='of an update, for each of --turns')
  parser.add_argument('--repeats', type=int, default=5, help='timed updates of each peer')
  for name, tokens in (('question', 500), ('think', 200), ('action', 50), ('information', 450)):
    parser.add_argument(f'--{name}', type=int, default=tokens, help='tokens')
  parser.add_argument('--model', default='small', choices=['small', *NAMED_CONFIGS])
  parser.add_argument('--dtype', default='float32', help='of computation')
  parser.add_argument('--remat', default='none', help='as model.remat; ours alone')
  parser.add_argument('--attention', default='auto', help='as model.attention; ours alone')
  parser.add_argument('--threads', type=int, default=2, help='of each peer, on a CPU')
  parser.add_argument('--tunix', default='', metavar='PYTHON', help='an interpreter that has tunix')
  parser.add_argument('--skip', nargs='*', default=[], choices=['torch', 'tunix'])
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def main():
  args = parse()
  with tempfile.TemporaryDirectory() as folder:
    turns = run(args, pathlib.Path(folder))
  if args.out:
    knobs = {name: value for name, value in vars(args).items() if name not in ('out', 'tunix')}
    args.out.write_text(json.dumps({
        'knobs': knobs, 'model': dataclasses.asdict(sizes(args)), 'seed': args.seed,
        'commit': metrics.commit(), 'versions': metrics.versions(), 'machine': metrics.machine(),
        'turns': turns}, indent=1) + '\n')
  print(table(turns))
  print(json.dumps(headline(turns)))


if __name__ == '__main__':
  main()
