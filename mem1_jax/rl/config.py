"""What a PPO update is told: every number stated by the caller."""

import dataclasses
import math

from mem1_jax.rl import losses


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """Every number of the update; none has a default.

  Attributes:
    gamma, lam: discount and GAE's lambda per generated token, in [0, 1].
    whiten: whether advantages get mean 0, variance 1 over the batch's generated tokens.
    clip: the policy ratio's clip range, > 0.
    tis_cap: 0 where the sampler's log-probs are the old ones; else the learner computes
      them, and each token counts min(old / sampler's probability, tis_cap) times.
    value_clip: the value's clip range in units of the return, > 0; inf for none.
    epochs: passes over the batch.
    num_minibatches: parameter updates per pass.
    micro_rows: rows in one forward and backward pass; a multiple of the number
      of devices that share rows.
    kl_in: 'reward' (subtracted per token) or 'loss'.
    kl_estimator: 'k1', 'k2' or 'k3' (rl/losses.py); k1 only in the reward.
    kl_controller: 'fixed', or 'adaptive' towards `kl_target`. The coefficient
      itself is state (`TrainState.kl_coef`).
    kl_target: nats per generated token, > 0; read by 'adaptive' only.
    kl_horizon: updates, ≥ 1; read by 'adaptive' only.
    entropy_coef: weight of the entropy bonus, per token.
    temperature: the sampler's, > 0.
    num_valid: vocabulary ids from here on cannot be sampled.
    logprob_chunk: positions whose logits exist at one time.
    has_reference: whether there is one; else the KL is 0 and `kl_coef` must be 0.
    trunk_value_coef: share of the value loss's gradient that reaches the actor's trunk
      from a critic that is a head on it, in [0, 1]; 0 leaves the actor to the policy loss.
    loss_scale: the loss is multiplied, its gradients are divided by it in float32: small
      ones survive float16. A power of two ≥ 1, which rounds nothing; 1 for none.
    max_skipped: non-finite updates in a row after which training stops.
  """

  gamma: float
  lam: float
  whiten: bool
  clip: float
  tis_cap: float
  value_clip: float
  epochs: int
  num_minibatches: int
  micro_rows: int
  kl_in: str
  kl_estimator: str
  kl_controller: str
  kl_target: float
  kl_horizon: float
  entropy_coef: float
  temperature: float
  num_valid: int
  logprob_chunk: int
  has_reference: bool
  trunk_value_coef: float
  loss_scale: float
  max_skipped: int

  def __post_init__(self):
    for name in ('gamma', 'lam', 'trunk_value_coef'):
      if not 0.0 <= getattr(self, name) <= 1.0:
        raise ValueError(f'{name}={getattr(self, name)} is outside [0, 1]; choose one inside')
    for name in ('clip', 'value_clip', 'temperature'):
      if not getattr(self, name) > 0.0:
        raise ValueError(f'{name}={getattr(self, name)} must be > 0; raise it')
    if self.tis_cap and not self.tis_cap >= 1.0:
      raise ValueError(f'tis_cap={self.tis_cap} must be ≥ 1, or 0 for none; 2 is usual')
    for name in ('epochs', 'num_minibatches', 'micro_rows', 'num_valid', 'logprob_chunk',
                 'max_skipped'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name}={getattr(self, name)} must be ≥ 1; raise it')
    if not (self.loss_scale >= 1.0 and math.frexp(self.loss_scale)[0] == 0.5):
      raise ValueError(f'loss_scale={self.loss_scale} must be a power of two ≥ 1; 2.0**14 is usual '
                       'for float16')
    for name, choices in (('kl_in', ('reward', 'loss')), ('kl_estimator', losses.KL_ESTIMATORS),
                          ('kl_controller', ('fixed', 'adaptive'))):
      if getattr(self, name) not in choices:
        raise ValueError(f'{name}={getattr(self, name)!r} is not one of {choices}; pick one')
    if self.kl_in == 'loss' and self.kl_estimator == 'k1':
      raise ValueError("kl_estimator='k1' with kl_in='loss' has an expected gradient of 0; "
                       "use 'k2' or 'k3', or kl_in='reward'")
    if self.kl_controller == 'adaptive' and not (self.kl_target > 0.0 and self.kl_horizon >= 1.0):
      raise ValueError(f'kl_controller=adaptive needs kl_target > 0 and kl_horizon ≥ 1, not '
                       f'{self.kl_target} and {self.kl_horizon}; or use kl_controller=fixed')
