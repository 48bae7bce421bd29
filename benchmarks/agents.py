"""Every agent on the same tasks of two questions, by the evaluation suite, with the parameters that ship.

    python benchmarks/agents.py [--agents mem1 amem …] [--workdir FOLDER] [--out FILE]

Each is `main evaluate --suite=multi_objective` on 100 test tasks of two questions, greedy: constant
memory and its baselines with the parameters of atlas/mem1, full context with its own. `endpoint` is
constant memory once more, its model behind an HTTP server that decodes token by token and knows
nothing of turns (tests/rollout/model_server.py): its EM is to be that of `mem1`. What has been done
in the work folder is kept. Everything else is passed on: --config.NAME=VALUE. EM is a sum over two
questions, intervals (95 %) are over tasks. The last line is JSON.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import assemble, configs, metrics  # noqa: E402
from mem1_jax.report import runs  # noqa: E402

AGENTS = ('mem1', 'full_context', 'truncation', 'threshold', 'amem', 'endpoint')
SHOWN = ('em', 'em_per_question', 'f1', 'answered', 'peak_tokens', 'peak_tokens_with_question',
         'dependency', 'turns', 'searches', 'generated_tokens', 'seconds')
OBJECTIVES = 2


def command(name: str, workdir: pathlib.Path, url: str, overrides: list[str]) -> list[str]:
  """The arguments of `main` that evaluate an agent."""
  agent = 'mem1' if name == 'endpoint' else name
  init = 'full_context' if agent == 'full_context' else 'mem1'
  served = [f'--config.endpoint.url={url}', '--config.endpoint.model=writer'] if url else []
  return ['evaluate', '--suite=multi_objective', f'--config.eval.objectives={OBJECTIVES}',
          f'--config.agent={agent}', f'--config.init=atlas/{init}', *served, *overrides,
          f'--workdir={workdir / name}']


@contextlib.contextmanager
def serving(overrides: list[str]) -> Iterator[str]:
  """The address of a server of atlas/mem1, in this process."""
  from tests.rollout.model_server import Greedy, ModelServer, running
  config = configs.load('atlas', overrides)
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  writer = Greedy(tokenizer, policy, assemble.acting_params(config, policy))
  with running(ModelServer(writer)) as url:
    yield url


def evaluate(name: str, workdir: pathlib.Path, overrides: list[str]) -> dict:
  """Evaluates an agent, unless it is done; what it came to, and by which command."""
  file = workdir / name / f'{"mem1" if name == "endpoint" else name}-{OBJECTIVES}.json'
  shown = command(name, pathlib.Path('WORKDIR'), 'URL' if name == 'endpoint' else '', overrides)
  if not file.exists():
    with serving(overrides) if name == 'endpoint' else contextlib.nullcontext('') as url:
      arguments = command(name, workdir, url, overrides)
      print(' '.join(['main', *arguments]), flush=True)
      subprocess.run([sys.executable, '-m', 'mem1_jax.main', *arguments], check=True, cwd=ROOT)
  cell, found = json.loads(file.read_text()), runs.find([file.parent]).evaluated[0]
  em = found.estimates['em']
  return {'command': ' '.join(['main', *shown]), 'em_interval': [em.low, em.high],
          'episodes': cell['episodes'], 'faults': cell['faults'], 'overflow': cell['overflow'],
          **{key: cell[key] for key in SHOWN},
          'raw_em': [record['score']['em'] for record in found.records]}


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--agents', nargs='+', default=AGENTS, choices=AGENTS)
  parser.add_argument('--workdir', type=pathlib.Path, default=ROOT / 'runs' / 'agents')
  parser.add_argument('--out', type=pathlib.Path, help='JSON with the EM of every task')
  args, overrides = parser.parse_known_args()
  found = {name: evaluate(name, args.workdir, overrides) for name in args.agents}
  for name, cell in found.items():
    low, high = cell['em_interval']
    interval = '' if low is None else f' [{low:.2f}, {high:.2f}]'
    print(f'{name:13} EM {cell["em"]:.2f}{interval} of {OBJECTIVES}, answered '
          f'{cell["answered"]:.2f}, peak {cell["peak_tokens"]:.0f} tokens, {cell["turns"]:.1f} turns')
  result = {'agents': found, 'objectives': OBJECTIVES, 'commit': metrics.commit(),
            'versions': metrics.versions(), 'machine': metrics.machine(),
            'seed': configs.load('atlas', overrides).seed}
  if args.out:
    args.out.write_text(json.dumps(result, indent=1) + '\n')
  print(json.dumps({name: cell['em'] for name, cell in found.items()}))


if __name__ == '__main__':
  main()
