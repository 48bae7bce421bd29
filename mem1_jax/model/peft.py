"""Adapters as a folder of peft: `PeftModel.from_pretrained(base, folder)`.

Names and layout are those of peft's LoRA checkpoints
(https://huggingface.co/docs/peft/developer_guides/checkpoint):

    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight   [r, in]
    base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight   [out, r]
"""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy

from mem1_jax.arrays import Params
from mem1_jax.model.config import ModelConfig
from mem1_jax.model.hf_tensors import tensors
from mem1_jax.model.lora import TARGETS

WEIGHTS, CONFIG = 'adapter_model.safetensors', 'adapter_config.json'


def save(folder: str | pathlib.Path, adapters: Params, config: ModelConfig, base: str | None):
  """Writes adapter_config.json and adapter_model.safetensors, in float32.

  Args:
    folder: made if missing.
    adapters: of `lora.init`, trained or not.
    config: of the model they belong to.
    base: hub name or folder of the model for transformers; None where it has neither.

  Raises:
    FileExistsError: the folder holds adapters already.
    ValueError: there are no adapters.
  """
  folder = pathlib.Path(folder)
  if (folder / WEIGHTS).exists():
    raise FileExistsError(f'{folder} holds adapters already; choose another folder')
  arrays, modules, table = {}, [], tensors(config)
  for target, part in TARGETS.items():
    pair = adapters['layers'].get(part, {}).get(target, {})
    if 'lora_a' not in pair:
      continue
    rank = pair['lora_a'].shape[-1]
    module = table[f'layers.{part}.{target}.kernel'].name.removesuffix('.weight')
    modules.append(module.rpartition('.')[2])
    for layer, (a, b) in enumerate(zip(*map(np.asarray, (pair['lora_a'], pair['lora_b'])))):
      name = f'base_model.model.{module.format(layer)}'
      arrays[f'{name}.lora_A.weight'] = _contiguous(a.reshape(-1, rank).T)
      arrays[f'{name}.lora_B.weight'] = _contiguous(b.reshape(rank, -1).T)
  if not arrays:
    raise ValueError('there are no adapters to write; train with lora.rank above 0')
  folder.mkdir(parents=True, exist_ok=True)
  (folder / CONFIG).write_text(json.dumps({
      'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'base_model_name_or_path': base, 'r': rank,
      'lora_alpha': config.lora_alpha, 'target_modules': modules, 'lora_dropout': 0.0,
      'bias': 'none', 'fan_in_fan_out': False, 'use_rslora': False, 'inference_mode': True,
  }, indent=2, sort_keys=True) + '\n')
  # peft reads torch's files and names no other framework; safetensors makes files that only
  # their owner may read.
  safetensors.numpy.save_file(arrays, folder / WEIGHTS, metadata={'format': 'pt'})
  shutil.copymode(folder / CONFIG, folder / WEIGHTS)


def _contiguous(x: np.ndarray) -> np.ndarray:
  # safetensors writes the buffer as it lies.
  return np.ascontiguousarray(x, np.float32)
