"""Are the learner's log-probs the sampler's? On real episodes, turn by turn.

    python benchmarks/exactness.py [--config atlas] [--init FOLDER] [--episodes 32]
                                   [--attention reference tpu_interpret gpu_interpret]

Rolls out episodes of the constant-memory agent as training does (sampled, with position gaps),
keeps those of at least 4 turns, lays them out and computes |sampler - learner| of every generated
token's log-prob, in nats:

    exact      the exact layout, float32 at highest matmul precision
    exact_x64  the same in float64, in a process of its own: what is left is not rounding
    stitched   the single-copy layout of arXiv 2506.15841 on the float32 episodes
    NAME       the exact layout in float32, the learner's attention computed by NAME of --attention
               (ops/attention.py); the first three are computed as the config says

Prints a table by turn and, as its last line, JSON. Without its checkpoint the model is random.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import assemble, configs, domains, initial  # noqa: E402
from mem1_jax.memory import layout  # noqa: E402
from mem1_jax.ops.attention import IMPLEMENTATIONS  # noqa: E402
from mem1_jax.ops.logprobs import token_logprobs  # noqa: E402
from mem1_jax.rollout.collect import Collector  # noqa: E402
from mem1_jax.rollout.sampling import sampling  # noqa: E402
from mem1_jax.rollout.slots import Job  # noqa: E402

MIN_TURNS = 4
MAX_ROUNDS = 8
MICRO_ROWS = 4


def prepare(args, dtype):
  """The config with capacities that fit training turns, its tokenizer, policy and parameters."""
  config = configs.load(args.config, [])
  config.init = args.init or config.init
  config.agent, config.model.dtype, config.model.param_dtype = 'mem1', dtype, dtype
  config.rollout.num_slots = args.episodes
  # The base capacities serve 64 objectives; these are enough for training tasks.
  config.rollout.question_capacity, config.rollout.context_capacity = 256, 512
  config.rollout.turn_capacity = config.rollout.max_tokens
  if config.init and not initial.folder(config.init).exists():
    say(f'{config.init} is not there: random parameters')
    config.init = ''
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = jax.tree.map(lambda x: jnp.asarray(x, dtype), assemble.initial_params(config, policy))
  return config, tokenizer, policy, params


def roll_out(config, tokenizer, policy, params, num_episodes):
  """`num_episodes` sampled episodes of at least MIN_TURNS turns."""
  collector = Collector(
      assemble.make_engine(config, policy, tokenizer, False),
      assemble.make_agent(config, tokenizer), domains.make_environment(config).start,
      tokenizer.token_bytes, config.seed, has_gaps=True)
  composer = domains.make_composer(config, config.data.split, config.data.objectives)
  options = sampling(config.rollout.temperature, max_tokens=config.rollout.max_tokens)
  kept = []
  for i in range(MAX_ROUNDS):
    jobs = [Job(composer.task(j), j) for j in range(i * num_episodes, (i + 1) * num_episodes)]
    trajectories, _ = collector.run(params, jobs, options)
    kept += [t for t in trajectories if len(t.turns) >= MIN_TURNS]
    if len(kept) >= num_episodes:
      return kept[:num_episodes]
  raise RuntimeError(f'{len(kept)} of {MAX_ROUNDS * num_episodes} episodes have {MIN_TURNS} turns, '
                     f'fewer than {num_episodes}; ask for fewer, or for more objectives.')


def compare(config, tokenizer, policy, params, trajectories, name):
  """{turn: |sampler - learner| of its tokens, all episodes} for one layout."""
  columns = [layout.lay_out(t, name) for t in trajectories]
  for number, column in enumerate(columns):
    column['reward'][:] = number  # carries the number through the packing
  length = -(-max(len(c['tokens']) for c in columns) // 256) * 256
  rows, _ = layout.pack(columns, len(columns), max(length, config.rows.length), tokenizer.pad_id)

  @jax.jit
  def learner(params, tokens, position, key_end, temperature):
    hidden = policy.apply(params, tokens, position, key_end)
    return token_logprobs(hidden, policy.head(params), tokens, temperature,
                          tokenizer.vocab_size)[0]

  tags, temperature = rows.tags, jnp.float32(config.rollout.temperature)
  num_used = int((tags.key_end > 0).any(1).sum())
  logprob = np.concatenate([
      learner(params, *(_rows(x, i) for x in (rows.tokens, tags.position, tags.key_end)),
              temperature)
      for i in range(0, num_used, MICRO_ROWS)])[:len(columns)]
  found = {}
  for number, trajectory in enumerate(trajectories):
    is_here = (rows.reward == number) & (tags.episode >= 0) & tags.is_generated
    for j, turn in enumerate(trajectory.turns):
      is_turn = (is_here & (tags.turn == j))[:len(logprob)]
      difference = np.abs(logprob[is_turn] - np.asarray(turn.logprobs))
      found.setdefault(j, []).append(difference)
  return {j: np.concatenate(parts) for j, parts in sorted(found.items())}


def _rows(x, begin):
  """MICRO_ROWS rows from `begin` on, the last ones repeated past the end."""
  return x[np.minimum(np.arange(begin, begin + MICRO_ROWS), len(x) - 1)]


def summary(found):
  """Max and mean over all tokens and by turn, and the tokens of each turn."""
  every = np.concatenate(list(found.values()))
  return {
      'max': float(every.max()), 'mean': float(every.mean()),
      'per_turn': {j: {'max': float(x.max()), 'mean': float(x.mean()), 'tokens': len(x)}
                   for j, x in found.items()}}


def measure(args, dtype, names, implementations=()):
  """{layout or implementation: summary} of fresh episodes sampled and scored in `dtype`."""
  begun = time.monotonic()
  config, *parts = prepare(args, dtype)
  trajectories = roll_out(config, *parts, args.episodes)
  turns = [len(t.turns) for t in trajectories]
  say(f'{dtype}: {len(turns)} episodes of {min(turns)}–{max(turns)} turns, mean reward '
      f'{np.mean([t.reward for t in trajectories]):.2f}, {time.monotonic() - begun:.0f} s')
  results = {name: summary(compare(config, *parts, trajectories, name)) for name in names}
  tokenizer, _, params = parts
  for name in implementations:
    config.model.attention = name
    policy = assemble.make_policy(config, tokenizer)
    results[name] = summary(compare(config, tokenizer, policy, params, trajectories, 'exact'))
    say(f'{name}: done after {time.monotonic() - begun:.0f} s')
  say(f'{dtype}: done after {time.monotonic() - begun:.0f} s')
  return results


def measure_x64(args):
  """`measure` in float64, in a process in which nothing is float32."""
  command = [sys.executable, __file__, '--x64', '--config', args.config, '--init', args.init,
             '--episodes', str(args.episodes)]
  output = subprocess.run(command, env=os.environ | {'JAX_ENABLE_X64': '1'}, check=True,
                          stdout=subprocess.PIPE, text=True).stdout
  return json.loads(output.splitlines()[-1])['exact']


def say(text):
  print(text, file=sys.stderr, flush=True)


def print_table(results):
  names = list(results)
  print('|sampler - learner| log-prob in nats, max (mean)')
  print('turn  tokens  ' + ''.join(f'{name:>22}' for name in names))
  for turn, cell in results['exact']['per_turn'].items():
    cells = [results[name]['per_turn'].get(str(turn), results[name]['per_turn'].get(turn))
             for name in names]
    print(f'{turn:4}  {cell["tokens"]:6}  ' + ''.join(
        f'{c["max"]:10.1e} ({c["mean"]:.1e})'.rjust(22) if c else '–'.rjust(22) for c in cells))


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='atlas', help='a file or a packaged name')
  parser.add_argument('--init', default='', help='folder of parameters; default: the config\'s')
  parser.add_argument('--episodes', type=int, default=32)
  parser.add_argument('--attention', nargs='*', default=[], help='further ones for the learner',
                      choices=IMPLEMENTATIONS)
  parser.add_argument('--x64', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  jax.config.update('jax_default_matmul_precision', 'highest')
  if args.x64:
    print(json.dumps(measure(args, 'float64', ['exact'])))
    return
  if jax.config.jax_enable_x64:
    raise ValueError('JAX_ENABLE_X64 is set: the float32 run would not be one; unset it.')
  results = measure(args, 'float32', ['exact', 'stitched'], args.attention)
  results = {'exact': results.pop('exact'), 'exact_x64': measure_x64(args)} | results
  print_table(results)
  short = {name: {key: results[name][key] for key in ('max', 'mean')}
           for name in results if name != 'stitched'}
  print(json.dumps(short | {'stitched': results['stitched']}))


if __name__ == '__main__':
  main()
