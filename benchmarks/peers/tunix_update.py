"""One PPO update of Tunix, actor and critic, over given episodes, timed. A worker, CPU float32.

    pip install google-tunix==0.1.7 jax==0.12.0.1 flax==0.12.12 optax==0.2.8
    python benchmarks/peers/tunix_update.py EPISODES.npz --model-json JSON [--micro-rows 8]

EPISODES.npz holds packed rows of the exact layout, each array [rows, S]: tokens, is_generated,
logprob, advantage, value, target, turn (-1 question, j of turn j), episode (number in its row,
-1 padding). JSON (or a file of it) gives num_layers, dim, num_heads, num_kv_heads, head_dim,
hidden_dim, vocab_size, rope_theta, norm_eps and tie_embeddings of a Qwen2; weights are random.

No row of Tunix hides one turn from the next, and its packed rows are causal in its TPU kernel
only (its rl/common.py process_ids, models/qwen2). So an episode of n turns becomes n rows:
prompt = question + what the turn re-reads, padded on the left to the longest prompt; completion =
what it wrote, padded on the right. Positions count from 0 in every row.

Timed is what PPOLearner calls for a minibatch, micro-batch by micro-batch: the jitted train step
of its actor's trainer, then of its critic's, on ready-made inputs: Tunix's losses, Qwen2, nnx
optimiser (AdamW). Sampling, scoring, logging and checkpoints are not.

One line of JSON once compiled, {"ready": true, …}; then each line of stdin makes one update over
all episodes and prints {"seconds": …, "cpu_seconds": …}. Everything else goes to stderr.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from tunix.models.qwen2 import model as qwen2  # noqa: E402
from tunix.rl import rl_cluster, utils  # noqa: E402
from tunix.rl.ppo import ppo_learner  # noqa: E402
from tunix.rl.rollout import base_rollout  # noqa: E402

# Tunix masks what equals the padding's id; no episode has this one, and as an index it is valid.
PAD = -1
COLUMNS = {'old_per_token_logps': 'logprob', 'advantages': 'advantage', 'returns': 'target',
           'old_values': 'value'}


class Ids:
  """As much of a tokenizer as Tunix asks for: it wants one to sample with."""

  def encode(self, text):
    raise NotImplementedError('nothing is sampled here.')

  decode = encode

  def pad_id(self):
    return PAD

  def bos_id(self):
    return 0

  eos_id = bos_id


def read_json(text):
  return json.loads(text if text.lstrip().startswith('{') else pathlib.Path(text).read_text())


def split(data):
  """Per turn of every episode: its prompt's ids [P], the columns [C] of its completion."""
  turns = []
  for i, episode in enumerate(data['episode']):
    for number in range(episode.max() + 1):
      row = {name: data[name][i][episode == number] for name in data}
      for j in range(row['turn'].max() + 1):
        is_written = (row['turn'] == j) & row['is_generated']
        is_read = (row['turn'] == -1) | (row['turn'] == j) & ~row['is_generated']
        if not is_written.any() or np.flatnonzero(is_read)[-1] > np.flatnonzero(is_written)[0]:
          raise ValueError(f'turn {j} of episode {number} in row {i} is not read, then written.')
        turns.append((row['tokens'][is_read], {k: x[is_written] for k, x in row.items()}))
  return turns


def padded(parts, value, on_left=False):
  """[…][length] → [rows, longest], filled up with `value`."""
  length = max(map(len, parts))
  return np.stack([np.pad(x, (length - len(x), 0) if on_left else (0, length - len(x)),
                          constant_values=value) for x in parts])


def make_examples(turns, micro_rows):
  """Tunix's inputs: micro-batches of prompts [micro_rows, P] and completions [micro_rows, C]."""
  prompts = padded([p for p, _ in turns], PAD, on_left=True).astype(np.int32)
  completions = padded([c['tokens'] for _, c in turns], PAD).astype(np.int32)
  arrays = {key: padded([c[name] for _, c in turns], 0).astype(np.float32)
            for key, name in COLUMNS.items()}
  arrays |= {'prompt_ids': prompts, 'prompt_mask': (prompts != PAD).astype(np.int32),
             'completion_ids': completions, 'completion_mask': completions != PAD,
             # Tunix's KL is part of the reward: its PPO losses do not read the reference.
             'ref_per_token_logps': arrays['old_per_token_logps']}
  return [ppo_learner.TrainExample(**{k: jnp.asarray(x[i:i + micro_rows])
                                      for k, x in arrays.items()})
          for i in range(0, len(turns), micro_rows)]


