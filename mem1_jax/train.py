"""PPO training, top to bottom.

    tasks → rollout → pack → score → update → metrics, evaluation, checkpoint

Every device program is compiled in the first iteration and never again; a
resumed run continues bit for bit, since all randomness is folded by
(seed, iteration, task, sample, turn, position) and the feed's state is one number.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mem1_jax import assemble, domains, optim, preemption, progress, storage
from mem1_jax.arrays import Array, Params, TrainState, overlay
from mem1_jax.checkpoint import Checkpointer, check_origin, check_resumed
from mem1_jax.data.compose import Composer
from mem1_jax.evaluate import Evaluator, write_records
from mem1_jax.measures import aggregate, rollout_metrics
from mem1_jax.memory import layout
from mem1_jax.metrics import CompileCounter, MetricsWriter, describe_run, profiled
from mem1_jax.model import Critic, Policy, build_critic, lora, precision, quantize
from mem1_jax.parallel import multihost, sharding
from mem1_jax.retrieval import metrics_of
from mem1_jax.rl import advantages
from mem1_jax.rl.config import PPOConfig
from mem1_jax.rl.learner import (
    Shardings, check_skipped, init_state, make_score, make_shardings, make_update)
from mem1_jax.rl.networks import Networks
from mem1_jax.rollout.collect import Collector
from mem1_jax.rollout.engine import Engine
from mem1_jax.rollout.sampling import sampling
from mem1_jax.rollout.slots import Job
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.types import Trajectory

BASELINES = ('critic', 'task')
_BEST = 'eval_reward'  # the best checkpoint has the highest
_FILES = {'checkpoints/': 'the newest and the best state; --resume continues',
          'samples/': 'validation trajectories; `main inspect FILE`',
          'profile/': 'a trace, if --profile asked for one'}
_MAY_COMPILE = ()


@dataclasses.dataclass(frozen=True)
class Programs:
  """What a run computes on its mesh, before any array of it exists (`main plan` needs no more)."""

  policy: Policy
  critic: Critic
  ppo: PPOConfig
  engine: Engine
  init: jax.stages.Wrapped  # initial parameters → TrainState
  acting: Callable[[Params], Params]  # the policy → what rollouts read
  as_read: Callable[[Params], Params]  # the same of shapes, or numbers on one device
  score: jax.stages.Wrapped
  update: jax.stages.Wrapped
  shardings: Shardings
  reference: Params | None  # its shapes
  state: TrainState  # its shapes


@dataclasses.dataclass
class Trainer:
  """The parts of a run and its changing state."""

  config: Any
  tokenizer: Any
  composer: Composer
  collector: Collector
  evaluator: Evaluator
  score: Any
  update: Any
  acting: Callable[[Params], Params]  # the policy → what rollouts read
  ppo: PPOConfig
  shardings: Shardings
  key: Array  # shuffles rows
  reference: Params | None  # and base of adapters; None where nothing needs the initial parameters
  state: TrainState
  iteration: int = 0
  next_index: int = 0


def make_programs(config: Any, tokenizer: Any, policy: Policy, is_append_only: bool) -> Programs:
  """The device programs of a run.

  Raises:
    ValueError: on a config whose capacities do not fit one another.
  """
  critic = build_critic(policy.config, config.model.attention, policy.mesh)
  optimizers = optim.build(assemble.make_optim_config(
      config, config.ppo.iterations * config.ppo.epochs * config.ppo.minibatches))
  ppo = assemble.make_ppo_config(config, tokenizer.vocab_size)

  def init(initial):
    trained, _ = assemble.trainable(config, initial, 'policy')
    trunk, _ = assemble.trainable(config, initial, 'value')
    return init_state(
        trained, critic.from_policy(trunk, jax.random.key(config.seed)), optimizers.policy,
        optimizers.value, config.ppo.kl_coef)

  initial = jax.eval_shape(policy.init, jax.random.key(0))
  state = jax.eval_shape(init, initial)
  reference = jax.eval_shape(lambda initial: assemble.frozen(config, initial), initial)
  axes = lora.logical_axes(policy.logical_axes() | critic.logical_axes())
  shardings = make_shardings(policy.mesh, axes, state, reference, ppo)
  where = overlay(shardings.reference, shardings.state.policy)
  trained = overlay(reference, state.policy)
  as_read = assemble.rollout_weights(config)
  acting = sharding.tree(policy.mesh, quantize.logical_axes(axes), jax.eval_shape(as_read, trained))
  if config.rollout.gather_weights:
    acting = sharding.gathered(acting, 'fsdp')
  networks = Networks(policy.apply, policy.head, critic.apply,
                      critic.read if config.critic == 'head' else None,
                      sharding.num_row_groups(policy.mesh, ppo.micro_rows))
  return Programs(
      policy, critic, ppo,
      assemble.make_engine(config, policy, tokenizer, is_append_only, params=acting),
      jax.jit(init, in_shardings=(policy.shardings(),), out_shardings=shardings.state),
      precision.make_copy(as_read, trained, where, acting), as_read,
      make_score(networks, ppo, shardings),
      make_update(networks, optimizers.policy, optimizers.value, ppo, shardings),
      shardings, reference, state)


def build(config: Any) -> Trainer:
  """Everything that a run needs, at iteration 0.

  Raises:
    ValueError: on a config whose capacities do not fit one another.
  """
  if config.ppo.baseline not in BASELINES:
    raise ValueError(f'ppo.baseline {config.ppo.baseline!r} is unknown; choose one of {BASELINES}.')
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  environment = domains.make_environment(config)
  agent = assemble.make_agent(config, tokenizer)
  composer = domains.make_training_composer(config)
  assemble.check_room(config, agent, composer)
  if config.eval.every:  # a file may have no task for it, which is said before the first iteration
    domains.make_composer(config, 'validation', domains.validated(config))
  programs = make_programs(config, tokenizer, policy, agent.is_append_only)
  initial = assemble.initial_params(config, policy)
  reference = assemble.frozen(config, initial)
  return Trainer(
      config, tokenizer, composer,
      Collector(programs.engine, agent, environment.start, tokenizer.token_bytes, config.seed,
                has_gaps=True, row_length=config.rows.length,
                reply_timeout_s=config.rollout.reply_timeout,
                counted=lambda: metrics_of(environment)),
      Evaluator(config, programs.engine, tokenizer, environment),
      programs.score, programs.update, programs.acting, programs.ppo, programs.shardings,
      multihost.put(jax.random.key(config.seed), programs.shardings.whole),
      reference, programs.init(initial))


def policy_params(trainer: Trainer) -> Params:
  """The policy as rollouts read it: with LoRA, adapters beside the reference.

  A copy in the dtype of computation where parameters are wider, whole along fsdp where they are
  split (`rollout.gather_weights`): the same numbers, read faster, gathered once and not each step.
  With `rollout.weights` int8 the numbers are rounded, too, for validation as for training.
  """
  return trainer.acting(overlay(trainer.reference, trainer.state.policy))


def rollout(trainer: Trainer, batch: Any,
            on_done: Callable[[Trajectory], None] = lambda _: None,
            ) -> tuple[list[Trajectory], RolloutStats]:
  """`ppo.samples` episodes of each task of the batch, sampled at the run's temperature."""
  config = trainer.config
  jobs = [Job(task, int(index), sample) for index, task in zip(batch.indices, batch.tasks)
          for sample in range(config.ppo.samples)]
  options = sampling(config.rollout.temperature, max_tokens=config.rollout.max_tokens)
  return trainer.collector.run(policy_params(trainer), jobs, options, trainer.iteration, on_done)


