"""Training on 2x2x2 as a whole: nothing moves unasked or compiles late; one device goes on."""

import json

import jax
import numpy as np
import pytest

from mem1_jax import checkpoint, sft, train
from tests.tiny import tiny_config


def _config(rank, *mesh):
  config = tiny_config()
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
  config.lora.rank = config.lora.value_rank = rank
  config.critic = 'lora' if rank else 'separate'
  config.rollout.num_slots = config.ppo.tasks = config.ppo.num_rows = 8
  config.ppo.micro_rows, config.ppo.iterations = 4, 2
  config.eval.every, config.checkpoint.every = 0, 1
  config.sft.rows_per_step = 4
  return config


def _shard(params):
  """What a device holds of the embedding, or of an adapter where there is no embedding."""
  leaf = params['embed']['embedding'] if 'embed' in params else (
      params['layers']['mlp']['up']['lora_a'])
  return leaf.addressable_shards[0].data.shape


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 2], ids=['whole', 'lora'])
def test_a_run_on_eight_devices_is_continued_by_one(rank, tmp_path):
  trainer = train.run(_config(rank, 2, -1, 2), tmp_path)
  for params in (trainer.state.policy, trainer.state.value):
    assert _shard(params) == ((2, 32 // 2, 2) if rank else (1024 // 2, 32 // 2))
  assert _shard(trainer.reference) == (1024 // 2, 32 // 2)
  config = _config(rank, 1, 1, 1)
  config.ppo.iterations = 3
  trainer = train.run(config, tmp_path, is_resumed=True)
  assert _shard(trainer.state.policy) == ((2, 32, 2) if rank else (1024, 32))
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
  assert [line['step'] for line in lines] == [1, 2, 3]
  for line in lines:
    # The sampler's log-probs are the learner's, on the other mesh too.
    assert line['logprob_gap_max'] < 1e-5 and line['recompiles'] == 0


@pytest.mark.slow
def test_supervised_adapters_are_merged_from_eight_devices_as_from_one(tmp_path):
  merged = [checkpoint.load_params(sft.run(_config(2, *mesh), tmp_path / str(mesh[0])))[0]
            for mesh in ((2, 2, 2), (1, 1, 1))]
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), *merged)
