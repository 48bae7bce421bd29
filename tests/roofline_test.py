"""Arithmetic and traffic by formula: against XLA's count, and how they grow."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mem1_jax import roofline
from mem1_jax.model import build_policy, named_config
from tests.model import small
from tests.tiny import tiny_config

WORK = roofline.Workload(episodes=8, turns=3, question=20, read=12, written=6, rows=8,
                         row_length=64, slots=4, refilled=2)


def test_flops_are_those_that_xla_counts():
  config = named_config('atlas', num_layers=1, copy_heads=None)  # XLA counts a loop's body once
  policy = build_policy(config, 'reference')
  B, S = 4, 64
  shape = jax.ShapeDtypeStruct((B, S), jnp.int32)
  params = jax.eval_shape(policy.init, jax.random.key(0))
  counted = jax.jit(lambda p, *xs: policy.apply(p, *xs) @ policy.head(p)).lower(
      params, shape, shape, shape).compile().cost_analysis()['flops']
  # The reference computes every pair.
  assert roofline.forward_flops(config, B * S, B * S * S, B * S) == pytest.approx(counted, rel=0.1)


def test_an_episode():
  assert WORK.tokens() == 20 + 6 + 2 * 18
  assert WORK.pairs() == 20**2 / 2 + 6**2 / 2 + 6 * 20 + 2 * (18**2 / 2 + 18 * 20)


def _costs(work=WORK, num_chips=1, **knobs):
  config = tiny_config()
  config.update(knobs)
  return roofline.costs(config, small.small_config(**small.QWEN2), work, num_chips, 1e6)


def test_twice_the_episodes_are_twice_the_arithmetic():
  one, two = _costs(), _costs(dataclasses.replace(WORK, episodes=16))
  for name, cost in two.items():
    assert cost.flops == pytest.approx(2 * one[name].flops)
  assert two['rollout'].hbm_bytes == pytest.approx(2 * one['rollout'].hbm_bytes)  # two waves


def test_samples_share_their_question_and_small_refills_read_weights_oftener():
  one, shared = _costs(), _costs(ppo={'samples': 4})
  assert shared['rollout'].hbm_bytes < one['rollout'].hbm_bytes
  at_once = _costs(dataclasses.replace(WORK, refilled=4))
  assert WORK.refills() == 8 and at_once['rollout'].hbm_bytes < one['rollout'].hbm_bytes


def test_what_variants_save():
  base, head = _costs(), _costs(critic='head')
  assert head['update'].flops < 0.6 * base['update'].flops
  assert head['score'] == base['score']  # the actor's pass is a critic's
  bare = _costs(critic='head', reference='none')
  assert bare['score'].flops < 0.55 * base['score'].flops
  lora = _costs(critic='lora', lora={'rank': 4})
  assert lora['update'].flops == pytest.approx(2 / 3 * base['update'].flops)
  assert lora['rollout'] == base['rollout']


def test_int8_halves_what_decoding_reads_and_costs_a_pass():
  base, int8 = _costs(), _costs(rollout={'weights': 'int8'}, ppo={'tis_cap': 2.0})
  assert int8['rollout'].hbm_bytes < base['rollout'].hbm_bytes
  assert int8['score'].flops > 1.4 * base['score'].flops
  head, both = _costs(critic='head'), _costs(critic='head', ppo={'tis_cap': 2.0})
  assert both['score'].hbm_bytes == head['score'].hbm_bytes  # the same pass


def test_each_copy_of_the_model_reads_its_weights():
  one, four = _costs(), _costs(num_chips=4)
  kv = one['rollout'].hbm_bytes - (four['rollout'].hbm_bytes - one['rollout'].hbm_bytes) / 3
  assert 0 < kv < one['rollout'].hbm_bytes
  assert four['rollout'].flops == one['rollout'].flops


def test_a_workload_fills_its_rows():
  config = tiny_config()
  config.rows.length, config.rollout.max_tokens, config.env.turns = 4096, 64, '6'
  config.rollout.context_capacity = 256
  work = roofline.workload(config, 8)
  assert work.turns == 6 and work.read == 256 and work.tokens() <= 4096
  config.rows.length = work.question + 63
  with pytest.raises(ValueError, match='rows.length .* raise it'):
    roofline.workload(config, 8)
