"""The worker of benchmarks/attention.py for all that jax computes: EPISODES.npz SETTINGS."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import side_by_side  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mem1_jax.model.attention import RowAttention  # noqa: E402
from mem1_jax.ops import attention, masks  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402

# Bytes of a dense mask's scores that are made at once; XLA makes eight such arrays, or more.
_SCORES = {'cpu': 2**30, 'gpu': 6 * 2**30, 'tpu': 2**30}


def cases(settings, key_end):
  """{name: (who computes it, the function of key_end, which makes what the op needs; op)}."""
  platform = jax.devices()[0].platform
  # A CPU is a device for each thread, over which the heads are split; a GPU or TPU is one.
  ours = RowAttention(settings['attention'], make_mesh(
      MeshConfig(1, 1, -1 if platform == 'cpu' else 1)))

  def dense(by):
    return lambda q, k, v, mask: jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=by)

  def mask(key_end):
    return masks.visible_BSS(key_end)[:, None]

  chosen = attention.choose(settings['attention'], jax.devices()[0], key_end.shape[1],
                            settings['dtype'])
  found = {'ours': (chosen, lambda e: ours.plan(e, settings['dtype']),
                    lambda q, k, v, plan: ours(q, k, v, key_end, plan)),
           'dense': ('xla', mask, dense('xla'))}
  if platform == 'gpu':
    found['dense_cudnn'] = 'cudnn', mask, dense('cudnn')
    found['causal'] = 'cudnn', lambda e: None, lambda q, k, v, _: jax.nn.dot_product_attention(
        q, k, v, is_causal=True, implementation='cudnn')
  if platform == 'tpu':
    found['causal'] = 'splash', lambda e: None, _splash(key_end.shape[1], settings)
  return found


def _splash(length, settings):
  """jax's own TPU kernel, causal; for rows that are whole blocks of it."""
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask
  padded = -(-length // 512) * 512
  causal = mask.MultiHeadMask([mask.CausalMask((padded, padded))] * settings['heads'])
  splash = kernel.make_splash_mha(causal, head_shards=1, q_seq_shards=1)
  group = settings['heads'] // settings['kv_heads']

  def attend(q, k, v, _):
    q, k, v = (jnp.pad(x, ((0, 0), (0, padded - length), (0, 0), (0, 0))).swapaxes(1, 2)
               for x in (q * settings['width']**-0.5, jnp.repeat(k, group, 2),
                         jnp.repeat(v, group, 2)))
    return jax.vmap(splash)(q, k, v).swapaxes(1, 2)[:, :length]

  return attend


def value_and_grads(op, is_by_head=False):
  """(q, k, v, dout, what the op needs) → out, dq, dk, dv; kv head after kv head if that is said."""
  @jax.jit
  def compute(q, k, v, dout, shared):
    out, vjp = jax.vjp(lambda q, k, v: op(q, k, v, shared), q, k, v)
    return out, *vjp(dout)

  def by_head(*arrays):
    *inputs, shared = arrays
    K = inputs[1].shape[2]
    heads = [compute(*(jnp.split(x, K, 2)[n] for x in inputs), shared) for n in range(K)]
    return tuple(jnp.concatenate(parts, 2) for parts in zip(*heads))

  return by_head if is_by_head else compute


def main():
  settings = json.loads(sys.argv[2])
  jax.config.update('jax_num_cpu_devices', settings['threads'])
  key_end = jnp.asarray(np.load(sys.argv[1])['key_end'])
  inputs = [jnp.asarray(x, settings['dtype']) for x in inputs_of(settings, key_end.shape)]
  found, programs = cases(settings, key_end), {}

  def program(name):
    if name == 'plan':
      return found['ours'][0], jax.jit(found['ours'][1]), (key_end,)
    by, prepare, op = found[name]
    scores = 4 * key_end.shape[1] * key_end.size * settings['heads']
    is_by_head = name == 'dense' and scores > _SCORES[jax.devices()[0].platform]
    return (by + ' by head' * is_by_head, value_and_grads(op, is_by_head),
            (*inputs, jax.jit(prepare)(key_end)))

  def answer(name):
    if name != 'plan' and name not in found:
      return {'not_run': f'not on {jax.devices()[0].platform}'}
    reply = {}
    try:
      if name not in programs:
        programs[name] = program(name)
        result = jax.block_until_ready(programs[name][1](*programs[name][2]))
        reply['sums'] = sums(result) if name != 'plan' else []
      by, function, arguments = programs[name]
      begun = time.perf_counter()
      for _ in range(settings['inner']):
        result = function(*arguments)
      jax.block_until_ready(result)
    except Exception as error:  # of whichever library: one case less
      return {'not_run': f'{type(error).__name__}: {str(error)[:200]}'}
    return reply | {'seconds': (time.perf_counter() - begun) / settings['inner'], 'by': by}

  side_by_side.serve(answer)


def sums(arrays):
  return [float(jnp.abs(x.astype(jnp.float32)).sum()) for x in arrays]


def inputs_of(settings, shape):
  """q, k, v and the gradient of the output, [rows, S, heads, width] each, float32."""
  rng = np.random.default_rng(settings['seed'])
  N, K = settings['heads'], settings['kv_heads']
  return [rng.standard_normal((*shape, n, settings['width'])).astype(np.float32)
          for n in (N, K, K, N)]


if __name__ == '__main__':
  main()
