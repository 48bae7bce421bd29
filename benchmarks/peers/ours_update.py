"""The worker of mem1_jax: `make_update` on exact rows (see benchmarks/update.py).

A CPU is used as train.py would use it best: a device for each thread, each with rows of its own.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mem1_jax import assemble, optim  # noqa: E402
from mem1_jax.arrays import Episodes, Tags, TrainBatch  # noqa: E402
from mem1_jax.configs import base  # noqa: E402
from mem1_jax.model import ModelConfig, build_critic, build_policy, hf  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from mem1_jax.model.hf_files import WEIGHTS, SafetensorsFolder  # noqa: E402
from mem1_jax.rl.learner import init_state, make_shardings, make_update  # noqa: E402
from mem1_jax.rl.networks import Networks  # noqa: E402

METRICS = ('policy_loss', 'value_loss', 'policy_grad_norm', 'value_grad_norm')


def load(settings, policy, critic):
  """(policy, critic) parameters of the folder that all peers read."""
  folder = pathlib.Path(settings['weights'])
  params = hf.load(SafetensorsFolder(folder / 'policy'), policy.config)
  value = safetensors.numpy.load_file(folder / 'critic' / WEIGHTS)['score.weight'].T
  return params, critic.from_policy(params, jax.random.key(0)) | {'value': jnp.asarray(value)}


def build(settings):
  """(update, state, shardings), as train.make_programs makes them."""
  config = base.get_config()
  config.reference = 'none'
  config.ppo.update(settings['ppo'])
  mesh = make_mesh(MeshConfig(-1, 1, 1))
  config.ppo.micro_rows *= mesh.size
  config.optim.update(settings['optim'])
  model = ModelConfig(**settings['model'])
  policy = build_policy(model, settings['attention'], mesh)
  critic = build_critic(model, settings['attention'], mesh)
  optimizers = optim.build(assemble.make_optim_config(config, 1))
  ppo = assemble.make_ppo_config(config, model.vocab_size)
  state = init_state(*load(settings, policy, critic), *optimizers, config.ppo.kl_coef)
  shardings = make_shardings(
      mesh, policy.logical_axes() | critic.logical_axes(), state, None, ppo)
  networks = Networks(policy.apply, policy.head, critic.apply)
  update = make_update(networks, *optimizers, ppo, shardings)
  return update, jax.device_put(state, shardings.state), shardings


def batch(arrays) -> TrainBatch:
  zeros = np.zeros(arrays['tokens'].shape, np.int32)  # what an update does not read
  tags = Tags(zeros, zeros, zeros, arrays['position'], arrays['key_end'], arrays['is_generated'])
  episodes = Episodes(arrays['tokens'], tags, arrays['logprob'], zeros.astype(np.float32))
  return TrainBatch(
      episodes, arrays['logprob'], arrays['logprob'], arrays['value'], arrays['advantage'],
      arrays['target'])


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('episodes', help='an .npz of benchmarks/update.py')
  parser.add_argument('--settings', required=True, help='a .json of benchmarks/update.py')
  args = parser.parse_args()
  settings, arrays = json.loads(pathlib.Path(args.settings).read_text()), np.load(args.episodes)
  if settings['platform'] == 'cpu' and hasattr(os, 'sched_setaffinity'):
    # XLA counts the cores when its first array is made.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:settings['threads']])
    jax.config.update('jax_num_cpu_devices', settings['threads'])
  update, state, shardings = build(settings)
  rows, num_rows, key = jax.device_put(
      (batch(arrays), np.int32(len(arrays['tokens'])), jax.random.key(settings['seed'])),
      (shardings.rows, shardings.whole, shardings.whole))
  for number, _ in enumerate(sys.stdin):
    more = {}
    if not number:  # compiles; its metrics are those of the initial parameters
      state, metrics = update(state, rows, num_rows, key, None)
      more = {'exact': {name: float(metrics[name]) for name in METRICS}}
    begun, cpu = time.perf_counter(), time.process_time()
    state, metrics = jax.block_until_ready(update(state, rows, num_rows, key, None))
    print(json.dumps({'seconds': time.perf_counter() - begun,
                      'cpu_seconds': time.process_time() - cpu} | more), flush=True)


if __name__ == '__main__':
  main()
