"""Optimisers: AdamW or Muon with warm-up, a schedule, clipping, and decay on matrices only."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from mem1_jax.arrays import Array, Params

# Names of parameters that are vectors. Their rank cannot tell: a scan over
# layers stacks a [D] scale to [L, D], and a bias may have a heads dimension.
_VECTORS = ('bias', 'scale')

NAMES = ('adamw', 'muon')
MOMENT_DTYPES = ('float32', 'bfloat16')
# 8 significant bits: half a unit in the last place is up to 2^-8 of a number, twice that is safe.
_LEAST_STEP = 2.0**-7


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Every number of the optimiser; none has a default.

  Attributes:
    name: 'adamw' or 'muon'.
    policy_lr, value_lr: peak learning rates, ≥ 0.
    warmup_steps: updates over which the rate rises linearly from 0 to its peak;
      the first update already uses 1 / warmup_steps of it.
    schedule: 'constant' or 'cosine' after the warm-up.
    total_steps: updates at which 'cosine' arrives; not read by 'constant'.
    final_fraction: of the peak, where 'cosine' ends and stays, in [0, 1].
    beta1, beta2, epsilon: Adam's (Kingma & Ba 2015, arXiv 1412.6980).
    weight_decay: decoupled (Loshchilov & Hutter 2019, arXiv 1711.05101), times
      the learning rate, on matrices and embeddings only.
    max_grad_norm: gradients of a network are scaled down to this global norm,
      > 0; inf for none.
    mu_dtype, nu_dtype: how the first and the second moment are stored, 'float32' (at least)
      or 'bfloat16'; they are computed in float32. Muon's matrices have a first one only.

  A step is one call of the optimiser: for PPO, one minibatch.
  """

  name: str
  policy_lr: float
  value_lr: float
  warmup_steps: int
  schedule: str
  total_steps: int
  final_fraction: float
  beta1: float
  beta2: float
  epsilon: float
  weight_decay: float
  max_grad_norm: float
  mu_dtype: str
  nu_dtype: str

  def __post_init__(self):
    self._check_moments()
    if self.name not in NAMES:
      raise ValueError(f'name={self.name!r} is unknown; choose one of {NAMES}')
    if self.schedule not in ('constant', 'cosine'):
      raise ValueError(f"schedule={self.schedule!r} is not 'constant' or 'cosine'; use one of them")
    for name in ('policy_lr', 'value_lr', 'warmup_steps', 'weight_decay'):
      if not getattr(self, name) >= 0:
        raise ValueError(f'{name}={getattr(self, name)} must be ≥ 0; raise it')
    if not self.max_grad_norm > 0.0:
      raise ValueError(f'max_grad_norm={self.max_grad_norm} must be > 0; use inf for no clipping')
    if self.schedule == 'cosine' and self.total_steps <= self.warmup_steps:
      raise ValueError(f'total_steps={self.total_steps} must exceed warmup_steps='
                       f'{self.warmup_steps}; raise it or use schedule=constant')
    if not 0.0 <= self.final_fraction <= 1.0:
      raise ValueError(f'final_fraction={self.final_fraction} is outside [0, 1]; '
                       'choose one inside')


  def _check_moments(self):
    first = {self.beta1, self.beta2} if self.name == 'muon' else {self.beta1}
    for name, betas in (('mu_dtype', first), ('nu_dtype', {self.beta2})):
      dtype = getattr(self, name)
      if dtype not in MOMENT_DTYPES:
        raise ValueError(f'{name}={dtype!r} is unknown; choose one of {MOMENT_DTYPES}')
      if dtype == 'bfloat16' and 1.0 - max(betas) < _LEAST_STEP:
        raise ValueError(
            f'{name}=bfloat16 stalls with a decay of {max(betas)}: a step of 1 - {max(betas)} of '
            'the moment rounds to nothing; use a decay of at most 0.992 (b1, b2), or float32')


class Optimizers(NamedTuple):
  """One per network: each has its own rate, moments and gradient norm."""

  policy: optax.GradientTransformation
  value: optax.GradientTransformation


