"""The worker of torch: what MEM1's release does, in transformers (see benchmarks/update.py).

Qwen2 with scaled_dot_product_attention and a dense mask over stitched rows, AdamW. It is given
more than the release takes: logits of the generated tokens alone, masks made before the clock
starts, no padding, fused optimisers. Policy and critic are Qwen2ForCausalLM and a Qwen2Model with
a value head.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mem1_jax.ops.masks import visible  # noqa: E402

missing = ''
try:
  import torch
  import torch.nn.functional as F
  import transformers
  transformers.utils.logging.disable_progress_bar()
except ImportError as error:
  torch, missing = None, str(error)


def load(settings, device):
  """(policy, critic, their optimisers)."""
  folder, optim = pathlib.Path(settings['weights']), settings['optim']
  networks, optimizers = [], []
  for name, kind in (('policy', transformers.AutoModelForCausalLM),
                     ('critic', transformers.AutoModelForTokenClassification)):
    network = kind.from_pretrained(
        folder / name, dtype=torch.float32, attn_implementation='sdpa').to(device).train()
    if name == 'critic':
      network.score.bias.requires_grad_(False)  # ours has none
    params = [p for p in network.parameters() if p.requires_grad]
    groups = [{'params': [p for p in params if p.ndim >= 2]},
              {'params': [p for p in params if p.ndim < 2], 'weight_decay': 0.0}]
    optimizers.append(torch.optim.AdamW(
        groups, lr=optim['policy_lr' if name == 'policy' else 'value_lr'],
        betas=(optim['b1'], optim['b2']), eps=optim['eps'], weight_decay=optim['weight_decay'],
        fused=True))
    networks.append(network)
  return (*networks, *optimizers)


def rows(arrays, prefix, device, dtype):
  """One dict of tensors per row, with its mask as what is added to scores."""
  found, mask, last = [], None, None
  for r in range(len(arrays['tokens'])):
    row = {name: torch.as_tensor(arrays[prefix + name][r], device=device) for name in (
        'tokens', 'position', 'key_end', 'logprob', 'advantage', 'value', 'target')}
    row['generated'] = torch.as_tensor(
        np.flatnonzero(arrays[prefix + 'is_generated'][r]), device=device)
    if last is None or not torch.equal(last, row['key_end']):
      index = torch.arange(len(row['tokens']), device=device)
      is_visible = visible(index[:, None], index[None], row['key_end'][None])
      mask = torch.zeros(is_visible.shape, dtype=dtype, device=device)
      mask.masked_fill_(~is_visible, torch.finfo(dtype).min)
    last, row['mask'] = row['key_end'], mask[None, None]
    for name in ('tokens', 'position', 'generated'):
      row[name] = row[name].long()
    found.append(row)
  return found


def hidden(network, row):
  """Hidden states that describe the generated tokens."""
  states = network.model(
      input_ids=row['tokens'][None], attention_mask=row['mask'],
      position_ids=row['position'][None], use_cache=False).last_hidden_state
  return states[0, row['generated'] - 1]


def policy_loss(policy, row, ppo):
  at = row['generated']
  logits = (hidden(policy, row) @ policy.lm_head.weight.T).float()
  logprob = -F.cross_entropy(logits, row['tokens'][at], reduction='none')
  ratio, advantage = torch.exp(logprob - row['logprob'][at]), row['advantage'][at]
  clipped = ratio.clamp(1 - ppo['clip'], 1 + ppo['clip'])
  return -torch.minimum(ratio * advantage, clipped * advantage).sum()


def value_loss(critic, row, ppo):
  at = row['generated']
  value = critic.score(hidden(critic, row))[:, 0].float()
  old, target = row['value'][at], row['target'][at]
  clipped = old + (value - old).clamp(-ppo['value_clip'], ppo['value_clip'])
  return 0.5 * torch.maximum((value - target)**2, (clipped - target)**2).sum()


def update(models, batch, settings, is_applied=True):
  """One optimiser step over all rows; losses and gradient norms before clipping."""
  networks, optimizers = models[:2], models[2:]
  num_tokens, found = sum(len(row['generated']) for row in batch), {}
  for name, loss_of, network, optimizer in zip(
      ('policy', 'value'), (policy_loss, value_loss), networks, optimizers):
    total = 0.0
    for row in batch:
      with torch.autocast(row['tokens'].device.type, torch.bfloat16,
                          enabled=settings['model']['dtype'] == 'bfloat16'):
        loss = loss_of(network, row, settings['ppo']) / num_tokens
      loss.backward()
      total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(
        network.parameters(), settings['optim']['max_grad_norm'])
    if is_applied:
      optimizer.step()
    optimizer.zero_grad()
    found |= {f'{name}_loss': total.item(), f'{name}_grad_norm': norm.item()}
  return found


def serve(settings, arrays, device):
  """An update for each line of stdin."""
  dtype = torch.bfloat16 if settings['model']['dtype'] == 'bfloat16' else torch.float32
  models = load(settings, device)
  batch = rows(arrays, 'stitched_', device, dtype)
  for number, _ in enumerate(sys.stdin):
    more = {}
    if not number:
      exact = rows(arrays, '', device, dtype)
      more = {'exact': update(models, exact, settings, is_applied=False)}
      del exact
      update(models, batch, settings)
    begun, cpu = time.perf_counter(), time.process_time()
    update(models, batch, settings)  # waits for the device: it returns numbers
    print(json.dumps({'seconds': time.perf_counter() - begun,
                      'cpu_seconds': time.process_time() - cpu} | more), flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('episodes', help='an .npz of benchmarks/update.py')
  parser.add_argument('--settings', required=True, help='a .json of benchmarks/update.py')
  args = parser.parse_args()
  settings = json.loads(pathlib.Path(args.settings).read_text())
  device = 'cuda' if settings['platform'] == 'gpu' else 'cpu'
  if torch is None or (device == 'cuda' and not torch.cuda.is_available()):
    print(json.dumps({'not_run': missing or 'this torch has no CUDA'}), flush=True)
    return
  torch.set_num_threads(settings['threads'])
  try:
    serve(settings, dict(np.load(args.episodes)), device)
  except torch.OutOfMemoryError:
    print(json.dumps({'not_run': 'out of device memory'}), flush=True)


if __name__ == '__main__':
  main()
