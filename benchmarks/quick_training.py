"""Does one command train in each domain, in how long, and does the reward rise?

    python benchmarks/quick_training.py [--runs atlas_hasty webshop web] [--workdir FOLDER]
        [--out FILE]

Each run is `main train --config=NAME`, with ppo.iterations set to what stands behind the colon;
its output goes on as it comes. A run that has ended in the work folder is read, not done again; one
that was cut off is an error. The mean reward of the first quarter of the iterations and of the
last, with 95 % intervals over tasks (`metrics.reward_gain`), and whether these are apart; minutes
from the start of the program to the last metrics, compilation included. The last line is JSON.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import configs, metrics  # noqa: E402
from mem1_jax.report import summary  # noqa: E402


def overrides(run: str) -> tuple[str, list[str]]:
  """(config, overrides) of NAME or NAME:ITERATIONS."""
  name, _, iterations = run.partition(':')
  return name, [f'--config.ppo.iterations={iterations}'] if iterations else []


def train(run: str, workdir: pathlib.Path):
  """Does the run, unless it is there."""
  name, more = overrides(run)
  if (workdir / metrics.JSONL).exists():
    return
  command = [sys.executable, '-m', 'mem1_jax.main', 'train', f'--config={name}',
             f'--workdir={workdir}', *more]
  print(' '.join(command[1:]), flush=True)
  subprocess.run(command, check=True, cwd=ROOT)


def measured(run: str, workdir: pathlib.Path) -> dict:
  """What a run was and came to.

  Raises:
    ValueError: it has not ended, or is another one.
  """
  name, more = overrides(run)
  wanted = configs.load(name, more).ppo.iterations
  steps, described = metrics.read_metrics(workdir), json.loads((workdir / 'run.json').read_text())
  if len(steps) != wanted or len(described['starts']) != 1:
    raise ValueError(f'{workdir} has {len(steps)} iterations of {wanted}, begun '
                     f'{len(described["starts"])} times; delete it, so that it is run in one go')
  start = described['starts'][0]
  begun = datetime.datetime.fromisoformat(start['time']).timestamp()
  gain = metrics.reward_gain(steps)
  return {
      'command': f'main train --config={name} {" ".join(more)}'.strip(), **gain,
      'is_apart': (gain['reward_last'] - gain['reward_last_ci']
                   > gain['reward_first'] + gain['reward_first_ci']),
      'minutes': (steps[-1]['time'] - begun) / 60, 'iterations': len(steps),
      'commit': start['commit'], 'versions': start['versions'], 'machine': start['machine'],
      'seed': described['seed'],
      'raw': {key: [step[key] for step in steps] for key in ('reward', 'reward_error', 'seconds')},
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--runs', nargs='+', default=['atlas_hasty', 'webshop', 'web'],
                      metavar='NAME[:ITERATIONS]', help='configs (default: %(default)s)')
  parser.add_argument('--workdir', type=pathlib.Path, default=ROOT / 'runs' / 'quick_training')
  parser.add_argument('--out', type=pathlib.Path, help='JSON with all iterations')
  args = parser.parse_args()
  found = {}
  for run in args.runs:
    workdir = args.workdir / run.partition(':')[0]
    train(run, workdir)
    found[run] = measured(run, workdir)
  for run, result in found.items():
    print(f'{run:12}{result["minutes"]:6.1f} minutes  {summary.reward_line(result)}'
          f'{"" if result["is_apart"] else "  (not apart)"}')
  if args.out:
    args.out.write_text(json.dumps(found, indent=1) + '\n')
  print(json.dumps({run: {key: value for key, value in result.items() if not isinstance(
      value, (dict, list))} for run, result in found.items()}))


if __name__ == '__main__':
  main()
