"""The name table covers transformers' tensors and our parameters."""

import jax
import pytest

from mem1_jax.model import build_critic, build_policy
from mem1_jax.model.hf_tensors import num_layers, tensors
from tests.goldens import make_hf
from tests.model import hf_small, small


def _our_shapes(table, config):
  return {path: ((num_layers(path, config),) if num_layers(path, config) else ()) + tensor.our_shape
          for path, tensor in table.items()}


def _shapes(params):
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf.shape
          for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize('family', make_hf.TIED)
def test_names_and_shapes_are_those_of_transformers(family, tmp_path):
  weights = hf_small.stored(family)[0]
  config = hf_small.config_of(hf_small.write(tmp_path, family, weights))
  ours = {tensor.name.format(i): tensor.shape for path, tensor in tensors(config).items()
          for i in range(num_layers(path, config) or 1)}
  assert ours == {name: x.shape for name, x in weights.items()}


@pytest.mark.parametrize('flags', [small.QWEN2, small.QWEN3, dict(qkv_bias=True, o_bias=True)])
def test_every_parameter_has_a_tensor(flags):
  config = small.small_config(**flags)
  params = jax.eval_shape(build_policy(config).init, jax.random.key(0))
  assert _our_shapes(tensors(config), config) == _shapes(params)


def test_a_critic_has_a_value_instead_of_a_head():
  critic = build_critic(small.small_config(**small.QWEN2))
  params = jax.eval_shape(critic.init, jax.random.key(0))
  assert _our_shapes(tensors(critic.config, is_critic=True), critic.config) == _shapes(params)
  assert tensors(critic.config, is_critic=True)['value'].shape == (1, critic.config.dim)


def test_heads_are_parted_from_their_width():
  q = tensors(small.small_config())['layers.attention.q.kernel']
  assert (q.name, q.shape, q.parts, q.our_shape) == (
      'model.layers.{}.self_attn.q_proj.weight', (32, 24), (4, 8, 24), (24, 4, 8))
