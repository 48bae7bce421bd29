"""Supervised training: pre-training drills, then the scripted expert's episodes.

    rows of examples → loss on what is to be predicted → AdamW → checkpoint

Both kinds of examples are packed by the same layout that PPO trains on.
"""

import dataclasses
import itertools
import pathlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mem1_jax import assemble, checkpoint, optim, progress
from mem1_jax.agents.expert import ExpertError, play
from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.drills import DrillMaker, cluttered
from mem1_jax.memory import layout
from mem1_jax.memory.positions import Gaps, stretch_prompt
from mem1_jax.metrics import MetricsWriter, describe_run
from mem1_jax.ops.logprobs import token_logprobs
from mem1_jax.parallel import sharding
from mem1_jax.text.tokenizer import Tokenizer


def text_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out drills, the same for the same seed."""
  maker = make_drills(config)
  gaps = Gaps(config.gaps.prompt, 0, config.gaps.probability)
  index = 0
  while True:
    drill = maker.drill(index)
    rng = np.random.default_rng([config.seed, index, 1])
    lines = [tokenizer.encode(line) for line in drill.prompt.splitlines(keepends=True)]
    yield layout.lay_out_text(stretch_prompt(lines, gaps, rng), tokenizer.encode(drill.target))
    index += 1


def make_drills(config: Any) -> DrillMaker:
  """Drills over the training split."""
  return DrillMaker(sources.atlas_documents('train'), sources.load_atlas('train'), LABELS,
                    config.seed, config.sft.max_entries, config.sft.scatter, config.data.reworded)


def expert_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out episodes of the scripted expert, some drills among them."""
  maker, drills = make_drills(config), text_examples(config, tokenizer)
  agent, environment = assemble.make_agent(config, tokenizer), assemble.make_environment(config)
  composer = assemble.make_training_composer(config)
  for batch in assemble.make_feed(config, composer, 16, 0):
    for index, task in zip(batch.indices.tolist(), batch.tasks):
      rng = np.random.default_rng([config.seed, index])
      while rng.random() < config.sft.drill_share:
        yield next(drills)
      task = cluttered(task, rng, maker)
      episode = environment.start(task)
      if rng.random() < config.sft.short_budget:
        episode.max_turns = int(rng.integers(1, task.hops + 1))
      try:
        yield layout.lay_out(play(task, agent, episode, tokenizer, rng), config.rows.layout)
      except ExpertError:
        continue  # the document found is not the one the chain names: nothing to imitate


def rows(config: Any, tokenizer: Tokenizer) -> Iterator[Any]:
  """Endless batches of packed rows [sft.rows_per_step, rows.length]."""
  examples = {'text': text_examples, 'expert': expert_examples}
  if config.sft.data not in examples:
    raise ValueError(f'sft.data {config.sft.data!r} is unknown; choose one of {sorted(examples)}.')
  packer = layout.Packer(config.sft.rows_per_step, config.rows.length, tokenizer.pad_id)
  for columns in examples[config.sft.data](config, tokenizer):
    if not packer.add(columns):
      yield packer.flush()[0]
      packer.add(columns)


def prefetched(iterator: Iterator[Any], depth: int = 4) -> Iterator[Any]:
  """The same items, made ahead of time by a thread; its errors are raised here."""
  items = queue.Queue(depth)

  def work():
    try:
      for item in iterator:
        items.put((item, None))
    except BaseException as error:  # pylint: disable=broad-except
      items.put((None, error))

  threading.Thread(target=work, daemon=True).start()
  while True:
    item, error = items.get()
    if error is not None:
      raise error
    yield item


def make_step(policy: Any, optimizer: Any, num_valid: int, shardings: Any, row_sharding: Any):
  """The jitted `step((params, opt_state), episodes) -> (state, metrics)`; donates the state.

  Args:
    shardings, row_sharding: where the state and the episodes lie.
  """

  def loss_fn(params, episodes):
    tags = episodes.tags
    hidden_BSD = policy.apply(params, episodes.tokens, tags.position, tags.key_end)
    logprob_BS, _ = token_logprobs(hidden_BSD, policy.head(params), episodes.tokens, 1.0,
                                   num_valid)
    count = jnp.maximum(tags.is_generated.sum(), 1)
    return -(logprob_BS * tags.is_generated).sum() / count, jnp.exp(logprob_BS)

  def step(state, episodes):
    params, opt_state = state
    (loss, prob_BS), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, episodes)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    state = optax.apply_updates(params, updates), opt_state
    is_counted_BS = episodes.tags.is_generated
    # Sampled at T=1, this is the share of tokens that come out as in the example.
    probability = (prob_BS * is_counted_BS).sum() / jnp.maximum(is_counted_BS.sum(), 1)
    return state, {'loss': loss, 'probability': probability,
                   'tokens': (episodes.tags.key_end > 0).sum()}

  return jax.jit(step, donate_argnums=0, in_shardings=(shardings, row_sharding),
                 out_shardings=(shardings, sharding.whole(policy.mesh)))


def run(config: Any, workdir: pathlib.Path, is_resumed: bool = False) -> pathlib.Path:
  """Trains for `sft.steps`; returns the folder of the parameters, `workdir/params`.

  The examples are a pure function of the seed, so a resumed run makes them again
  up to where it stopped and goes on bit for bit.

  Raises:
    FileExistsError: when the folder has checkpoints and the run is not a resumed one.
  """
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  optim_config = assemble.make_optim_config(config, config.sft.steps)
  optimizer = optim.make(optim_config, optim_config.policy_lr)
  params = assemble.initial_params(config, policy)
  state = params, optimizer.init(params)
  shardings = sharding.tree(policy.mesh, policy.logical_axes(), state)
  row_sharding = sharding.rows(policy.mesh, config.sft.rows_per_step)
  state, begun = jax.device_put(state, shardings), 0
  checkpoints = checkpoint.Checkpointer(workdir / 'checkpoints', config.checkpoint.keep)
  if checkpoints.steps():
    checkpoint.check_resumed(workdir, is_resumed)
    state, meta = checkpoints.restore_latest(state)
    begun = meta['step']
  describe_run(workdir, str(config), config.seed, files={'params/': 'the trained parameters'})
  step = make_step(policy, optimizer, tokenizer.vocab_size, shardings, row_sharding)
  examples = itertools.islice(rows(config, tokenizer), begun, None)
  writer = MetricsWriter(workdir, config.log.tensorboard, resume_step=begun)
  with progress.bar(f'SFT {config.sft.data}', config.sft.steps - begun) as bar:
    for i, episodes in zip(range(begun + 1, config.sft.steps + 1), prefetched(examples)):
      episodes = jax.device_put(episodes, row_sharding)
      with jax.transfer_guard('disallow'):
        state, metrics = step(state, episodes)
      if i % config.sft.log_every == 0 or i == config.sft.steps:
        writer.write(i, metrics)
      bar.advance(1, f'loss {float(metrics["loss"]):.3f}')
      if i % config.sft.checkpoint_every == 0 or i == config.sft.steps:
        checkpoints.save(i, state, {'step': i})
  writer.close()
  meta = {'agent': config.agent, 'data': config.sft.data, 'steps': config.sft.steps,
          'model': dataclasses.asdict(policy.config), 'seed': config.seed}
  checkpoint.save_params(workdir / 'params', state[0], meta, config.sft.save_dtype)
  return workdir / 'params'
