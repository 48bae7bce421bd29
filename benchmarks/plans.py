"""Which models fit which TPU slices? Compiles every cell of docs/plan.md's table, without a TPU.

    python benchmarks/plans.py [--only=TEXT]        needs the TPU compiler: pip install -e '.[tpu]'

Runs `mem1_jax.main plan --json` for each cell, keeps the results in benchmarks/results/plans.json
(a cell that is there at this commit is not compiled again), prints the table as Markdown and, as
its last line, JSON. Times are rooflines: not timed on TPU.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import metrics  # noqa: E402

RESULTS = ROOT / 'benchmarks' / 'results' / 'plans.json'
SLICES = ('v5e:4x4', 'v6e:4x4', 'v5p:2x4x4')
_HALF = ['--config.model.name=qwen2.5-0.5b']  # the recipe of 1.5B: it has as many kv heads
_HEAD = ['--config.critic=head']
_LORA = ['--config.critic=lora', '--config.lora.rank=16', '--config.model.param_dtype=bfloat16']
# name → config, its mesh.tensor, overrides
RUNS = {
    '0.5B': ('qwen2p5_1p5b_2obj', 2, _HALF),
    '1.5B': ('qwen2p5_1p5b_2obj', 2, []),
    '7B': ('qwen2p5_7b_2obj', 4, []),
    '7B, value head': ('qwen2p5_7b_2obj', 4, _HEAD),
    '7B, LoRA': ('qwen2p5_7b_2obj', 4, _LORA),
}


def cells():
  """(name, slice, arguments of `plan`) of each cell of the table, and of the one too small."""
  for topology in SLICES:
    num_chips = math.prod(int(n) for n in topology.partition(':')[2].split('x'))
    for name, (config, tensor, overrides) in RUNS.items():
      micro_rows = num_chips // tensor  # a row at a time for each group of devices
      yield name, topology, [f'--config={config}', f'--topology={topology}', *overrides,
                             f'--config.ppo.micro_rows={micro_rows}']
  yield '7B', 'v5e:2x2', ['--config=qwen2p5_7b_2obj', '--topology=v5e:2x2']


def compiled(arguments):
  """What `plan` says."""
  run = subprocess.run(
      [sys.executable, '-m', 'mem1_jax.main', 'plan', '--json', *arguments], cwd=ROOT,
      stdout=subprocess.PIPE, text=True, check=False)
  if run.returncode not in (0, 1) or not run.stdout:
    raise RuntimeError(f'plan {" ".join(arguments)} ended with {run.returncode}')
  return json.loads(run.stdout.splitlines()[-1])


def markdown(results):
  """A line for each cell: GiB a chip of each program, seconds of each at least."""
  gib = 2**30
  lines = ['| model | slice | rollout | score | update | of | fits | rollout s | score s | update s '
           '| compiled in s |', '|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|']
  for cell in results['cells']:
    plan = cell['plan']
    programs = [plan['programs'][name] for name in ('rollout', 'score', 'update')]
    lines.append('| ' + ' | '.join([
        cell['name'], plan['topology'], *(f'{p["hbm_bytes"] / gib:.1f}' for p in programs),
        f'{plan["hbm_bytes"] / gib:.1f}', 'yes' if plan['fits'] else '**no**',
        *(f'{p["roofline_s"]:.2g}' for p in programs),
        f'{sum(p["compile_s"] for p in programs):.0f}']) + ' |')
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--only', default='', help='cells whose name and slice contain this')
  args = parser.parse_args()
  results = {'commit': metrics.commit(), 'versions': metrics.versions(),
             'machine': metrics.machine(), 'cells': []}
  if RESULTS.exists():
    earlier = json.loads(RESULTS.read_text())
    if earlier['commit'] == results['commit']:
      results = earlier
  for name, topology, arguments in cells():
    if args.only not in f'{name} {topology}':
      continue
    if any((c['name'], c['plan']['topology']) == (name, topology) for c in results['cells']):
      continue
    print(f'{name} on {topology}: plan {" ".join(arguments)}', file=sys.stderr, flush=True)
    results['cells'].append({'name': name, 'arguments': arguments, 'plan': compiled(arguments)})
    RESULTS.write_text(json.dumps(results, indent=1) + '\n')
  print(markdown(results))
  print(json.dumps({f'{c["name"]} {c["plan"]["topology"]}': c['plan']['fits']
                    for c in results['cells']}))


if __name__ == '__main__':
  main()
