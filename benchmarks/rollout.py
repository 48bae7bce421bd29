"""How many episodes a second does a rollout take? Ours against other samplers, side by side.

    python benchmarks/rollout.py [--repeats 3] [--out FILE] [--tunix PYTHON] [--sections …]

A small Qwen2 of random weights plays episodes of random ids (peers/random_turns.py). The sections:

    skewed      six turns, each of the geometric length that ids which stop give it: a quarter of
                the longest on average; each turn reads question, last turn and a reply
    fixed       one turn, of the longest length
    latency     skewed, with twice the slots, and a reply that takes as long as said
    objectives  skewed, two turns more than objectives, beside an agent that keeps all turns

and who samples, with the same weights, as many episodes side by side:

    ours        the engine of mem1_jax, as train.py runs it, log-probs and environments included;
                another temperature every time, and what compiles after the warm-up is counted
    lockstep    the same, but turns begin when all turns before have ended
    tunix       peers/tunix_rollout.py: its Sampler, where --tunix names a Python that has it
    hf          peers/hf_rollout.py: transformers' generate

The last three run batches to their longest turn; a whole number of batches, so none waits for
others. Each peer is a process that builds, warms up, then runs its episodes once for each line
that it reads; peers take turns. Medians. The last line is JSON, episodes a second.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile

import side_by_side  # first: it finds mem1_jax
import models

from mem1_jax import metrics
from mem1_jax.model import ModelConfig

PEERS = pathlib.Path(__file__).resolve().parent / 'peers'
SECTIONS = ('skewed', 'fixed', 'latency', 'objectives')
TEMPERATURES = (1.0, 0.95, 1.05)
SPARE_TURNS = 2  # of an episode, beyond its objectives


def cases(args, model: ModelConfig) -> dict[str, dict]:
  """{section and what is measured: a `Case` of peers/random_turns.py}."""
  skewed = dict(vocab_size=model.vocab_size, slots=args.slots, episodes=args.waves * args.slots,
                turns=args.turns, question=args.question, reply=args.reply, longest=args.longest,
                mean=args.longest // 4, seed=args.seed)
  # A prompt as long as the longest of the skewed ones: all peers keep their shapes.
  fixed = skewed | dict(question=args.question + args.longest + args.reply, turns=1, mean=0)
  batch, slow = {'episodes': args.slots}, {'slots': 2 * args.slots,
                                           'episodes': 2 * args.waves * args.slots}
  found = {}
  for section, case in (('skewed', skewed), ('fixed', fixed)):
    found[f'{section} ours'] = case
    found[f'{section} lockstep'] = case | batch | {'is_lockstep': True}
    found |= {f'{section} {peer}': case | batch for peer in ('tunix', 'hf')}
  for seconds in args.latency:
    found[f'latency {seconds * 1000:g} ms'] = skewed | slow | {'latency_s': seconds}
  for agent, objectives in (('mem1', args.objectives), ('full_context', args.full_objectives)):
    for number in objectives:
      found[f'objectives {agent} {number}'] = skewed | {
          'turns': number + SPARE_TURNS, 'agent': agent,
          'episodes': max(3, round(args.waves * args.turns / (number + SPARE_TURNS))) * args.slots}
  return {name: case for name, case in found.items() if name.split()[0] in args.sections}


def commands(args, settings: pathlib.Path) -> dict[str, list[str] | str]:
  """How each peer is started, or why it is not."""
  def command(python, name):
    return [python, '-u', str(PEERS / f'{name}_rollout.py'), '--settings', str(settings)]

  found = {name: command(sys.executable, name) for name in ('ours', 'hf')}
  found['tunix'] = command(args.tunix, 'tunix') if args.tunix else 'no interpreter was given'
  return found | dict.fromkeys(args.skip, 'skipped')


def worker_of(case: str) -> str:
  peer = case.split()[1]
  return peer if peer in ('tunix', 'hf') else 'ours'


def summary(results: dict[str, dict]) -> dict[str, dict]:
  """Medians of each case, its raw replies, and episodes a second over those of its peers."""
  cells = {}
  for name, result in results.items():
    if 'not_run' in result:
      cells[name] = {'not_run': result['not_run']}
      continue
    timed = result['replies'][1:]
    cells[name] = {key: statistics.median(reply[key] for reply in timed)
                   for key, value in timed[0].items() if isinstance(value, (int, float))}
    cells[name] |= {'warm_up': result['replies'][0], 'raw': timed}
  for name, cell in cells.items():
    ours = cells.get(f'{name.split()[0]} ours', {})
    if 'episodes_s' in cell and 'episodes_s' in ours:
      cell['ours_over_it'] = ours['episodes_s'] / cell['episodes_s']
  return cells


def table(cells: dict[str, dict]) -> str:
  lines = [f'{"":<26} episodes/s  tokens/s  a turn  occupancy  prefill  decode  waiting  compiled  '
           'ours is']
  for name, cell in cells.items():
    if 'not_run' in cell:
      lines.append(f'{name:<26} not run: {cell["not_run"]}')
      continue
    shares = [f'{cell[key]:.0%}' if key in cell else '–'
              for key in ('occupancy', 'prefill', 'decode', 'environment')]
    compiled = sum(reply['recompiles'] for reply in cell['raw']) if 'recompiles' in cell else '–'
    times = f'{cell["ours_over_it"]:.2f}x' if 'ours_over_it' in cell else '–'
    lines.append(
        f'{name:<26} {cell["episodes_s"]:10.3f}  {cell["tokens_s"]:8.0f}  '
        f'{cell["tokens_per_turn"]:6.1f}  {shares[0]:>9}  {shares[1]:>7}  {shares[2]:>6}  '
        f'{shares[3]:>7}  {compiled:>8}  {times:>7}')
  return '\n'.join(lines)


def headline(cells: dict[str, dict]) -> dict:
  """The last line: episodes a second; tokens a second of the objectives."""
  found = {}
  for name, cell in cells.items():
    section, *rest = name.split()
    at, key = found.setdefault(section, {}), ' '.join(rest)
    if section == 'objectives':
      at, key = at.setdefault(rest[0], {}), rest[1]
    at[key] = cell.get('tokens_s' if section == 'objectives' else 'episodes_s', 'not run')
  if 'occupancy' in cells.get('skewed ours', {}):
    found['occupancy'] = cells['skewed ours']['occupancy']
  found['recompiles'] = sum(
      reply.get('recompiles', 0) for cell in cells.values() for reply in cell.get('raw', ()))
  return found


def say(text: str):
  print(text, file=sys.stderr, flush=True)


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--sections', nargs='+', default=list(SECTIONS), choices=SECTIONS)
  parser.add_argument('--slots', type=int, default=32, help='episodes side by side')
  parser.add_argument('--waves', type=int, default=8,
                      help='episodes of ours for each slot; of the others it is one')
  parser.add_argument('--turns', type=int, default=6)
  for name, tokens in (('question', 128), ('reply', 128), ('longest', 256)):
    parser.add_argument(f'--{name}', type=int, default=tokens, help='tokens (default: %(default)s)')
  parser.add_argument('--latency', type=float, nargs='+', default=[0.0, 0.2], help='seconds')
  parser.add_argument('--objectives', type=int, nargs='+', default=[2, 8, 64])
  parser.add_argument('--full-objectives', type=int, nargs='+', default=[2, 8],
                      help='of the agent that keeps all turns')
  parser.add_argument('--repeats', type=int, default=3, help='timed runs of each')
  parser.add_argument('--model', default='small', choices=models.NAMES)
  parser.add_argument('--dtype', default='float32', help='of computation')
  parser.add_argument('--threads', type=int, default=2, help='of each peer, on a CPU')
  parser.add_argument('--devices', type=int, default=2, help='that ours makes of a CPU')
  parser.add_argument('--prefill-chunk', type=int, default=64, help='as rollout.prefill_chunk')
  parser.add_argument('--decode-steps', type=int, default=16, help='as rollout.decode_steps')
  parser.add_argument('--refill-rows', type=int, default=0, help='as rollout.refill_rows')
  parser.add_argument('--tunix', default='', metavar='PYTHON', help='an interpreter that has tunix')
  parser.add_argument('--skip', nargs='*', default=[], choices=['tunix', 'hf'])
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def run(args, machine: dict, model: ModelConfig, folder: pathlib.Path) -> dict[str, dict]:
  say(f'{model.num_params() / 1e6:.1f} M parameters on {machine["device"]}')
  models.save_weights(folder, model, args.seed)
  found = cases(args, model)
  settings = models.save_settings(
      folder, model, cases=found, sampling=TEMPERATURES, prefill_chunk=args.prefill_chunk,
      engine={'decode_steps': args.decode_steps, 'refill_rows': args.refill_rows},
      threads=args.threads, devices=args.devices, platform=machine['platform'])
  started = commands(args, settings)
  results = {}
  for section in args.sections:  # those of other sections would keep their memory
    workers = {name: worker_of(name) for name in found if name.split()[0] == section}
    results |= side_by_side.measure(
        section, {name: started[name] for name in set(workers.values())}, workers, args.repeats)
  return summary(results)


def main():
  args, machine = parse(), side_by_side.machine()
  model = models.sizes(args.model, dtype=args.dtype)
  with tempfile.TemporaryDirectory() as folder:
    cells = run(args, machine, model, pathlib.Path(folder))
  if args.out:
    knobs = {name: value for name, value in vars(args).items() if name not in ('out', 'tunix')}
    args.out.write_text(json.dumps({
        'knobs': knobs, 'model': dataclasses.asdict(model), 'seed': args.seed,
        'commit': metrics.commit(), 'versions': metrics.versions(), 'machine': machine,
        'cases': cells}, indent=1) + '\n')
  print(table(cells))
  print(json.dumps(headline(cells)))


if __name__ == '__main__':
  main()
