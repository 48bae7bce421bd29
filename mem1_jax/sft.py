"""Supervised training: pre-training drills, then the scripted expert's episodes.

    rows of examples → loss on what is to be predicted → AdamW → checkpoint

Both kinds of examples are packed by the same layout that PPO trains on.
"""

import dataclasses
import itertools
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mem1_jax import assemble, checkpoint, domains, optim, preemption, progress, storage
from mem1_jax.arrays import overlay
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.data.drills import DrillMaker, cluttered
from mem1_jax.data.fiction import World
from mem1_jax.memory import layout
from mem1_jax.memory.positions import Gaps, stretch_prompt
from mem1_jax.metrics import MetricsWriter, describe_run
from mem1_jax.model import lora
from mem1_jax.ops import rounding
from mem1_jax.ops.logprobs import token_logprobs
from mem1_jax.parallel import multihost, sharding
from mem1_jax.text.tokenizer import Tokenizer

_MOST_TOO_LONG = 100  # examples longer than a row, one after another, before a run stops


def text_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out drills, the same for the same seed."""
  gaps = Gaps(config.gaps.prompt, 0, config.gaps.probability)
  for indices, world in domains.make_worlds(config, tokenizer).blocks():
    maker = make_drills(config, world)
    for index in indices:
      drill = maker.drill(index)
      rng = np.random.default_rng([config.seed, index, 1])
      lines = [tokenizer.encode(line) for line in drill.prompt.splitlines(keepends=True)]
      yield layout.lay_out_text(stretch_prompt(lines, gaps, rng), tokenizer.encode(drill.target))


def make_drills(config: Any, world: World) -> DrillMaker:
  """Drills over that world."""
  return DrillMaker(world.documents, world.questions, LABELS, config.seed, config.sft.max_entries,
                    config.sft.scatter, config.data.reworded)


def expert_examples(config: Any, tokenizer: Tokenizer) -> Iterator[dict[str, np.ndarray]]:
  """Endless laid out episodes of the scripted expert, of the atlas some drills among them."""
  agent, expert = assemble.make_agent(config, tokenizer), domains.EXPERTS[config.domain]
  drills = text_examples(config, tokenizer) if config.sft.drill_share else None
  for lessons in domains.lessons(config, tokenizer):
    maker = make_drills(config, lessons.world) if lessons.world else None
    for index in lessons.indices:
      rng = np.random.default_rng([config.seed, index])
      while rng.random() < config.sft.drill_share:
        yield next(drills)
      task = lessons.composer.task(index)
      episode = lessons.environment.start(cluttered(task, rng, maker) if maker else task)
      if rng.random() < config.sft.short_budget:
        episode.max_turns = int(rng.integers(1, task.hops + 1))
      elif rng.random() < config.sft.long_budget:
        episode.max_turns += int(rng.integers(100))
      is_hasty = rng.random() < config.sft.hasty
      trajectory = expert.play(expert.hasty(episode.task) if is_hasty else episode.task, agent,
                               episode, tokenizer, rng, mistakes(config, lessons.names, rng),
                               lambda text: garbled(text, rng)
                               if rng.random() < config.sft.garbled else None)
      if rng.random() < config.sft.openings:
        trajectory = dataclasses.replace(trajectory, turns=trajectory.turns[:1])
      yield layout.lay_out(trajectory, config.rows.layout)


def garbled(text: str, rng: np.random.Generator) -> str:
  """A turn's text that breaks off within its first tag and repeats a piece of itself.

  That is how turns of small models go wrong. The expert writes its turn anew after it.
  """
  end = int(rng.integers(len('<think>'), text.index('</think>') + 1))
  piece = text[max(len('<think>'), end - int(rng.integers(1, 30))):end]
  return text[:end] + piece * int(rng.integers(0, 6))


def mistakes(config: Any, names: Sequence[str], rng: np.random.Generator):
  """name → a misspelt one, in a share of calls, or None (`sft.mistakes`).

  The expert goes on with what such a search finds, mostly nothing: an agent whose expert
  never failed does not know how to go on after an error of its own.
  """
  def mistake(name: str) -> str | None:
    if rng.random() >= config.sft.mistakes:
      return None
    other = names[rng.integers(len(names))]
    wrong = f'{name[:rng.integers(1, len(name) + 1)]}{other[-rng.integers(1, 6):]}'
    return None if wrong == name else ' '.join(wrong.split())
  return mistake


def rows(config: Any, tokenizer: Tokenizer) -> Iterator[Any]:
  """Endless batches of packed rows [sft.rows_per_step, rows.length].

  An example longer than a row is left out, and the log says so.

  Raises:
    ValueError: an unknown kind of data, or rows that hold none of many examples.
  """
  examples = {'text': text_examples, 'expert': expert_examples}
  if config.sft.data not in examples:
    raise ValueError(f'sft.data {config.sft.data!r} is unknown; choose one of {sorted(examples)}.')
  packer = layout.Packer(config.sft.rows_per_step, config.rows.length, tokenizer.pad_id)
  num_too_long = 0  # in a row
  for columns in examples[config.sft.data](config, tokenizer):
    length = len(columns['tokens'])
    if length > config.rows.length:
      num_too_long += 1
      if num_too_long == _MOST_TOO_LONG:
        raise ValueError(f'{num_too_long} examples in a row, the last of {length} tokens, are '
                         f'longer than rows.length {config.rows.length}; raise it.')
      logging.warning('an example of %d tokens, more than rows.length %d, is left out', length,
                      config.rows.length)
      continue
    num_too_long = 0
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


def make_shardings(policy: Any, state: Any, num_rows: int, frozen: Any) -> tuple[Any, Any, Any]:
  """Where the three arguments of a step lie: state, episodes of `num_rows` rows, frozen."""
  axes = lora.logical_axes(policy.logical_axes())
  return (sharding.tree(policy.mesh, axes, state), sharding.rows(policy.mesh, num_rows),
          sharding.tree(policy.mesh, axes, frozen))


def make_step(policy: Any, optimizer: Any, num_valid: int, shardings: tuple[Any, Any, Any],
              micro_rows: int = 0, loss_scale: float = 1.0, seed: int = 0):
  """The jitted `step((trained, opt_state), episodes, frozen, number) -> (state, metrics)`.

  It donates the state, not `frozen`: the parameters that adapters stand beside, or None. A step
  whose loss or gradient is not finite changes nothing.

  Args:
    shardings: where state, episodes and frozen lie.
    micro_rows: rows in one forward and backward pass, a divisor of all; 0 for all. Gradients
      are summed in float32.
    loss_scale: as `PPOConfig.loss_scale`.
    seed: with the step's number, decides how parameters in bfloat16 are rounded.
  """

  def loss_fn(trained, episodes, frozen, count):
    params, tags = overlay(frozen, trained), episodes.tags
    hidden_BSD = policy.apply(params, episodes.tokens, tags.position, tags.key_end)
    logprob_BS, _ = token_logprobs(
        hidden_BSD, policy.head(params), episodes.tokens, 1.0, num_valid,
        mask_BS=tags.is_generated,
        num_groups=sharding.num_row_groups(policy.mesh, episodes.tokens.shape[0]))
    loss = -(logprob_BS * tags.is_generated).sum() / count
    # Sampled at T=1, this is the share of tokens that come out as in the example.
    probability = (jnp.exp(logprob_BS) * tags.is_generated).sum() / count
    return loss * loss_scale, (loss, probability)

  def gradient(trained, episodes, frozen):
    """((loss, probability), gradients), micro-row by micro-row."""
    count = jnp.maximum(episodes.tags.is_generated.sum(), 1)
    num_rows = episodes.tokens.shape[0]
    if num_rows % (micro_rows or num_rows):
      raise ValueError(f'{num_rows} rows a step cannot be dealt to micro-batches of {micro_rows}; '
                       'make sft.rows_per_step a multiple of sft.micro_rows')
    rows_NR = jnp.arange(num_rows).reshape(-1, micro_rows or num_rows)
    rows = sharding.rows(policy.mesh, rows_NR.shape[1])

    def one(i):
      micro = jax.lax.with_sharding_constraint(
          jax.tree.map(lambda x: x[rows_NR[i]], episodes), rows)
      grads, found = jax.grad(loss_fn, has_aux=True)(trained, micro, frozen, count)
      return found, grads

    if rows_NR.shape[0] == 1:
      grads, found = jax.grad(loss_fn, has_aux=True)(trained, episodes, frozen, count)
      return found, grads
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), jax.eval_shape(one, 0))
    return jax.lax.fori_loop(
        0, rows_NR.shape[0], lambda i, total: jax.tree.map(jnp.add, total, one(i)), zeros)

  def step(state, episodes, frozen, number):
    trained, opt_state = state
    (loss, probability), grads = gradient(trained, episodes, frozen)
    if loss_scale != 1.0:
      grads = jax.tree.map(lambda x: x.astype(jnp.float32) / loss_scale, grads)
    updates, opt_state = optimizer.update(grads, opt_state, trained)
    key = jax.random.fold_in(jax.random.key(seed), number)
    new = rounding.apply_updates(trained, updates, key), opt_state
    is_applied = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    state = jax.tree.map(lambda x, y: jnp.where(is_applied, x, y), new, state)
    return state, {'loss': loss, 'probability': probability, 'skipped': ~is_applied,
                   'tokens': (episodes.tags.key_end > 0).sum()}

  whole = sharding.whole(policy.mesh)
  return jax.jit(step, donate_argnums=0, in_shardings=(*shardings, whole),
                 out_shardings=(shardings[0], whole))


@preemption.listening()
def run(config: Any, workdir: storage.Path, is_resumed: bool = False) -> storage.Path:
  """Trains for `sft.steps`; returns the folder of the parameters, `workdir/params`.

  Adapters are merged there: PPO from that folder has the supervised model as its base.
  The examples are a pure function of the seed, so a resumed run makes them again
  up to where it stopped and goes on bit for bit.

  Raises:
    FileExistsError: when the folder has checkpoints and the run is not a resumed one.
    FloatingPointError: too many steps in a row were not finite.
    Preempted: the run was told to end, and has saved its last step.
  """
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  optim_config = assemble.make_optim_config(config, config.sft.steps)
  optimizer = optim.make(optim_config, optim_config.policy_lr)
  params, origin = assemble.initial_params(config, policy), assemble.origin(config)

  def init(params):
    trained, frozen = assemble.trainable(config, params, 'policy')
    return (trained, optimizer.init(trained)), frozen

  state, frozen = jax.eval_shape(init, params)
  shardings = make_shardings(policy, state, config.sft.rows_per_step, frozen)
  state, frozen = jax.jit(init, donate_argnums=0, out_shardings=shardings[::2])(params)
  begun = 0
  checkpoints = checkpoint.Checkpointer(workdir / 'checkpoints', config.checkpoint.keep)
  if checkpoints.steps():
    checkpoint.check_resumed(workdir, is_resumed)
    state, meta = checkpoints.restore_latest(state)
    checkpoint.check_origin(meta, origin)
    begun = meta['step']
  describe_run(workdir, str(config), config.seed, files={'params/': 'the trained parameters'})
  step = make_step(policy, optimizer, tokenizer.vocab_size, shardings, config.sft.micro_rows,
                   assemble.loss_scale(config), config.seed)
  examples = itertools.islice(rows(config, tokenizer), begun, None)
  writer = MetricsWriter(workdir, config.log.tensorboard, resume_step=begun)
  whole, num_skipped = sharding.whole(policy.mesh), 0  # in a row
  num_tokens, since = 0, time.monotonic()
  with progress.bar(f'SFT {config.sft.data}', config.sft.steps - begun) as bar:
    for i, episodes in zip(range(begun + 1, config.sft.steps + 1), prefetched(examples)):
      episodes, number = multihost.put((episodes, np.int32(i)), (shardings[1], whole))
      with jax.transfer_guard('disallow'):
        state, metrics = step(state, episodes, frozen, number)
      metrics = {name: float(x) for name, x in jax.device_get(metrics).items()}
      num_tokens += metrics['tokens']
      num_skipped = num_skipped + 1 if metrics['skipped'] else 0
      if num_skipped >= config.ppo.max_skipped:
        raise FloatingPointError(
            f'{num_skipped} steps in a row had a loss or gradient that is not finite '
            f'(ppo.max_skipped={config.ppo.max_skipped}); resume from the last checkpoint with a '
            'lower learning rate, or optim.loss_scale')
      if i % config.sft.log_every == 0 or i == config.sft.steps:
        now = time.monotonic()
        writer.write(i, metrics | {'tokens_per_s': num_tokens / (now - since)})
        num_tokens, since = 0, now
      bar.advance(1, f'loss {metrics["loss"]:.3f}')
      is_told, is_last = preemption.is_any_told(), i == config.sft.steps
      if i % config.sft.checkpoint_every == 0 or is_last or is_told:
        checkpoints.save(i, state, {'step': i} | origin)
      if is_told and not is_last:
        raise preemption.Preempted(preemption.farewell(workdir, 'step', i))
  writer.close()
  meta = {'agent': config.agent, 'data': config.sft.data, 'steps': config.sft.steps,
          'model': dataclasses.asdict(policy.config), 'seed': config.seed}
  merged = lora.merge(frozen, state[0], config.lora.alpha)
  checkpoint.save_params(workdir / 'params', merged, meta, config.sft.save_dtype)
  return workdir / 'params'
