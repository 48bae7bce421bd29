"""What programs send is read off their text: kinds, sizes, and how often a loop sends."""

import jax
import jax.numpy as jnp
import pytest

from mem1_jax.parallel import collectives, sharding
from mem1_jax.parallel.mesh import MeshConfig, make_mesh

MESH = make_mesh(MeshConfig(1, 8, 1))
SPLIT, WHOLE = sharding.named(MESH, ('embed', None), (64, 16)), sharding.whole(MESH)


def _sent(function, shape, out, trips=None):
  compiled = jax.jit(function, in_shardings=SPLIT, out_shardings=out).lower(
      jax.ShapeDtypeStruct(shape, jnp.float32)).compile()
  return collectives.sent_bytes(compiled.as_text(), trips or {})


def test_a_gather_counts_with_its_result():
  assert _sent(lambda x: x * 2, (64, 16), WHOLE) == {'all-gather': 64 * 16 * 4}


def test_a_sum_over_devices():
  assert _sent(lambda x: x.sum(0), (64, 16), WHOLE) == {'all-reduce': 16 * 4}


def test_nothing_is_sent_where_nothing_must_move():
  assert not _sent(lambda x: x * 2, (64, 16), SPLIT)


@pytest.mark.parametrize('trips, times', [({'layers': 5, 'steps': 3}, 15), ({'layers': 5}, 5), ({}, 1)])
def test_loops_count_as_often_as_they_run(trips, times):
  def nested(x):
    def inner(_, y):
      return jax.lax.with_sharding_constraint(
          jnp.sin(jax.lax.with_sharding_constraint(y, WHOLE)), SPLIT)

    def outer(_, y):
      with jax.named_scope('layers'):
        return jax.lax.fori_loop(0, y[0, 0].astype(int), inner, y)  # a number nobody knows

    with jax.named_scope('steps'):
      return jax.lax.fori_loop(0, x[0, 0].astype(int), outer, x)

  sent = _sent(nested, (64, 16), SPLIT, trips)
  assert sent['all-gather'] == times * 64 * 16 * 4


def test_parts_of_one_collective_count_once():
  text = '''
%begin (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %ag.1 = bf16[32,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, dimensions={0}
}

%end (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %ag.2 = bf16[32,8]{1,0} all-gather(%p), channel_id=3, dimensions={0}
}

%all-reduce-scatter.1 (p: f32[16]) -> f32[2] {
  %p = f32[16]{0} parameter(0)
  %ar = f32[16]{0} all-reduce(%p), channel_id=4, to_apply=%add
  ROOT %ds = f32[2]{0} dynamic-slice(%ar, %i), dynamic_slice_sizes={2}
}

ENTRY %main (x: bf16[4,8], y: f32[16]) -> f32[2] {
  %x = bf16[4,8]{1,0} parameter(0)
  %y = f32[16]{0} parameter(1)
  %s = bf16[32,8]{1,0} fusion(%x), kind=kCustom, calls=%begin
  %d = bf16[32,8]{1,0} fusion(%s), kind=kCustom, calls=%end
  ROOT %r = f32[2]{0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}
'''
  assert collectives.sent_bytes(text, {}) == {'all-gather': 32 * 8 * 2, 'reduce-scatter': 16 * 4}
