"""Supervised training: pre-training drills, then the scripted expert's episodes.

    rows of examples → loss on what is to be predicted → AdamW → checkpoint

Both kinds of examples are packed by the same layout that PPO trains on.
"""

import json
import pathlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mem1_jax import assemble, checkpoint, optim
from mem1_jax.agents.expert import ExpertError, play
from mem1_jax.data import sources
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.drills import DrillMaker
from mem1_jax.memory import layout
from mem1_jax.memory.positions import Gaps, stretch_prompt
from mem1_jax.ops.logprobs import token_logprobs
from mem1_jax.text.tokenizer import Tokenizer


def text_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out drills, the same for the same seed."""
  maker = DrillMaker(sources.atlas_documents('train'), sources.load_atlas('train'), LABELS,
                     config.seed, config.sft.max_entries, config.sft.scatter)
  gaps = Gaps(config.gaps.prompt, 0, config.gaps.probability)
  index = 0
  while True:
    drill = maker.drill(index)
    rng = np.random.default_rng([config.seed, index, 1])
    lines = [tokenizer.encode(line) for line in drill.prompt.splitlines(keepends=True)]
    target = tokenizer.encode(drill.target)
    text = stretch_prompt([*lines, target], gaps, rng)
    yield layout.lay_out_text(text, len(text) - len(target))
    index += 1


def expert_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out episodes of the scripted expert on the training split."""
  agent, environment = assemble.make_agent(config, tokenizer), assemble.make_environment(config)
  composer = assemble.make_composer(config, config.data.split, config.data.objectives, config.seed)
  for batch in assemble.make_feed(config, composer, 16, 0):
    for index, task in zip(batch.indices.tolist(), batch.tasks):
      rng = np.random.default_rng([config.seed, index])
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


def make_step(policy: Any, optimizer: Any, num_valid: int):
  """(params, opt_state, episodes) → (params, opt_state, metrics); both states are donated."""

  def loss_fn(params, episodes):
    tags = episodes.tags
    hidden_BSD = policy.apply(params, episodes.tokens, tags.position, tags.key_end)
    logprob_BS, _ = token_logprobs(hidden_BSD, policy.head(params), episodes.tokens, 1.0,
                                   num_valid)
    count = jnp.maximum(tags.is_generated.sum(), 1)
    return -(logprob_BS * tags.is_generated).sum() / count, jnp.exp(logprob_BS)

  def step(params, opt_state, episodes):
    (loss, prob_BS), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, episodes)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = jax.tree.map(jnp.add, params, updates)
    is_counted_BS = episodes.tags.is_generated
    # Sampled at T=1, this is the share of tokens that come out as in the example.
    accuracy = (prob_BS * is_counted_BS).sum() / jnp.maximum(is_counted_BS.sum(), 1)
    return params, opt_state, {'loss': loss, 'probability': accuracy,
                               'tokens': (episodes.tags.key_end > 0).sum()}

  return jax.jit(step, donate_argnums=(0, 1))


def run(config: Any, workdir: pathlib.Path) -> pathlib.Path:
  """Trains; returns the folder of the parameters."""
  workdir.mkdir(parents=True, exist_ok=True)
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = assemble.initial_params(config, policy)
  optim_config = assemble.make_optim_config(config, config.sft.steps)
  optimizer = optim.adamw(optim_config, optim_config.policy_lr)
  opt_state = optimizer.init(params)
  step = make_step(policy, optimizer, tokenizer.vocab_size)
  begun, log = time.monotonic(), open(workdir / 'metrics.jsonl', 'w')
  num_tokens = 0
  for i, episodes in zip(range(config.sft.steps), prefetched(rows(config, tokenizer))):
    params, opt_state, metrics = step(params, opt_state, episodes)
    num_tokens += int((episodes.tags.key_end > 0).sum())
    if i % config.sft.log_every == 0:
      seconds = time.monotonic() - begun
      line = {'step': i, **{k: float(v) for k, v in metrics.items()}, 'seconds': seconds,
              'tokens_per_s': num_tokens / seconds}
      print(json.dumps(line), file=log, flush=True)
      print({k: round(v, 4) for k, v in line.items()}, flush=True)
    if i % 500 == 499 or i + 1 == config.sft.steps:
      checkpoint.save_params(workdir / 'params', params, {'steps': i + 1}, 'float32')
  return workdir / 'params'
