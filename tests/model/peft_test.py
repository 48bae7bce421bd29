"""Adapters for peft: its names, shapes and arithmetic, and a real load where it is installed."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mem1_jax.model import build_policy, hf, lora, peft
from tests.model import hf_small, small

ALPHA = 6.0


def _adapters(params, rank=4, targets=('q', 'k', 'o', 'up', 'down')):
  adapters = lora.init(jax.random.key(1), params, rank, targets)
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), adapters)


@pytest.fixture(scope='module')
def model():
  config = small.small_config(lora_alpha=ALPHA)  # D 24, N 4, K 2, H 8, F 40
  return config, build_policy(config).init(jax.random.key(0))


def test_names_shapes_and_config(model, tmp_path):
  config, params = model
  peft.save(tmp_path / 'out', _adapters(params), config, 'some/base')
  tensors = load_file(tmp_path / 'out' / 'adapter_model.safetensors')
  shapes = {'self_attn.q_proj': (24, 32), 'self_attn.k_proj': (24, 16),
            'self_attn.o_proj': (32, 24), 'mlp.up_proj': (24, 40), 'mlp.down_proj': (40, 24)}
  assert {name: x.shape for name, x in tensors.items()} == {
      f'base_model.model.model.layers.{layer}.{module}.lora_{letter}.weight': shape
      for layer in (0, 1) for module, (num_in, num_out) in shapes.items()
      for letter, shape in (('A', (4, num_in)), ('B', (num_out, 4)))}
  written = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())
  assert written | {'inference_mode': True} == {
      'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'base_model_name_or_path': 'some/base', 'r': 4,
      'lora_alpha': ALPHA, 'lora_dropout': 0.0, 'bias': 'none', 'fan_in_fan_out': False,
      'use_rslora': False, 'inference_mode': True,
      'target_modules': ['q_proj', 'k_proj', 'o_proj', 'up_proj', 'down_proj']}


def test_pefts_arithmetic_gives_the_merged_weights(model, tmp_path):
  """weight + B A alpha / r on torch's [out, in] weights is the export of the merged parameters."""
  config, params = model
  adapters = _adapters(params)
  peft.save(tmp_path / 'adapters', adapters, config, None)
  hf.save(tmp_path / 'base', params, config, 'float32')
  hf.save(tmp_path / 'merged', lora.merge(params, adapters, ALPHA), config, 'float32')
  base, merged = (hf_small.tensors_of(tmp_path / name)[0] for name in ('base', 'merged'))
  pairs = load_file(tmp_path / 'adapters' / peft.WEIGHTS)
  for name, weight in base.items():
    stem = f'base_model.model.{name.removesuffix(".weight")}'
    if f'{stem}.lora_A.weight' in pairs:
      a, b = pairs.pop(f'{stem}.lora_A.weight'), pairs.pop(f'{stem}.lora_B.weight')
      weight = weight + b @ a * (ALPHA / 4)
    np.testing.assert_allclose(merged[name], weight, atol=1e-4)
  assert not pairs


def test_refuses(model, tmp_path):
  config, params = model
  with pytest.raises(ValueError, match='no adapters to write; train with lora.rank above 0'):
    peft.save(tmp_path / 'out', params, config, None)
  peft.save(tmp_path / 'out', _adapters(params), config, None)
  with pytest.raises(FileExistsError, match='holds adapters already'):
    peft.save(tmp_path / 'out', _adapters(params), config, None)


@pytest.mark.skipif(not (importlib.util.find_spec('peft') and importlib.util.find_spec('torch')),
                    reason='needs peft and torch')
def test_peft_loads_it(tmp_path):
  import torch
  import transformers
  from peft import PeftModel
  folder = hf_small.write(tmp_path / 'base', 'qwen2')
  config, params = hf_small.load(folder)
  config = dataclasses.replace(config, lora_alpha=ALPHA)
  peft.save(tmp_path / 'adapters', _adapters(params), config, str(folder))
  base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
  theirs = PeftModel.from_pretrained(base, tmp_path / 'adapters').merge_and_unload().state_dict()
  hf.save(tmp_path / 'merged', lora.merge(params, _adapters(params), ALPHA), config, 'float32')
  for name, x in hf_small.tensors_of(tmp_path / 'merged')[0].items():
    np.testing.assert_allclose(theirs[name].numpy(), x, atol=1e-4)