def learn(trainer: Trainer, trajectories: list[Trajectory]) -> dict[str, float]:
  """Packs, scores and updates; returns the update's metrics."""
  config, begun = trainer.config, time.monotonic()
  columns = [layout.lay_out(t, config.rows.layout) for t in trajectories]
  if config.ppo.baseline == 'task':
    rewards, is_valid = (np.array([f(t) for t in trajectories])
                         for f in (lambda t: t.reward, lambda t: not t.fault))
    less_mean = advantages.leave_one_out(rewards, config.ppo.samples, is_valid)
    for c, less in zip(columns, less_mean - rewards):
      c['reward'][np.flatnonzero(c['is_generated'])[-1]] += less
  for c, t in zip(columns, trajectories):
    if t.fault:  # the policy did not end it: nothing is to be learned from its reward
      c['is_generated'] = np.zeros_like(c['is_generated'])
  episodes, packed = layout.pack(columns, config.ppo.num_rows, config.rows.length,
                                 trainer.tokenizer.pad_id)
  episodes, num_rows = multihost.put(
      (episodes, np.int32(packed.num_rows)), (trainer.shardings.rows, trainer.shardings.whole))
  state = trainer.state
  batch = trainer.score(
      state.policy, state.value, trainer.reference, state.kl_coef, episodes, num_rows)
  trainer.state, metrics = trainer.update(
      trainer.state, batch, num_rows, trainer.key, trainer.reference)
  metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
  check_skipped(int(metrics['skipped_in_a_row']), trainer.ppo)
  seconds = time.monotonic() - begun
  num_tokens = sum(len(c['tokens']) for c in columns)
  return metrics | {'padding_fraction': 1 - packed.fill, 'update_seconds': seconds,
                    'update_tokens_per_s': num_tokens / seconds}


