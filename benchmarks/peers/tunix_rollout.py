"""The worker of Tunix: its own Sampler, turn by turn (see benchmarks/rollout.py). CPU float32.

    pip install google-tunix==0.1.7 jax==0.12.0.1 flax==0.12.12 optax==0.2.8

A batch of prompts is padded on the left to the longest there may be, so that nothing compiles
again; the cache is the smallest that Tunix accepts: that prompt and the longest turn. It knows no
turns: each one reads its question again. Log-probs are kept, as training needs them.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import random_turns  # beside this file

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax  # noqa: E402
import numpy as np  # noqa: E402
from tunix.generate import sampler as tunix_sampler  # noqa: E402
from tunix.models.qwen2 import model as qwen2  # noqa: E402
from tunix.models.qwen2 import params as qwen2_params  # noqa: E402

PAD = -1  # Tunix masks what equals it; no prompt has this one, and as an index it is valid


class Ids:
  """As much of a tokenizer as Tunix asks for: texts are ids."""

  def encode(self, text):
    return [int(word) for word in text.split()]

  def decode(self, ids):
    return ' '.join(map(str, ids))

  def pad_id(self):
    return PAD

  def bos_id(self):
    return None

  def eos_id(self):
    return 2**30  # no id: turns end at those of the case

  def dedup_bos_ids(self, ids):
    return ids


def make_model(settings):
  m = settings['model']
  config = qwen2.ModelConfig(
      num_layers=m['num_layers'], vocab_size=m['vocab_size'], embed_dim=m['dim'],
      hidden_dim=m['ffn_dim'], num_heads=m['num_heads'], head_dim=m['head_dim'],
      num_kv_heads=m['num_kv_heads'], rope_theta=m['rope_theta'], norm_eps=m['rms_eps'],
      use_tied_embedding=m['tie_embeddings'])
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('fsdp', 'tp'))
  model = qwen2_params.create_model_from_safe_tensors(
      str(pathlib.Path(settings['weights']) / 'policy'), config, mesh, jax.numpy.float32)
  return model, config


def make_answer(settings, cases):
  model, config = make_model(settings)
  samplers, repeats = {}, dict.fromkeys(cases, 0)

  def answer(name):
    case, repeat = cases[name], repeats[name]
    repeats[name] += 1
    if name not in samplers:
      samplers[name] = tunix_sampler.Sampler(model, Ids(), tunix_sampler.CacheConfig(
          case.longest_prompt + case.longest, config.num_layers, config.num_kv_heads,
          config.head_dim))

    def sample(prompts, number):
      found = samplers[name](
          [' '.join(map(str, ids)) for ids in prompts], case.longest,
          max_prompt_length=case.longest_prompt, eos_tokens=case.stop_ids or None,
          temperature=1.0, top_p=1.0, seed=number, return_logprobs=True)
      return [list(map(int, tokens)) for tokens in found.tokens]

    begun = time.perf_counter()
    tokens = case.waves(repeat, sample)
    return random_turns.result(case, time.perf_counter() - begun, tokens)

  return answer


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--settings', required=True, help='a .json of benchmarks/rollout.py')
  args = parser.parse_args()
  out, sys.stdout = sys.stdout, sys.stderr  # Tunix may print
  answer = make_answer(*random_turns.read(args.settings))
  for line in sys.stdin:
    print(json.dumps(answer(line.strip())), file=out, flush=True)


if __name__ == '__main__':
  main()
