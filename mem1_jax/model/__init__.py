"""The decoder: sizes by name, and the policy and the critic as pure functions."""

from mem1_jax.model.config import ModelConfig, named_config
from mem1_jax.model.transformer import Critic, Policy, build_critic, build_policy

__all__ = ['Critic', 'ModelConfig', 'Policy', 'build_critic', 'build_policy', 'named_config']