def evaluate(trainer: Trainer, workdir: storage.Path) -> dict[str, float]:
  """Greedy validation of the current policy; writes a few trajectories."""
  config = trainer.config
  trajectories, _ = trainer.evaluator.run(
      policy_params(trainer), domains.validated(config), 'validation', config.eval.every_tasks)
  path = workdir / 'samples' / f'iteration-{trainer.iteration:05d}.jsonl'
  write_records(path, trajectories[:config.log.samples], trainer.tokenizer)
  means = aggregate(trajectories)
  return {f'eval_{name}': means[name] for name in ('em', 'f1', 'answered', 'turns', 'peak_tokens')}


@preemption.listening()
def run(config: Any, workdir: storage.Path, is_resumed: bool = False, profile: int = 0) -> Trainer:
  """Trains for `ppo.iterations`; the run folder has the rest. Returns the trained state.

  Args:
    config: configs/base.py.
    workdir: the run folder.
    is_resumed: continue from the newest checkpoint, if there is one.
    profile: iteration to trace, counted from 1; 0 for none.

  Raises:
    FileExistsError: the folder has checkpoints and the run is not a resumed one.
    RuntimeError: a device program was compiled after the first iteration.
    FloatingPointError: too many updates in a row were not finite.
    Preempted: the run was told to end, and has saved its last completed iteration.
  """
  trainer = build(config)
  checkpoints = Checkpointer(workdir / 'checkpoints', config.checkpoint.keep, _BEST)
  metrics = {}  # of a completed iteration that is not evaluated, or not written down
  if checkpoints.steps():
    check_resumed(workdir, is_resumed)
    metrics = restore(trainer, checkpoints)
  describe_run(workdir, str(config), config.seed, files=_FILES)
  feed = assemble.make_feed(config, trainer.composer, config.ppo.tasks, trainer.next_index)
  writer = MetricsWriter(
      workdir, config.log.tensorboard, {'project': config.log.wandb} if config.log.wandb else None,
      trainer.iteration - bool(metrics))
  compiles, total, first = CompileCounter(), config.ppo.iterations, trainer.iteration
  with (progress.bar('PPO', total - first + bool(metrics)) as bar,
        saved_if_told(trainer, checkpoints, lambda: metrics)):
    while metrics or trainer.iteration < total:
      if not metrics:
        with (profiled(workdir / 'profile', trainer.iteration + 1 == profile),
              bar.part('episodes', config.ppo.tasks * config.ppo.samples) as part):
          metrics = iterate(trainer, next(feed), progress.of_episodes(part))
      is_last = trainer.iteration == total
      if config.eval.every and (trainer.iteration % config.eval.every == 0 or is_last):
        metrics |= evaluate(trainer, workdir)
      if trainer.iteration <= first + 1:
        compiles.reset()  # everything has run once: nothing may be compiled from here on
      metrics['recompiles'] = compiles.count
      writer.write(trainer.iteration, metrics)
      compiles.assert_none(_MAY_COMPILE)
      if trainer.iteration % config.checkpoint.every == 0 or is_last:
        save(trainer, checkpoints, metrics)
        compiles.reset()  # Orbax compiles cuts of what several devices hold
      bar.advance(1, f'reward {metrics["reward"]:.2f} · kl {metrics["kl"]:.4f}')
      metrics = {}
  writer.close()
  checkpoints.close()
  return trainer


