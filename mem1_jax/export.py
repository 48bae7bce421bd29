"""A folder that transformers loads: parameters, tokenizer and generation config."""

import json
import pathlib
import shutil
from typing import Any

from mem1_jax import assemble, initial, train
from mem1_jax.arrays import Params
from mem1_jax.checkpoint import Checkpointer
from mem1_jax.model import build_critic, hf, hf_config, lora, peft
from mem1_jax.model.config import ModelConfig

_GENERATION = 'generation_config.json'


def run(config: Any, out: pathlib.Path, workdir: pathlib.Path | None = None,
        is_critic: bool = False, dtype: str = '', max_shard_bytes: int = 5 * 10**9):
  """Writes the parameters of `config.init`, or those that a PPO run has trained, LoRA merged.

  Args:
    config: of the run.
    out: a new folder, for AutoModelForCausalLM; a critic's for AutoModelForTokenClassification.
    workdir: a run folder of `train`: its best policy is written. None for `config.init`.
    is_critic: write the newest critic of the run instead.
    dtype: of the tensors; '' for `config.model.param_dtype`.
    max_shard_bytes: larger models become several files and an index.

  Raises:
    FileExistsError: `out` holds weights already.
    FileNotFoundError: the run has no checkpoint.
    ValueError: there is nothing to export.
  """
  tokenizer = assemble.make_tokenizer(config)
  params, sizes = _trained(config, workdir, is_critic) if workdir else _initial(config, is_critic)
  token_ids = {'eos_token_id': tokenizer.eos_id, 'pad_token_id': tokenizer.pad_id}
  base = token_ids | initial.hf_keys(config.init)
  hf.save(out, params, sizes, dtype or config.model.param_dtype, is_critic=is_critic, base=base,
          max_shard_bytes=max_shard_bytes)
  tokenizer.save(out)
  given = None if config.init.startswith('gguf:') else initial.folder(config.init) / _GENERATION
  if config.init and given is not None and given.is_file():
    shutil.copyfile(given, out / _GENERATION)
  else:
    (out / _GENERATION).write_text(json.dumps(token_ids, indent=2) + '\n')
  print(f'{sizes.num_params():,} parameters in {out}')


def run_adapters(config: Any, out: pathlib.Path, workdir: pathlib.Path | None):
  """Writes the adapters of a run's best policy, not merged, as a folder of peft.

  Raises:
    FileExistsError: `out` holds adapters already.
    FileNotFoundError: the run has no checkpoint.
    ValueError: no run is named, or it has trained no adapters.
  """
  if workdir is None:
    raise ValueError('parameters to start from have no adapters; name the run with --workdir')
  trainer = _restored(config, workdir)
  sizes = assemble.make_policy(config, trainer.tokenizer).config
  init = config.init
  is_hf = init and not init.startswith('gguf:') and hf_config.is_hf_folder(initial.folder(init))
  peft.save(out, train.best_policy(trainer, workdir, is_merged=False), sizes,
            init.removeprefix('hf:') if is_hf else None)
  print(f'adapters of rank {config.lora.rank} in {out}')


def _initial(config: Any, is_critic: bool) -> tuple[Params, ModelConfig]:
  if is_critic:
    raise ValueError('parameters to start from have no critic; name the run with --workdir')
  if not config.init:
    raise ValueError('there is nothing to export: set --config.init, or name a run with --workdir')
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  return assemble.initial_params(config, policy), policy.config


def _restored(config: Any, workdir: pathlib.Path) -> train.Trainer:
  if not (workdir / 'checkpoints').is_dir():
    raise FileNotFoundError(f'{workdir} has no checkpoints; give the run folder of `train`')
  trainer = train.build(config)
  checkpoints = Checkpointer(workdir / 'checkpoints', config.checkpoint.keep)
  train.restore(trainer, checkpoints)
  checkpoints.close()
  return trainer


def _trained(config: Any, workdir: pathlib.Path, is_critic: bool) -> tuple[Params, ModelConfig]:
  trainer = _restored(config, workdir)
  policy = assemble.make_policy(config, trainer.tokenizer)
  if is_critic:
    # A head on the actor has the actor's trunk.
    trained = (trainer.state.policy if config.critic == 'head' else {}) | trainer.state.value
    value = lora.merge(trainer.reference, trained, config.lora.alpha)
    value.pop('head', None)  # the reference's: a critic has none
    return value, build_critic(policy.config).config
  return train.best_policy(trainer, workdir), policy.config
