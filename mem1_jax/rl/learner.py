"""The PPO update: packed episodes in, new parameters and metrics out.

    score    Episodes → TrainBatch     old and reference log-probs, values, advantages
    update   TrainBatch → TrainState   scan(epochs) of scan(minibatches)

Both are jitted once. How many rows of the fixed [B, S] batch are filled
differs from step to step, so they walk over micro-rows of a fixed shape with a
dynamic trip count; every mean is over the minibatch's generated tokens,
however they fell into micro-rows.

Old log-probs are the sampler's: at equal parameters the ratio is 1, and the
`logprob_gap_…` metrics say how true that is. Where the sampler computes other numbers
(int8 weights), `tis_cap` has the learner compute them, and weighs tokens by the difference.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mem1_jax.arrays import Array, Params, TrainBatch, TrainState
from mem1_jax.ops import rounding
from mem1_jax.parallel import sharding
from mem1_jax.rl import advantages, losses, networks as nets
from mem1_jax.rl.config import PPOConfig
from mem1_jax.rl.networks import Networks

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Shardings:
  """Where the arrays of both programs lie; trees like them, or one for all their leaves."""

  state: TrainState
  reference: Params
  rows: jax.sharding.NamedSharding  # of [B, S], and of a micro-batch's [micro_rows, S]
  whole: jax.sharding.NamedSharding  # of what every device has: numbers, keys


def make_shardings(mesh: jax.sharding.Mesh, logical_axes: Params, state: TrainState,
                   reference: Params, config: PPOConfig) -> Shardings:
  """The shardings on `mesh` of a state and its reference; `logical_axes` as sharding.tree."""
  return Shardings(
      sharding.tree(mesh, logical_axes, state), sharding.tree(mesh, logical_axes, reference),
      sharding.rows(mesh, config.micro_rows), sharding.whole(mesh))


def init_state(policy: Params, value: Params, policy_optimizer: optax.GradientTransformation,
               value_optimizer: optax.GradientTransformation, kl_coef: float) -> TrainState:
  """A fresh state that owns its parameters.

  `make_update` donates the state, so it must not share buffers with the
  reference, nor the critic's trunk with the policy it was copied from.
  """
  policy, value = jax.tree.map(jnp.copy, (policy, value))
  # One array each: a buffer cannot be donated twice.
  step, skipped = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
  return TrainState(step, policy, value, policy_optimizer.init(policy),
                    value_optimizer.init(value), jnp.asarray(kl_coef, jnp.float32), skipped)


def check_skipped(num_skipped: int, config: PPOConfig) -> None:
  """Stops training that cannot go on.

  Raises:
    FloatingPointError: `TrainState.skipped` has reached `max_skipped`.
  """
  if num_skipped >= config.max_skipped:
    raise FloatingPointError(
        f'{num_skipped} updates in a row had a loss or gradient that is not finite '
        f'(max_skipped={config.max_skipped}); the parameters are those before them. Resume from '
        'the last checkpoint with a lower learning rate, or look for the cause with '
        'JAX_DEBUG_NANS=1')


def _check_rows(num_rows_max: int, config: PPOConfig) -> None:
  multiple = config.num_minibatches * config.micro_rows
  if num_rows_max % multiple:
    raise ValueError(
        f'a batch of {num_rows_max} rows cannot be dealt to num_minibatches='
        f'{config.num_minibatches} in micro-rows of micro_rows={config.micro_rows}; make the '
        f'number of rows a multiple of {multiple}')


def _take(tree, rows_R: Array, row_sharding):
  """The given rows of every leaf, spread over devices again."""
  return jax.lax.with_sharding_constraint(jax.tree.map(lambda x: x[rows_R], tree), row_sharding)


def _num_micro(num_filled: Array, micro_rows: int) -> Array:
  return (num_filled + micro_rows - 1) // micro_rows


def make_score(networks: Networks, config: PPOConfig, shardings: Shardings) -> Callable:
  """The jitted `score(policy, value, reference, kl_coef, episodes, num_rows) -> TrainBatch`.

  Rows [0, num_rows) of `episodes` are filled; the others cost nothing and
  count for nothing, whatever they hold. With `kl_in='reward'` each generated
  token's reward is lowered by `kl_coef * kl(old, reference)` first. `policy` and
  `value` may lack what the reference has (LoRA). The policy is computed for old log-probs
  that are not the sampler's and for a critic that is a head on it, and not else.

  Without a reference (`has_reference`), the old log-probs stand for its: a KL of 0.
  """
  def score(policy, value, reference, kl_coef, episodes, num_rows):
    num_rows_max = episodes.tokens.shape[0]
    _check_rows(num_rows_max, config)
    is_filled_B1 = jnp.arange(num_rows_max)[:, None] < num_rows
    tags = dataclasses.replace(
        episodes.tags, is_generated=episodes.tags.is_generated & is_filled_B1)
    episodes = dataclasses.replace(episodes, tags=tags)
    rows_NR = jnp.arange(num_rows_max).reshape(-1, config.micro_rows)

    def body(i, scored):
      rows_R = rows_NR[i]
      micro = _take(episodes, rows_R, shardings.rows)
      if config.tis_cap:
        old_RS, _, value_RS = nets.both(networks.on(reference), config, policy, value, micro)
      else:
        old_RS, value_RS = micro.logprob, nets.value(networks.on(reference), policy, value, micro)
      ref_RS = old_RS
      if config.has_reference:
        ref_RS, _ = nets.logprob(networks, config, reference, micro)
      return tuple(x_BS.at[rows_R].set(x_RS)
                   for x_BS, x_RS in zip(scored, (old_RS, ref_RS, value_RS)))

    zeros_BS = jnp.zeros(episodes.tokens.shape, jnp.float32)
    with jax.named_scope('score_rows'):
      old_BS, ref_logprob_BS, value_BS = jax.lax.fori_loop(
          0, _num_micro(num_rows, config.micro_rows), body, (zeros_BS,) * 3)
    reward_BS = episodes.reward
    if config.kl_in == 'reward':
      kl_BS = losses.kl(old_BS, ref_logprob_BS, config.kl_estimator)
      reward_BS = reward_BS - kl_coef * kl_BS
    advantage_BS = advantages.gae(reward_BS, value_BS, tags, config.gamma, config.lam)
    target_BS = jnp.where(tags.is_generated, advantage_BS + value_BS, 0.0)
    if config.whiten:
      advantage_BS = advantages.whiten(advantage_BS, tags.is_generated)
    return TrainBatch(episodes, old_BS, ref_logprob_BS, value_BS, advantage_BS, target_BS)

  rows, whole = shardings.rows, shardings.whole
  return jax.jit(
      score, out_shardings=rows,
      in_shardings=(shardings.state.policy, shardings.state.value, shardings.reference, whole,
                    rows, whole))


def deal_rows(key: Array, num_rows_max: int, num_rows: Array, config: PPOConfig) -> Array:
  """Row numbers [num_minibatches, micro-rows per minibatch, micro_rows], shuffled.

  Filled rows are shuffled and dealt like cards, the empty ones after them: each
  minibatch gets as many filled rows as any other, or one less, and has them first.
  """
  index_B = jnp.arange(num_rows_max)
  random_B = jnp.where(index_B < num_rows, jax.random.uniform(key, index_B.shape), jnp.inf)
  order_B = jnp.argsort(random_B)
  dealt = order_B.reshape(-1, config.num_minibatches).T
  return dealt.reshape(config.num_minibatches, -1, config.micro_rows)


def _loss(params, micro: TrainBatch, num_tokens: Array, kl_coef: Array, networks: Networks,
          config: PPOConfig) -> tuple[Array, tuple[Metrics, Metrics]]:
  """The micro-batch's share of the minibatch's scaled loss; (terms to sum, terms to max)."""
  policy, value = params
  episodes, mask_BS = micro.episodes, micro.episodes.tags.is_generated
  logprob_BS, entropy_BS, value_BS = nets.both(networks, config, policy, value, episodes)
  ratio_BS = losses.ratio(logprob_BS, micro.old_logprob)
  gap_BS = jnp.where(mask_BS, jnp.abs(logprob_BS - episodes.logprob), 0.0)
  tokens = {
      'policy_loss': losses.policy_loss(ratio_BS, micro.advantage, config.clip),
      'value_loss': losses.value_loss(value_BS, micro.value, micro.target, config.value_clip),
      'entropy': entropy_BS,
      'clip_fraction': losses.is_clipped(ratio_BS, micro.advantage, config.clip),
      'logprob_gap_mean': gap_BS,
      'logprob_gap_k3': losses.kl(episodes.logprob, logprob_BS, 'k3'),
  }
  if config.tis_cap:
    weight_BS = losses.truncated_weight(micro.old_logprob, episodes.logprob, config.tis_cap)
    tokens['policy_loss'] = weight_BS * tokens['policy_loss']
    tokens |= {'tis_weight': weight_BS, 'tis_capped': weight_BS >= config.tis_cap}
  if config.kl_in == 'loss' and config.has_reference:
    tokens['kl_loss'] = losses.kl(logprob_BS, micro.ref_logprob, config.kl_estimator)
  means = {name: losses.masked_mean(x_BS, mask_BS, num_tokens) for name, x_BS in tokens.items()}
  maxima = {'ratio_max': jnp.where(mask_BS, ratio_BS, 0.0).max(), 'logprob_gap_max': gap_BS.max()}
  loss = (means['policy_loss'] + means['value_loss'] - config.entropy_coef * means['entropy']
          + kl_coef * means.get('kl_loss', 0.0))
  return loss * config.loss_scale, (means, maxima)


def _minibatch_gradient(params, batch: TrainBatch, rows_NR: Array, num_rows: Array,
                        kl_coef: Array, networks: Networks, config: PPOConfig, row_sharding):
  """(loss, gradients, metrics, number of tokens) of one minibatch, micro-row by micro-row."""
  # Empty rows have no generated token, but a sum over [rows, S] booleans is cheap.
  num_tokens = batch.episodes.tags.is_generated[rows_NR.reshape(-1)].sum()
  num_filled = (rows_NR < num_rows).sum()
  gradient = jax.value_and_grad(_loss, has_aux=True)

  def one(i):
    micro = _take(batch, rows_NR[i], row_sharding)
    return gradient(params, micro, num_tokens, kl_coef, networks, config)

  def body(i, total):
    (loss, (means, maxima)), grads = total
    (more, (more_means, more_maxima)), more_grads = one(i)
    means, grads = jax.tree.map(jnp.add, (means, grads), (more_means, more_grads))
    maxima = jax.tree.map(jnp.maximum, maxima, more_maxima)
    return (loss + more, (means, maxima)), grads

  # Gradients accumulate in float32 whatever the parameters are kept in.
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), jax.eval_shape(one, 0))
  num_micro = _num_micro(num_filled, config.micro_rows)
  with jax.named_scope('micro_rows'):
    (loss, (means, maxima)), grads = jax.lax.fori_loop(0, num_micro, body, zeros)
  loss, grads = jax.tree.map(lambda x: x / config.loss_scale, (loss, grads))
  return loss, grads, means | maxima, num_tokens


def make_update(networks: Networks, policy_optimizer: optax.GradientTransformation,
                value_optimizer: optax.GradientTransformation, config: PPOConfig,
                shardings: Shardings) -> Callable:
  """The jitted `update(state, batch, num_rows, key, reference) -> (state, metrics)`.

  It donates `state`, not `reference`, which has what policy and critic compute with
  and that is not trained, such as the base of adapters. It may be None where all is.

  `key` is the run's shuffling key; (step, epoch) are folded into it, and the minibatch's
  number for what is rounded (ops/rounding.py), so a resumed run shuffles and rounds as if
  it had never stopped. A minibatch whose loss or gradient is not finite changes nothing
  and is counted; one without generated tokens changes nothing either.

  Metrics (scalars; over the minibatches applied unless said otherwise):
    policy_loss, value_loss, kl_loss (if in the loss, and there is a reference), entropy,
    clip_fraction, policy_grad_norm, value_grad_norm (before clipping): means; ratio_max: maximum.
    tis_weight, tis_capped (where tis_cap is set): means of the weight and of where it is the cap.
    logprob_gap_mean, logprob_gap_max, logprob_gap_k3: |learner - rollout|
      log-prob, before any change: first minibatch of the first epoch.
    kl: k3 from the old to the reference over the whole batch, 0 without one; kl_coef: as used.
    explained_variance, value_mean, target_mean: of the critic as it scored the batch.
    skipped_updates: non-finite ones in this call; skipped_in_a_row: up to now.
    num_rows, num_tokens: filled rows, generated tokens.
  """
  def apply(optimizer, grads, opt, params, key):
    updates, opt = optimizer.update(grads, opt, params)
    return rounding.apply_updates(params, updates, key), opt

  def minibatch(carry, rows_NR, key, batch, num_rows, kl_coef, networks):
    policy, value, policy_opt, value_opt, skipped = carry
    loss, (policy_grads, value_grads), metrics, num_tokens = _minibatch_gradient(
        (policy, value), batch, rows_NR, num_rows, kl_coef, networks, config, shardings.rows)
    policy_norm, value_norm = optax.tree.norm(policy_grads), optax.tree.norm(value_grads)
    is_finite = jnp.isfinite(loss) & jnp.isfinite(policy_norm) & jnp.isfinite(value_norm)
    is_empty = num_tokens == 0
    is_applied = is_finite & ~is_empty
    new_policy, new_policy_opt = apply(
        policy_optimizer, policy_grads, policy_opt, policy, jax.random.fold_in(key, 0))
    new_value, new_value_opt = apply(
        value_optimizer, value_grads, value_opt, value, jax.random.fold_in(key, 1))
    skipped = jnp.where(is_applied, 0, jnp.where(is_finite, skipped, skipped + 1))
    old = (policy, value, policy_opt, value_opt)
    new = (new_policy, new_value, new_policy_opt, new_value_opt)
    kept = jax.tree.map(lambda x, y: jnp.where(is_applied, x, y), new, old)
    metrics |= {'policy_grad_norm': policy_norm, 'value_grad_norm': value_norm}
    return (*kept, skipped), (metrics, is_applied, is_finite)

  def update(state, batch, num_rows, key, reference):
    num_rows_max = batch.value.shape[0]
    _check_rows(num_rows_max, config)

    def epoch(carry, number):
      epoch_key = jax.random.fold_in(jax.random.fold_in(key, state.step), number)
      rows = deal_rows(epoch_key, num_rows_max, num_rows, config)
      numbers = jnp.arange(config.num_minibatches)
      with jax.named_scope('minibatches'):
        return jax.lax.scan(
            lambda c, x: minibatch(c, x[0], jax.random.fold_in(epoch_key, x[1]), batch, num_rows,
                                   state.kl_coef, networks.on(reference)), carry, (rows, numbers))

    carry = (state.policy, state.value, state.policy_opt, state.value_opt, state.skipped)
    with jax.named_scope('epochs'):
      carry, per_minibatch = jax.lax.scan(epoch, carry, jnp.arange(config.epochs))
    metrics = _batch_metrics(batch, num_rows) | _reduce(*per_minibatch)
    metrics |= {'kl_coef': state.kl_coef, 'skipped_in_a_row': carry[-1]}
    kl_coef = jnp.copy(state.kl_coef)
    if config.kl_controller == 'adaptive':
      kl_coef = losses.adapt_kl_coef(kl_coef, metrics['kl'], config.kl_target, config.kl_horizon)
    return TrainState(state.step + 1, *carry[:-1], kl_coef, carry[-1]), metrics

  rows, whole = shardings.rows, shardings.whole
  return jax.jit(
      update, donate_argnums=0,
      in_shardings=(shardings.state, rows, whole, whole, shardings.reference),
      out_shardings=(shardings.state, whole))


def _reduce(metrics: Metrics, is_applied: Array, is_finite: Array) -> Metrics:
  """One scalar per metric, of arrays [epochs, num_minibatches]."""
  count = jnp.maximum(is_applied.sum(), 1)
  reduced = {'skipped_updates': (~is_finite).sum()}
  for name, values in metrics.items():
    if name.startswith('logprob_gap'):
      reduced[name] = values[0, 0]
    elif name == 'ratio_max':
      reduced[name] = jnp.where(is_applied, values, 0.0).max()
    else:
      reduced[name] = jnp.where(is_applied, values, 0.0).sum() / count
  return reduced


def _batch_metrics(batch: TrainBatch, num_rows: Array) -> Metrics:
  """What is known before the update."""
  mask_BS = batch.episodes.tags.is_generated
  num_tokens = mask_BS.sum()
  kl_BS = losses.kl(batch.old_logprob, batch.ref_logprob, 'k3')
  return {
      'kl': losses.masked_mean(kl_BS, mask_BS, num_tokens),
      'explained_variance': losses.explained_variance(batch.value, batch.target, mask_BS),
      'value_mean': losses.masked_mean(batch.value, mask_BS, num_tokens),
      'target_mean': losses.masked_mean(batch.target, mask_BS, num_tokens),
      'num_rows': jnp.asarray(num_rows, jnp.int32),
      'num_tokens': num_tokens,
  }
