"""The conditions that conftest.py promises."""

import jax
import jax.numpy as jnp
import pytest


def test_eight_cpu_devices():
  if jax.default_backend() != 'cpu':
    pytest.skip('runs where JAX_PLATFORMS asks for another platform')
  assert jax.device_count() == 8


def test_rank_promotion_raises():
  with pytest.raises(ValueError, match='rank_promotion'):
    jnp.zeros((2, 3)) + jnp.zeros(3)


def test_floats_are_32_bits():
  assert jnp.asarray(1.0).dtype == jnp.float32
