"""`main export`: what is written comes back the same, from parameters and from a PPO run."""

import json

import jax
import numpy as np
import pytest

from mem1_jax import assemble, checkpoint, export, initial, train
from mem1_jax.model import hf_files
from tests.model import hf_small
from tests.tiny import tiny_config


@pytest.fixture
def config(tmp_path):
  """A tiny config that starts from parameters of its own."""
  config = tiny_config()
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  params = policy.init(jax.random.key(7))
  checkpoint.save_params(tmp_path / 'init', params, {}, 'float32')
  config.init = str(tmp_path / 'init')
  return config


def _read_back(config, out):
  """The parameters of an exported folder, its sizes taken from its config.json."""
  config.init, config.model.name = str(out), 'checkpoint'
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  return assemble.initial_params(config, policy)


def test_parameters_come_back_the_same(config, tmp_path, capsys):
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  params = assemble.initial_params(config, policy)
  export.run(config, tmp_path / 'out')
  assert str(tmp_path / 'out') in capsys.readouterr().out
  names = {path.name for path in (tmp_path / 'out').iterdir()}
  assert names == {'model.safetensors', 'config.json', 'generation_config.json', 'tokenizer.model'}
  tokenizer = assemble.make_tokenizer(config)
  for name in ('config.json', 'generation_config.json'):
    keys = json.loads((tmp_path / 'out' / name).read_text())
    assert (keys['eos_token_id'], keys['pad_token_id']) == (tokenizer.eos_id, tokenizer.pad_id)
  again = _read_back(config, tmp_path / 'out')
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_files_of_the_original_are_kept(tmp_path):
  folder = hf_small.write(tmp_path / 'in', 'qwen2', eos_token_id=[5, 6], vocab_size=61)
  (folder / 'generation_config.json').write_text('{"temperature": 0.7}')
  config = tiny_config()
  config.init, config.model.name = str(folder), 'checkpoint'
  vocabulary = tmp_path / 'tokenizer'
  _save_tokenizer(vocabulary)
  config.tokenizer.kind, config.tokenizer.path = 'huggingface', str(vocabulary)
  export.run(config, tmp_path / 'out', max_shard_bytes=4000)
  assert (tmp_path / 'out' / 'generation_config.json').read_text() == '{"temperature": 0.7}'
  raw = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert raw['eos_token_id'] == [5, 6] and raw['max_position_embeddings'] == 64
  assert (tmp_path / 'out' / 'tokenizer.json').is_file()
  assert (tmp_path / 'out' / hf_files.INDEX).is_file()
  weights, num_files = hf_small.tensors_of(tmp_path / 'out')
  assert num_files > 1
  for name, x in hf_small.stored('qwen2')[0].items():
    assert weights[name].tobytes() == x.tobytes()


def _save_tokenizer(folder):
  """30 letters and the like: fits the 61 rows of the golden models."""
  import tokenizers
  import transformers
  alphabet = ['<|im_end|>', *'abcdefghijklmnopqrstuvwxyz', 'Ġ', 'Ċ']
  model = tokenizers.Tokenizer(tokenizers.models.BPE(
      vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=model, eos_token='<|im_end|>').save_pretrained(folder)


def test_a_dtype_of_ones_own(config, tmp_path):
  export.run(config, tmp_path / 'out', dtype='bfloat16')
  tensors = hf_small.tensors_of(tmp_path / 'out')[0]
  assert {x.dtype.name for x in tensors.values()} == {'bfloat16'}


def test_what_a_run_has_trained(config, tmp_path):
  workdir = tmp_path / 'run'
  trainer = train.build(config)
  trainer.state = jax.tree.map(
      lambda x: x + 1 if x.dtype == np.float32 else x, trainer.state)
  trainer.iteration = 1
  checkpoints = checkpoint.Checkpointer(workdir / 'checkpoints', 1, 'eval_reward')
  train.save(trainer, checkpoints, {'eval_reward': 0.5})
  checkpoints.close()
  trained, value = trainer.state.policy, trainer.state.value
  export.run(config, tmp_path / 'critic', workdir, is_critic=True)
  tensors = hf_small.tensors_of(tmp_path / 'critic')[0]
  np.testing.assert_array_equal(tensors['score.weight'][0], value['value'][:, 0])
  np.testing.assert_array_equal(tensors['model.norm.weight'], value['final_norm']['scale'])
  export.run(config, tmp_path / 'policy', workdir)
  jax.tree.map(np.testing.assert_array_equal, _read_back(config, tmp_path / 'policy'), trained)


def test_a_critic_on_the_actor_is_the_actor_and_a_head(config, tmp_path):
  config.critic = 'head'
  trainer = train.build(config)
  assert set(trainer.state.value) == {'value'}
  trainer.state = jax.tree.map(lambda x: x + 1 if x.dtype == np.float32 else x, trainer.state)
  checkpoints = checkpoint.Checkpointer(tmp_path / 'run' / 'checkpoints', 1, 'eval_reward')
  train.save(trainer, checkpoints, {'eval_reward': 0.5})
  checkpoints.close()
  export.run(config, tmp_path / 'critic', tmp_path / 'run', is_critic=True)
  tensors = hf_small.tensors_of(tmp_path / 'critic')[0]
  np.testing.assert_array_equal(tensors['score.weight'], np.ones((1, 32)))
  np.testing.assert_array_equal(tensors['model.norm.weight'],
                                trainer.state.policy['final_norm']['scale'])


def test_nothing_to_export(config, tmp_path):
  with pytest.raises(FileNotFoundError, match='has no checkpoints; give the run folder'):
    export.run(config, tmp_path / 'out', tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='no critic; name the run with --workdir'):
    export.run(config, tmp_path / 'out', is_critic=True)
  config.init = ''
  with pytest.raises(ValueError, match='nothing to export: set --config.init'):
    export.run(config, tmp_path / 'out')
  assert not (tmp_path / 'out').exists() and initial.hf_keys('') == {}
