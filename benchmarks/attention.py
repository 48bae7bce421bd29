"""How fast is attention over episodes whose turns are forgotten? Forward and backward, side by side.

    python benchmarks/attention.py [--turns 6 16] [--layout exact] [--out FILE]

One row is one episode: by default a question of 500 tokens, turns that write 250, replies of 450.
What computes it, on the same numbers:

    ours            mem1_jax.ops.attention for the device, or --attention; the lists of blocks are
                    made before, as a model does for all of its layers ('plan' is their time); on
                    a CPU the heads are split over a device for each thread
    dense           jax.nn.dot_product_attention with an [S, S] mask, by XLA
    dense_cudnn     the same by cuDNN (GPU)
    causal          flash attention that sees everything before, by cuDNN on a GPU, by jax's splash
                    attention on a TPU: more pairs than ours, what a kernel costs without the rule
    torch_causal    the same by torch
    torch_dense     torch's scaled_dot_product_attention with an [S, S] mask
    torch_stitched  the same over the single-copy layout, as MEM1's release trains
    torch_flex      torch's FlexAttention with a block mask of the rule (GPU)

Those that see the same pairs must give the same sums, or it stops. On a GPU the sizes are 28 heads
of 128 over 4, bfloat16. Medians of --repeats rounds in which all take turns. Prints a table and, as
its last line, JSON: seconds, and `ratio`, dense over ours.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import numpy as np

import side_by_side  # first: it finds mem1_jax
import episodes

from mem1_jax import metrics
from mem1_jax.memory import layout

PEERS = pathlib.Path(__file__).resolve().parent / 'peers'
SAME = ('ours', 'dense', 'dense_cudnn', 'torch_dense', 'torch_flex')  # see the same pairs
CASES = {'jax': ('ours', 'plan', 'dense', 'dense_cudnn', 'causal'),
         'torch': ('torch_dense', 'torch_stitched', 'torch_causal', 'torch_flex')}
SIZES = {'cpu': dict(heads=4, kv_heads=4, width=32, dtype='float32', inner=1),
         'gpu': dict(heads=28, kv_heads=4, width=128, dtype='bfloat16', inner=10),
         'tpu': dict(heads=28, kv_heads=4, width=128, dtype='bfloat16', inner=10)}
TOLERANCE = {'float32': 1e-4, 'bfloat16': 0.02, 'float16': 0.02}  # relative, of sums


def rows(args, num_turns: int) -> dict[str, np.ndarray]:
  """key_end [rows, S] of the layout in question, and of the stitched one."""
  rng = np.random.default_rng(args.seed)
  trajectories = [episodes.episode(args, num_turns, 100, rng) for _ in range(args.rows)]
  return {name: episodes.pack(trajectories, which).tags.key_end
          for name, which in (('key_end', args.layout), ('stitched', 'stitched'))}


def pairs(name: str, key_end: dict[str, np.ndarray]) -> float:
  """That a case has to compute."""
  tokens = key_end['key_end'].shape
  if 'causal' in name:
    return tokens[0] * tokens[1] * (tokens[1] + 1) / 2
  return episodes.visible_pairs(key_end['stitched' if name == 'torch_stitched' else 'key_end'])


def check(args, results: dict[str, dict]):
  """Whoever sees the same pairs computes the same.

  Raises:
    AssertionError: the sums of somebody's output or gradients differ from ours.
  """
  sums = {name: results[name]['replies'][0]['sums'] for name in SAME if results[name]['replies']}
  for name, values in sums.items():
    if not np.allclose(values, sums['ours'], rtol=TOLERANCE[args.dtype]):
      raise AssertionError(f'sums of |out|, |dq|, |dk|, |dv|: {name} {values}, ours {sums["ours"]}')


def measure(args, num_turns: int, folder: pathlib.Path) -> dict:
  """One row of the table for each case."""
  key_end = rows(args, num_turns)
  file = folder / f'{num_turns}.npz'
  np.savez(file, **key_end)
  settings = json.dumps({name: getattr(args, name) for name in (
      'heads', 'kv_heads', 'width', 'dtype', 'inner', 'seed', 'attention', 'threads')})
  commands = {worker: [sys.executable, '-u', str(PEERS / f'{worker}_attention.py'), str(file),
                       settings] for worker in CASES}
  cases = {name: worker for worker, names in CASES.items() for name in names}
  results = side_by_side.measure(f'{num_turns} turns', commands, cases, args.repeats)
  if 'not_run' in results['ours']:
    raise RuntimeError(f'ours did not run: {results["ours"]["not_run"]}')
  check(args, results)
  cells = {}
  for name, result in results.items():
    raw = [reply['seconds'] for reply in result['replies'][1:]]
    if 'not_run' in result:
      cells[name] = {'not_run': result['not_run']}
      continue
    seconds = statistics.median(raw)
    cells[name] = {'seconds': seconds, 'raw': raw, 'by': result['replies'][0].get('by', '')}
    if name != 'plan':  # backward: twice the products of the forward pass and the scores again
      flops = 3.5 * 4 * pairs(name, key_end) * args.heads * args.width
      cells[name]['flops_s'] = flops / seconds
  tokens = key_end['key_end'].shape[1]
  fraction = pairs('ours', key_end) / key_end['key_end'].size / tokens
  return {'tokens': tokens, 'visible_fraction': fraction, 'cases': cells}


def table(turns: dict[str, dict]) -> str:
  lines = ['turns  tokens  visible  case            ms       GFLOP/s of visible pairs  to ours']
  for number, found in turns.items():
    ours = found['cases']['ours']['seconds']
    for name, cell in found['cases'].items():
      head = f'{number:>5}  {found["tokens"]:6}  {found["visible_fraction"]:7.1%}  {name:<14}'
      if 'not_run' in cell:
        lines.append(f'{head}  not run: {cell["not_run"]}')
        continue
      rate = f'{cell["flops_s"] / 1e9:10.0f}' if 'flops_s' in cell else ' ' * 10
      lines.append(f'{head}  {cell["seconds"] * 1e3:8.2f}  {rate}  {cell["by"]:<14} '
                   f'{cell["seconds"] / ours:6.2f}x')
  return '\n'.join(lines)


def headline(turns: dict[str, dict], device: str) -> dict:
  """The last line: seconds of each case, dense over ours."""
  short = {}
  for number, found in turns.items():
    seconds = {name: cell.get('seconds', 'not run') for name, cell in found['cases'].items()}
    short[number] = {'dense_s': seconds['dense'], 'ours_s': seconds['ours'],
                     'ratio': 'not run' if seconds['dense'] == 'not run' else
                              seconds['dense'] / seconds['ours']} | {
                         f'{name}_s': value for name, value in seconds.items()
                         if name not in ('dense', 'ours')}
  return {'turns': short, 'device': device}


def parse(platform: str):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--turns', type=int, nargs='+', default=[6, 16])
  episodes.add_lengths(parser)
  parser.add_argument('--layout', default='exact', choices=layout.LAYOUTS)
  parser.add_argument('--rows', type=int, default=1, help='episodes, one a row')
  parser.add_argument('--attention', default='auto', help='ours: a name of ops/attention.py')
  sizes = SIZES[platform]
  for name, kind in (('heads', int), ('kv_heads', int), ('width', int), ('dtype', str),
                     ('inner', int)):
    parser.add_argument(f'--{name.replace("_", "-")}', type=kind, default=sizes[name],
                        help='calls that are timed as one' if name == 'inner' else
                        'here: %(default)s')
  parser.add_argument('--repeats', type=int, default=7, help='rounds (default: %(default)s)')
  parser.add_argument('--threads', type=int, default=2, help="ours and torch's, on a CPU")
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', default='', help='a file for everything measured, as JSON')
  return parser.parse_args()


def main():
  machine = side_by_side.machine()
  args = parse(machine['platform'])
  with tempfile.TemporaryDirectory() as folder:
    turns = {str(n): measure(args, n, pathlib.Path(folder)) for n in args.turns}
  if args.out:
    pathlib.Path(args.out).write_text(json.dumps({
        'arguments': {k: v for k, v in vars(args).items() if k != 'out'}, 'machine': machine, 'commit': metrics.commit(),
        'versions': metrics.versions(), 'turns': turns}, indent=1) + '\n')
  print(table(turns))
  print(json.dumps(headline(turns, machine['device'])))


if __name__ == '__main__':
  main()
