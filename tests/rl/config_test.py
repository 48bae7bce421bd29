"""A PPO config that cannot work is refused with a remedy."""

import dataclasses
import pathlib
import sys

import pytest

from mem1_jax.rl.config import PPOConfig

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import token_task as toy  # noqa: E402  (tests are not a package)


@pytest.mark.parametrize('changes, message', [
    (dict(gamma=1.1), r'gamma=1.1 is outside \[0, 1\]'),
    (dict(trunk_value_coef=-0.1), 'trunk_value_coef=-0.1 is outside'),
    (dict(loss_scale=0.5), 'loss_scale=0.5 must be a power of two ≥ 1'),
    (dict(loss_scale=1000.0), 'loss_scale=1000.0 must be a power of two'),
    (dict(loss_scale=float('inf')), 'loss_scale=inf must be'),
    (dict(clip=0.0), 'clip=0.0 must be > 0'),
    (dict(temperature=0.0), 'temperature=0.0 must be > 0'),
    (dict(micro_rows=0), 'micro_rows=0 must be ≥ 1'),
    (dict(kl_in='both'), "kl_in='both' is not one of"),
    (dict(kl_in='loss', kl_estimator='k1'), 'expected gradient of 0'),
    (dict(kl_controller='adaptive', kl_target=0.0), 'kl_target > 0'),
])
def test_refuses(changes, message):
  with pytest.raises(ValueError, match=message):
    toy.config(**changes)


def test_no_number_has_a_default():
  for field in dataclasses.fields(PPOConfig):
    assert field.default is dataclasses.MISSING, field.name