def make_model(shape, is_tied, seed):
  """A Qwen2 whose matrices are N(0, 0.02²): Tunix starts its MLPs at 0."""
  model = qwen2.Qwen2(qwen2.ModelConfig(
      num_layers=shape['num_layers'], vocab_size=shape['vocab_size'], embed_dim=shape['dim'],
      hidden_dim=shape['hidden_dim'], num_heads=shape['num_heads'], head_dim=shape['head_dim'],
      num_kv_heads=shape['num_kv_heads'], rope_theta=shape['rope_theta'],
      norm_eps=shape['norm_eps'], use_tied_embedding=is_tied), rngs=nnx.Rngs(seed))
  draw = np.random.default_rng(seed).normal
  nnx.update(model, jax.tree.map(
      lambda x: jnp.asarray(draw(0.0, 0.02, x.shape), x.dtype) if x.ndim > 1 else x,
      nnx.state(model, nnx.Param)))
  return model


def make_optimizer(rate):
  """Their cost is one whatever the numbers; these are the paper's rates (arXiv 2506.15841)."""
  return optax.chain(optax.clip_by_global_norm(1.0),
                     optax.adamw(rate, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.01))


def make_trainers(shape, mesh, num_rows, micro_rows):
  """The actor's and the critic's trainer, set up by Tunix's PPOLearner."""
  roles = rl_cluster.Role
  training = rl_cluster.RLTrainingConfig(
      actor_optimizer=make_optimizer(1e-6), critic_optimizer=make_optimizer(1e-5),
      eval_every_n_steps=1_000_000,
      # None for one micro-batch: otherwise Tunix accumulates the gradients of one.
      mini_batch_size=num_rows if micro_rows < num_rows else None,
      train_micro_batch_size=micro_rows if micro_rows < num_rows else None)
  cluster = rl_cluster.RLCluster(
      actor=make_model(shape, shape['tie_embeddings'], 0),
      # Tunix makes a critic of an untied head only.
      critic=utils.create_critic_model(make_model(shape, False, 1)), tokenizer=Ids(),
      cluster_config=rl_cluster.ClusterConfig(
          role_to_mesh={role: mesh for role in (roles.ACTOR, roles.CRITIC, roles.ROLLOUT)},
          training_config=training, rollout_config=base_rollout.RolloutConfig()))
  ppo_learner.PPOLearner(cluster, ppo_learner.PPOConfig(),
                         reward_fns=lambda prompts, completions, **_: [0.0] * len(prompts))
  return cluster.actor_trainer, cluster.critic_trainer


def make_update(trainers, mesh, examples):
  """A function that makes one update and returns its times and the losses, one by one."""
  def update():
    with mesh:
      steps = [trainer.jit_train_and_eval_step(cache_nnx_graph=True)[0] for trainer in trainers]
      begun, cpu = time.perf_counter(), time.process_time()
      losses = [step(example)[0] for example in examples for step in steps]
      jax.block_until_ready([losses, [nnx.state(trainer.model) for trainer in trainers]])
      times = {'seconds': time.perf_counter() - begun, 'cpu_seconds': time.process_time() - cpu}
    return times, losses

  return update


def warm_up(trainers, update):
  """Two updates: the second takes what the first returned, which might compile again."""
  before = [jax.tree.map(np.array, nnx.state(trainer.model, nnx.Param)) for trainer in trainers]
  for _ in range(2):
    times, losses = update()
    print(f'warm-up: {times["seconds"]:.2f} s, losses {list(map(float, losses))}', file=sys.stderr)
    if not np.isfinite(losses).all():
      raise RuntimeError(f'losses are not finite: {losses}')
  for trainer, old in zip(trainers, before):
    if all(map(np.array_equal, jax.tree.leaves(old),
               jax.tree.leaves(nnx.state(trainer.model, nnx.Param)))):
      raise RuntimeError('an update changed no parameter.')


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('episodes', help='an .npz file')
  parser.add_argument('--model-json', required=True, type=read_json)
  parser.add_argument('--micro-rows', type=int, default=8,
                      help='most rows of a micro-batch; the largest divisor of all is taken')
  args = parser.parse_args()
  out, sys.stdout = sys.stdout, sys.stderr  # Tunix may print
  with np.load(args.episodes) as file:
    turns = split({k: file[k] for k in
                   ('tokens', 'is_generated', 'turn', 'episode', *COLUMNS.values())})
  micro_rows = max(n for n in range(1, args.micro_rows + 1) if len(turns) % n == 0)
  examples = make_examples(turns, micro_rows)
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('fsdp', 'tp'))
  trainers = make_trainers(args.model_json, mesh, len(turns), micro_rows)
  update = make_update(trainers, mesh, examples)
  warm_up(trainers, update)
  packages = ('google-tunix', 'jax', 'jaxlib', 'flax', 'optax')
  width = examples[0].prompt_ids.shape[1] + examples[0].completion_ids.shape[1]
  print(json.dumps({
      'ready': True, 'rows': len(turns), 'micro_rows': micro_rows, 'tokens_per_row': width,
      'versions': {name: importlib.metadata.version(name) for name in packages},
      'what': 'PPO actor and critic update, one row per turn'}), file=out, flush=True)
  for _ in sys.stdin:
    print(json.dumps(update()[0]), file=out, flush=True)


if __name__ == '__main__':
  main()
