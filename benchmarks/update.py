"""How many episodes a second does one PPO update take? Ours against other learners, side by side.

    python benchmarks/update.py [--turns 6 16] [--repeats 5] [--out FILE] [--tunix PYTHON]

Episodes of random ids have the lengths of MEM1's (arXiv 2506.15841): a question of 500 tokens,
turns that write 250, replies of 450. All peers get the same ones, with the same old log-probs,
advantages, values and targets, and update a policy and a critic of its size, one row at a time:

    ours    the learner of mem1_jax (`make_update`) on the exact layout; on a CPU a device for each
            thread, a row at a time on each
    torch   peers/torch_update.py: a dense mask over the stitched layout, as MEM1's release does
    tunix   peers/tunix_update.py, where --tunix names a Python that has it

Ours and torch start from the same parameters. Before it is timed torch computes the update of the
exact rows, too: losses and gradient norms must be ours.

Each peer is a process. It builds, warms up, then times one update for each line that it reads; the
peers take turns, so what else the machine does hurts all alike. Medians; CPU s is of
all cores; GFLOP/s are those of visible pairs; 'to torch' is episodes a second over torch's, and
'at its FLOP/s' what that would be if we computed what is visible at the rate at which torch
computes its whole square. The last line is JSON.

On a GPU: --model qwen2.5-1.5b --dtype bfloat16 --remat attention; MFU counts visible pairs only.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import sys
import tempfile

import numpy as np

import side_by_side  # first: it finds mem1_jax
import episodes
import models

from mem1_jax import metrics
from mem1_jax.model import ModelConfig
from mem1_jax.roofline import forward_flops

PEERS = pathlib.Path(__file__).resolve().parent / 'peers'
# Relative and absolute, of losses and gradient norms.
TOLERANCE = {'float32': (1e-4, 1e-6), 'bfloat16': (5e-2, 5e-3)}
# Of configs/base.py, and what differs from it: the paper's rates, one step, no reference.
PPO = {'clip': 0.2, 'value_clip': 0.2, 'epochs': 1, 'minibatches': 1, 'micro_rows': 1,
       'kl_coef': 0.0}
OPTIM = {'policy_lr': 1e-6, 'value_lr': 1e-5, 'warmup': 0, 'b1': 0.9, 'b2': 0.95, 'eps': 1e-8,
         'weight_decay': 0.01, 'max_grad_norm': 1.0}
PEAK_FLOPS = {'H100': 989e12, 'H200': 989e12, 'A100': 312e12}  # bfloat16, dense


def flops(model: ModelConfig, arrays: dict[str, np.ndarray], prefix: str,
          is_dense: bool = False) -> float:
  """Of all rows' update: policy and critic forward and, twice as much, backward."""
  key_end = arrays[prefix + 'key_end']
  pairs = key_end.size * key_end.shape[1] if is_dense else episodes.visible_pairs(key_end)
  tokens, described = key_end.size, int(arrays['is_generated'].sum())
  return 3 * sum(forward_flops(model, tokens, pairs, n) for n in (described, 0))


def commands(args, folder: pathlib.Path, file: pathlib.Path) -> dict[str, list[str] | str]:
  """How each peer is started, or why it is not."""
  settings = ['--settings', str(folder / 'settings.json')]
  found = {name: [sys.executable, '-u', str(PEERS / f'{name}_update.py'), str(file), *settings]
           for name in ('ours', 'torch')}
  found['tunix'] = args.tunix and [
      args.tunix, '-u', str(PEERS / 'tunix_update.py'), str(file), '--model-json',
      str(folder / 'model.json')] or 'no interpreter was given'
  return found | dict.fromkeys(args.skip, 'skipped')


def check(results: dict[str, dict], tolerance: tuple[float, float]) -> dict | None:
  """Losses and gradient norms of the exact rows at equal parameters: ours and torch's.

  Raises:
    AssertionError: they differ.
  """
  if 'not_run' in results['torch']:
    return None
  ours, torch = (results[name]['replies'][0]['exact'] for name in ('ours', 'torch'))
  for name, value in ours.items():
    if not np.isclose(torch[name], value, *tolerance):
      raise AssertionError(f'{name} of the same rows: ours {value}, torch {torch[name]}')
  return {'ours': ours, 'torch': torch}


def summary(args, device: str, model: ModelConfig, arrays: dict[str, np.ndarray], results: dict) -> dict:
  """Rates of each peer; `tokens_s` and `flops_s` are of its own rows."""
  cells = {}
  peak = next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)
  for name, result in results.items():
    if 'not_run' in result:
      cells[name] = {'not_run': result['not_run']}
      continue
    prefix, timed = 'stitched_' if name == 'torch' else '', result['replies'][1:]
    seconds = statistics.median(reply['seconds'] for reply in timed)
    rate = flops(model, arrays, prefix) / seconds
    cells[name] = {
        'seconds': seconds, 'episodes_s': len(arrays['tokens']) / seconds,
        'tokens_s': arrays[prefix + 'tokens'].size / seconds, 'flops_s': rate,
        'mfu': rate / peak if peak and args.dtype == 'bfloat16' else None,
        'warm_up': result['replies'][0], 'raw': timed}
  for cell in cells.values():
    if 'seconds' in cell and 'seconds' in cells['torch']:
      cell['ratio'] = cells['torch']['seconds'] / cell['seconds']
  return cells