def build(config: OptimConfig) -> Optimizers:
  """The policy's and the critic's optimiser."""
  return Optimizers(make(config, config.policy_lr), make(config, config.value_lr))


def make(config: OptimConfig, peak: float) -> optax.GradientTransformation:
  """Global-norm clipping, then the optimiser at `learning_rate(config, peak)`.

  Muon (Jordan et al. 2024) moves the matrices of the layers by an orthogonal matrix whose
  root mean square is that of an Adam step (arXiv 2502.16982), so rates carry over; all
  other parameters are AdamW's with Nesterov momentum.

  Moments and updates are computed in float32 at least, whatever gradients and parameters are in.
  """
  rate = learning_rate(config, peak)
  if config.name == 'adamw':
    step = optax.adamw(rate, b1=config.beta1, b2=config.beta2, eps=config.epsilon,
                       weight_decay=config.weight_decay, mask=is_decayed)
  else:
    step = contrib.muon(
        rate, beta=config.beta2, weight_decay=config.weight_decay, weight_decay_mask=is_decayed,
        adam_b1=config.beta1, adam_b2=config.beta2, adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=_matrices, consistent_rms=0.2)
  return _stored(optax.chain(optax.clip_by_global_norm(config.max_grad_norm), step),
                 {'mu': config.mu_dtype, 'nu': config.nu_dtype})


def _stored(inner: optax.GradientTransformation,
            dtypes: dict[str, str]) -> optax.GradientTransformation:
  """`inner` in float32 at least, its state kept in bfloat16 where `dtypes` says so of a field.

  With float32 throughout it is `inner`, to the bit and in the structure of its state.
  """
  def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(jnp.float32, x.dtype))
                        if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

  def narrow(state):
    def store(path, leaf):
      fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
      dtype = next((dtypes[name] for name in fields if name in dtypes), 'float32')
      return leaf.astype(dtype) if dtype == 'bfloat16' and leaf.ndim else leaf
    return jax.tree_util.tree_map_with_path(store, state)

  def update(grads, state, params):
    updates, state = inner.update(wide(grads), wide(state), wide(params))
    return updates, narrow(state)

  return optax.GradientTransformation(lambda params: narrow(inner.init(wide(params))), update)


def _matrices(params: Params) -> Params:
  """Which axes of a layer's kernel are its inputs and outputs; None for other parameters."""
  def axes(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not name.endswith('/kernel') or leaf.ndim < 3:
      return None
    # [layers, inputs…, outputs…]: only the attention's output projection has two inputs.
    num_inputs = leaf.ndim - 2 if name.endswith('/o/kernel') else 1
    return contrib.MuonDimensionNumbers(
        tuple(range(1, 1 + num_inputs)), tuple(range(1 + num_inputs, leaf.ndim)))

  return jax.tree_util.tree_map_with_path(axes, params)


def learning_rate(config: OptimConfig, peak: float) -> Callable[[Array], Array]:
  """The rate of update number `count` = 0, 1, 2… (count may be traced).

      warm-up    peak * (count + 1) / warmup_steps
      constant   peak
      cosine     peak * (f + (1 - f) * (1 + cos(pi * t)) / 2),
                 t = (count - warmup_steps) / (total_steps - warmup_steps), f = final_fraction
  """
  def rate(count):
    count = jnp.asarray(count, jnp.float32)
    factor = jnp.ones_like(count)
    if config.schedule == 'cosine':
      length = config.total_steps - config.warmup_steps
      t = jnp.clip((count - config.warmup_steps) / length, 0.0, 1.0)
      final = config.final_fraction
      factor = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * t))
    if config.warmup_steps:
      factor = jnp.where(count < config.warmup_steps, (count + 1.0) / config.warmup_steps, factor)
    return peak * factor

  return rate


def is_decayed(params: Params) -> Params:
  """A tree of bools: True for matrices, False for norm scales and biases."""
  def is_matrix(path, leaf):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf.ndim >= 2 and not name.endswith(_VECTORS)

  return jax.tree_util.tree_map_with_path(is_matrix, params)
