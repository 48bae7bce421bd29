"""The PPO loop on 2x2x2: nothing moves unasked or compiles late, and one device continues it."""

import json

from mem1_jax import train
from tests.tiny import tiny_config


def test_a_run_on_eight_devices_is_continued_by_one(tmp_path):
  config = tiny_config()
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 2, -1, 2
  config.rollout.num_slots = config.ppo.tasks = config.ppo.num_rows = 8
  config.ppo.micro_rows, config.ppo.iterations = 4, 2
  config.eval.every, config.checkpoint.every = 0, 1
  state = train.run(config, tmp_path).state
  for params in (state.policy, state.value):
    assert params['embed']['embedding'].addressable_shards[0].data.shape == (1024 // 2, 32 // 2)
  config.mesh.data = config.mesh.fsdp = config.mesh.tensor = 1
  config.ppo.iterations = 3
  state = train.run(config, tmp_path, is_resumed=True).state
  assert state.policy['embed']['embedding'].addressable_shards[0].data.shape == (1024, 32)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
  assert [line['step'] for line in lines] == [1, 2, 3]
  for line in lines:
    # The sampler's log-probs are the learner's, on the other mesh too.
    assert line['logprob_gap_max'] < 1e-5 and line['recompiles'] == 0
