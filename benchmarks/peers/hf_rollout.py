"""The worker of transformers: `generate`, turn by turn (see benchmarks/rollout.py).

Qwen2 with scaled_dot_product_attention and a dynamic cache, prompts padded on the left to the
longest of a batch. It knows no turns: each one reads its question again. It keeps no log-probs.
"""

import argparse
import pathlib
import sys
import time

import random_turns  # beside this file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import side_by_side  # noqa: E402

missing = ''
try:
  import torch
  import transformers
  transformers.utils.logging.disable_progress_bar()
except ImportError as error:
  torch, missing = None, str(error)


def make_answer(settings, cases):
  torch.set_num_threads(settings['threads'])
  device = 'cuda' if settings['platform'] == 'gpu' else 'cpu'
  dtype = getattr(torch, settings['model']['dtype'])
  model = transformers.AutoModelForCausalLM.from_pretrained(
      pathlib.Path(settings['weights']) / 'policy', dtype=dtype, attn_implementation='sdpa'
  ).to(device).eval()
  repeats = dict.fromkeys(cases, 0)

  def answer(name):
    case, repeat = cases[name], repeats[name]
    repeats[name] += 1
    stops = torch.tensor(case.stop_ids, device=device)

    def sample(prompts, number):
      torch.manual_seed(number)
      longest = max(map(len, prompts))
      ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=device)
      mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
      out = model.generate(
          ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
          max_new_tokens=case.longest, eos_token_id=case.stop_ids or None, pad_token_id=0)
      written = out[:, longest:]
      stopped = torch.isin(written, stops)
      lengths = torch.where(stopped.any(1), stopped.int().argmax(1) + 1, written.shape[1])
      return [row[:n] for row, n in zip(written.tolist(), lengths.tolist())]

    begun = time.perf_counter()
    with torch.inference_mode():
      tokens = case.waves(repeat, sample)
    return random_turns.result(case, time.perf_counter() - begun, tokens)

  return answer


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--settings', required=True, help='a .json of benchmarks/rollout.py')
  args = parser.parse_args()
  if torch is None:
    side_by_side.serve(lambda _: {'not_run': missing})
  else:
    side_by_side.serve(make_answer(*random_turns.read(args.settings)))


if __name__ == '__main__':
  main()