def table(turns: dict[str, dict]) -> str:
  lines = ['turns  peer     seconds   CPU s  episodes/s  tokens/s  GFLOP/s     MFU  to torch  '
           'at its FLOP/s']
  for number, cells in turns.items():
    for name, cell in cells['peers'].items():
      head = f'{number:>5}  {name:<6}'
      if 'not_run' in cell:
        lines.append(f'{head}  not run: {cell["not_run"]}')
        continue
      mfu = f'{cell["mfu"]:.1%}' if cell['mfu'] else '–'
      ratio = f'{cell["ratio"]:.2f}' if 'ratio' in cell else '–'
      bound = f'{cells["ratio_at_equal_flops"]:.2f}' if name == 'ours' else '–'
      cpu = statistics.median(reply.get('cpu_seconds', math.nan) for reply in cell['raw'])
      lines.append(f'{head}  {cell["seconds"]:8.3f}  {cpu:6.2f}  {cell["episodes_s"]:10.4f}  '
                   f'{cell["tokens_s"]:8.0f}  {cell["flops_s"] / 1e9:7.0f}  {mfu:>6}  {ratio:>8}  '
                   f'{bound:>13}')
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


def prepare(args, platform: str, model: ModelConfig, folder: pathlib.Path):
  models.save_weights(folder, model, args.seed)
  (folder / 'model.json').write_text(json.dumps(
      dataclasses.asdict(model) | {'hidden_dim': model.ffn_dim, 'norm_eps': model.rms_eps}))
  models.save_settings(folder, model, ppo=PPO, optim=OPTIM, attention=args.attention,
                       threads=args.threads, seed=args.seed, platform=platform)


def run(args, machine: dict, model: ModelConfig, folder: pathlib.Path) -> dict[str, dict]:
  """{number of turns: what was measured}."""
  turns = {}
  say(f'{model.num_params() / 1e6:.1f} M parameters on {machine["device"]}')
  prepare(args, machine['platform'], model, folder)
  for i, num_turns in enumerate(args.turns):
    rng = np.random.default_rng([args.seed, num_turns])
    num_episodes = args.episodes[min(i, len(args.episodes) - 1)]
    trajectories = [episodes.episode(args, num_turns, model.vocab_size, rng)
                    for _ in range(num_episodes)]
    arrays, file = episodes.batch(trajectories, rng), folder / f'{num_turns}-turns.npz'
    np.savez(file, **arrays, question=args.question, turns=num_turns)
    lengths = [arrays[name].shape[1] for name in ('tokens', 'stitched_tokens')]
    say(f'{num_turns} turns: {num_episodes} episodes of {lengths[0]} exact tokens, '
        f'{lengths[1]} stitched; peers warm up')
    results = side_by_side.measure(f'{num_turns} turns', commands(args, folder, file),
                                   {name: name for name in ('ours', 'torch', 'tunix')}, args.repeats)
    if 'not_run' in results['ours']:
      raise RuntimeError(f'ours did not run: {results["ours"]["not_run"]}')
    turns[str(num_turns)] = {
        'episodes': num_episodes, 'exact_tokens': lengths[0], 'stitched_tokens': lengths[1],
        'check': check(results, TOLERANCE[args.dtype]),
        'ratio_at_equal_flops': (
            flops(model, arrays, 'stitched_', is_dense=True) / flops(model, arrays, '')),
        'peers': summary(args, machine['device'], model, arrays, results)}
  return turns


def say(text: str):
  print(text, file=sys.stderr, flush=True)


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--turns', type=int, nargs='+', default=[6, 16])
  parser.add_argument('--episodes', type=int, nargs='+', default=[4, 2],
                      help='of an update, for each of --turns')
  parser.add_argument('--repeats', type=int, default=5, help='timed updates of each peer')
  episodes.add_lengths(parser)
  parser.add_argument('--model', default='small', choices=models.NAMES)
  parser.add_argument('--dtype', default='float32', choices=TOLERANCE, help='of computation')
  parser.add_argument('--remat', default='none', help='as model.remat; ours alone')
  parser.add_argument('--attention', default='auto', help='as model.attention; ours alone')
  parser.add_argument('--threads', type=int, default=2, help='of each peer, on a CPU')
  parser.add_argument('--tunix', default='', metavar='PYTHON', help='an interpreter that has tunix')
  parser.add_argument('--skip', nargs='*', default=[], choices=['torch', 'tunix'])
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def main():
  args, machine = parse(), side_by_side.machine()
  model = models.sizes(args.model, dtype=args.dtype, remat=args.remat)
  with tempfile.TemporaryDirectory() as folder:
    turns = run(args, machine, model, pathlib.Path(folder))
  if args.out:
    knobs = {name: value for name, value in vars(args).items() if name not in ('out', 'tunix')}
    args.out.write_text(json.dumps({
        'knobs': knobs, 'model': dataclasses.asdict(model), 'seed': args.seed,
        'commit': metrics.commit(), 'versions': metrics.versions(), 'machine': machine,
        'turns': turns}, indent=1) + '\n')
  print(table(turns))
  print(json.dumps(headline(turns)))


if __name__ == '__main__':
  main()
