"""Does a training on several processes learn as on one? PPO on the embedded world, both ways.

    python benchmarks/multihost.py [--processes 2] [--iterations 6] [--tasks 16] [--workdir FOLDER]

Starts `main train` alone, then in several processes of this machine with a device each (CPU) on
the mesh data = processes: the same tasks, seed and checkpoint. Prints reward, KL and the rest side
by side, iteration by iteration, and as its last line JSON. On one machine the processes share its
cores, so the seconds tell nothing about several hosts.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CURVES = ('reward', 'kl', 'policy_loss', 'value_loss', 'logprob_gap_max', 'num_tokens', 'seconds')


def train(args, workdir, num_processes):
  """The lines of metrics.jsonl of a run on that many processes."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  overrides = {
      'mesh.data': num_processes, 'ppo.iterations': args.iterations, 'ppo.tasks': args.tasks,
      'ppo.num_rows': args.tasks, 'rollout.num_slots': args.tasks, 'eval.every': 0,
      'data.objectives': args.objectives, 'log.tensorboard': False}
  command = [sys.executable, '-m', 'mem1_jax.main', 'train', '--config=atlas',
             f'--workdir={workdir}', *(f'--config.{k}={v}' for k, v in overrides.items())]
  processes = []
  for index in range(num_processes):
    several = {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(num_processes),
               'JAX_PROCESS_ID': str(index)} if num_processes > 1 else {}
    processes.append(subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {'JAX_PLATFORMS': 'cpu'} | several))
  if any([process.wait() for process in processes]):
    raise RuntimeError(f'the run on {num_processes} processes failed; see above')
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--iterations', type=int, default=6)
  parser.add_argument('--tasks', type=int, default=16, help='per iteration, a slot each')
  parser.add_argument('--objectives', type=int, default=2, help='questions of a task')
  parser.add_argument('--workdir', default='', help='keeps the run folders; default: a temporary one')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    workdir = pathlib.Path(args.workdir or temporary).absolute()
    runs = {n: train(args, workdir / f'{n}-processes', n) for n in (1, args.processes)}
    version = json.loads((workdir / '1-processes/run.json').read_text())['starts'][0]
  print(f'iteration  {"".join(f"{name:>26}" for name in CURVES)}    (1 | {args.processes} processes)')
  for lines in zip(*runs.values(), strict=True):
    cells = [' | '.join(f'{line[name]:.5g}' for line in lines) for name in CURVES]
    print(f'{lines[0]["step"]:9}  {"".join(f"{cell:>26}" for cell in cells)}')
  curves = {str(n): {name: [line[name] for line in lines] for name in CURVES}
            for n, lines in runs.items()}
  print(json.dumps({
      'command': ' '.join(['python benchmarks/multihost.py', *sys.argv[1:]]),
      'commit': version['commit'], 'versions': version['versions'], 'machine': version['machine'],
      'processes': curves}))


if __name__ == '__main__':
  main()
