"""The worker of benchmarks/attention.py for all that torch computes: EPISODES.npz SETTINGS."""

import json
import sys
import time

import numpy as np


def main():
  settings = json.loads(sys.argv[2])
  try:
    import torch
  except ImportError:
    answer_all(lambda name: {'not_run': 'torch is not installed'})
    return
  torch.set_num_threads(settings['threads'])
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  arrays, programs = np.load(sys.argv[1]), {}

  def answer(name):
    reply = {}
    try:
      if name not in programs:
        programs[name] = program(torch, settings, arrays, name, device)
        reply['sums'] = [float(x.detach().float().abs().sum()) for x in programs[name]()]
      wait(torch, device)
      begun = time.perf_counter()
      for _ in range(settings['inner']):
        programs[name]()
      wait(torch, device)
    except Exception as error:  # of whichever library: one case less
      return {'not_run': f'{type(error).__name__}: {str(error)[:200]}'}
    return reply | {'seconds': (time.perf_counter() - begun) / settings['inner'], 'by': device}

  answer_all(answer)


def program(torch, settings, arrays, name, device):
  """() → [out, dq, dk, dv] of the case."""
  key_end = torch.tensor(arrays['stitched' if name == 'torch_stitched' else 'key_end'])
  inputs = [torch.tensor(x).to(device, getattr(torch, settings['dtype'])).requires_grad_(i < 3)
            for i, x in enumerate(inputs_of(settings, key_end.shape))]
  attend, key_end = torch.nn.functional.scaled_dot_product_attention, key_end.to(device)
  if name == 'torch_flex':
    attend, options = flex(torch, key_end, device)
  elif name == 'torch_causal':
    options = {'is_causal': True}
  else:
    index = torch.arange(key_end.shape[1], device=device)
    options = {'attn_mask': (
        (index[None] <= index[:, None]) & (index[:, None] < key_end[:, None]))[:, None]}

  def compute():
    q, k, v, dout = inputs
    out = attend(*(x.transpose(1, 2) for x in (q, k, v)), enable_gqa=True, **options).transpose(1, 2)
    return [out, *torch.autograd.grad(out, (q, k, v), dout)]

  return compute


def flex(torch, key_end, device):
  """FlexAttention, compiled, and its block mask of the rule."""
  if device == 'cpu':
    raise RuntimeError('FlexAttention has no backward pass on a CPU')
  from torch.nn.attention import flex_attention

  def rule(b, h, query, key):
    return (key <= query) & (query < key_end[b, key])

  rows, length = key_end.shape
  mask = flex_attention.create_block_mask(rule, rows, None, length, length, device=device)
  return torch.compile(flex_attention.flex_attention), {'block_mask': mask}


def inputs_of(settings, shape):
  """The numbers of jax_attention.py."""
  rng = np.random.default_rng(settings['seed'])
  N, K = settings['heads'], settings['kv_heads']
  return [rng.standard_normal((*shape, n, settings['width'])).astype(np.float32)
          for n in (N, K, K, N)]


def wait(torch, device):
  if device == 'cuda':
    torch.cuda.synchronize()


def answer_all(answer):
  for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)


if __name__ == '__main__':
  main()