def iterate(trainer: Trainer, batch: Any,
            on_done: Callable[[Trajectory], None] = lambda _: None) -> dict[str, float]:
  """One iteration: rollout, update, metrics."""
  begun = time.monotonic()
  with jax.transfer_guard('disallow'):  # what moves between host and devices is put or fetched
    trajectories, stats = rollout(trainer, batch, on_done)
    if preemption.is_any_told():  # an update cannot be left, since it takes the old state
      raise preemption.Preempted('before an update')
    metrics = rollout_metrics(trajectories, stats) | learn(trainer, trajectories)
  trainer.iteration += 1
  trainer.next_index = batch.next_index
  return metrics | {'seconds': time.monotonic() - begun}


def save(trainer: Trainer, checkpoints: Checkpointer, metrics: dict[str, float],
         unwritten: dict[str, float] | None = None):
  """Everything that changes, where the feed is, and metrics that are not written down yet."""
  best = {_BEST: metrics[_BEST]} if _BEST in metrics else None
  if trainer.iteration in checkpoints.steps():  # saved before it was evaluated
    checkpoints.rank(trainer.iteration, best or {})
    return
  meta = assemble.origin(trainer.config) | {
      'iteration': trainer.iteration, 'next_index': trainer.next_index, 'unwritten': unwritten or {}}
  checkpoints.save(trainer.iteration, trainer.state, meta, best)


@contextlib.contextmanager
def saved_if_told(trainer: Trainer, checkpoints: Checkpointer,
                  unwritten: Callable[[], dict[str, float]]):
  """Saves the last completed iteration when the run is told to end.

  Args:
    unwritten: its metrics, if they are not written down, since it is not evaluated yet.

  Raises:
    Preempted: with what to do next.
  """
  try:
    yield
  except preemption.Preempted as error:
    if trainer.iteration and trainer.iteration not in checkpoints.steps():
      save(trainer, checkpoints, {}, unwritten())
    raise preemption.Preempted(preemption.farewell(
        checkpoints.directory.parent, 'iteration', trainer.iteration)) from error


def best_policy(trainer: Trainer, workdir: storage.Path, is_merged: bool = True) -> Params:
  """The policy with the best validation score, or the last one if none was evaluated.

  Its adapters, if any, are merged into the base, or come alone where not is_merged.
  """
  checkpoints = Checkpointer(workdir / 'checkpoints', trainer.config.checkpoint.keep, _BEST)
  try:
    state, _ = checkpoints.restore_best(trainer.state)
  except FileNotFoundError:
    state = trainer.state
  checkpoints.close()
  if not is_merged:
    return state.policy
  return lora.merge(trainer.reference, state.policy, trainer.config.lora.alpha)


def restore(trainer: Trainer, checkpoints: Checkpointer) -> dict[str, float]:
  """Continues from the newest checkpoint; returns metrics of its iteration that are not written.

  Raises:
    ValueError: when it was made with another seed, or its adapters beside another base.
  """
  trainer.state, meta = checkpoints.restore_latest(trainer.state)
  check_origin(meta, assemble.origin(trainer.config))
  trainer.iteration, trainer.next_index = meta['iteration'], meta['next_index']
  return meta.get('unwritten', {})
