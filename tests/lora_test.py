"""LoRA end to end: SFT, PPO from its merged model, resuming, export; only adapters train."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mem1_jax import assemble, checkpoint, export, sft, train
from mem1_jax.model import lora, peft
from tests.model import hf_small
from tests.tiny import tiny_config

RANK, VALUE_RANK, ALPHA = 4, 2, 16.0
TARGETS = ('q', 'v', 'o', 'down')


def lora_config(base='', **changes):
  c = tiny_config()
  c.init = str(base)
  c.optim.policy_lr, c.optim.warmup = 1e-2, 1
  c.ppo.iterations, c.eval.every, c.checkpoint.every = 2, 0, 1
  # Random models earn nothing: the KL is what the critic learns, once there is some.
  c.ppo.kl_in, c.ppo.kl_coef, c.ppo.epochs = 'reward', 1.0, 2
  c.critic = 'lora'
  c.lora.rank, c.lora.value_rank, c.lora.alpha, c.lora.targets = RANK, VALUE_RANK, ALPHA, TARGETS
  c.update_from_flattened_dict(changes)
  return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def supervised(folder):
  """The parameters of a supervised run, and of one resumed half-way."""
  whole = sft.run(lora_config(), folder / 'sft')
  half = _without_last(folder / 'sft', folder / 'sft_resumed', 4)
  return whole, sft.run(lora_config(), half, is_resumed=True)


@pytest.fixture(scope='module')
def trained(folder, supervised):
  """Two iterations of PPO from the supervised model, and the second one resumed."""
  whole = train.run(lora_config(supervised[0]), folder / 'ppo')
  half = _without_last(folder / 'ppo', folder / 'ppo_resumed', 2)
  return whole, train.run(lora_config(supervised[0]), half, is_resumed=True)


def _without_last(run, copy, last):
  """A copy of a run as it was before its last checkpoint."""
  shutil.copytree(run, copy)
  shutil.rmtree(copy / 'checkpoints' / str(last))
  return copy


def _leaves(tree):
  return checkpoint.flatten(tree)


def _num(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_supervised_training_moves_the_targets_alone_and_writes_them_merged(supervised):
  config = lora_config()
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  base, merged = assemble.initial_params(config, policy), checkpoint.load_params(supervised[0])[0]
  moved = {name for name, x in _leaves(base).items()
           if not np.array_equal(x, _leaves(merged)[name])}
  assert moved == {f'layers.{lora.TARGETS[name]}.{name}.kernel' for name in TARGETS}
  assert _leaves(base).keys() == _leaves(merged).keys()


def test_supervised_training_resumes_bit_for_bit(supervised, folder):
  jax.tree.map(np.testing.assert_array_equal, *(checkpoint.load_params(p)[0] for p in supervised))
  losses = [json.loads(line)['loss'] for line in (folder / 'sft/metrics.jsonl').open()]
  assert losses[-1] < losses[0]


def test_ppo_trains_adapters_beside_the_supervised_model(trained, supervised):
  whole, _ = trained
  base = checkpoint.load_params(supervised[0])[0]
  jax.tree.map(np.testing.assert_array_equal, whole.reference, base)  # bit for bit, after training
  start = train.build(whole.config).state
  for network in ('policy', 'value'):
    tree, before = getattr(whole.state, network), getattr(start, network)
    others = {'value'} if network == 'value' else set()
    assert {name.rpartition('.')[2] for name in _leaves(tree)} == {'lora_a', 'lora_b'} | others
    for name, leaf in _leaves(tree).items():
      assert not np.array_equal(leaf, _leaves(before)[name]), name
  assert {leaf.shape[-1] for name, leaf in _leaves(whole.state.value).items()
          if name.endswith('lora_a')} == {VALUE_RANK}


def test_optimizer_state_is_that_of_adapters(trained):
  state = trained[0].state
  for tree, opt in ((state.policy, state.policy_opt), (state.value, state.value_opt)):
    moments = [leaf for leaf in jax.tree.leaves(opt) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * _num(tree)
  assert _num(state.policy) < 0.15 * _num(trained[0].reference)


def test_checkpoints_hold_no_base_and_resume_bit_for_bit(trained, folder):
  whole, resumed = trained
  jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)
  names = list(_leaves(whole.state))
  assert any('lora_a' in name for name in names) and not any('kernel' in name for name in names)
  state, meta = checkpoint.Checkpointer(folder / 'ppo/checkpoints', 2).restore_latest(whole.state)
  jax.tree.map(np.testing.assert_array_equal, state, whole.state)
  assert (meta['init'], meta['lora.alpha']) == (whole.config.init, ALPHA)


def test_the_reference_is_the_policy_with_its_lora_off(trained, folder):
  lines = [json.loads(line) for line in (folder / 'ppo/metrics.jsonl').open()]
  assert lines[0]['kl'] < 1e-9 < lines[1]['kl']  # fresh adapters add nothing, trained ones do
  assert all(line['logprob_gap_max'] < 1e-3 for line in lines) and lines[-1]['recompiles'] == 0


def test_exports_merged_or_for_peft(trained, folder, capsys):
  whole, _ = trained
  config, run = whole.config, folder / 'ppo'
  merged = lora.merge(whole.reference, whole.state.policy, ALPHA)
  export.run(config, folder / 'merged', run)
  export.run(config, folder / 'critic', run, is_critic=True)
  export.run_adapters(config, folder / 'peft', run)
  assert f'adapters of rank {RANK}' in capsys.readouterr().out
  read = lora_config(folder / 'merged', **{'model.name': 'checkpoint', 'lora.rank': 0})
  policy = assemble.make_policy(read, whole.tokenizer)
  jax.tree.map(np.testing.assert_array_equal, assemble.initial_params(read, policy), merged)
  critic = hf_small.tensors_of(folder / 'critic')[0]
  np.testing.assert_array_equal(critic['score.weight'][0], whole.state.value['value'][:, 0])
  raw = json.loads((folder / 'peft' / peft.CONFIG).read_text())
  assert (raw['r'], raw['lora_alpha'], raw['base_model_name_or_path']) == (RANK, ALPHA, None)
  a = load_file(folder / 'peft' / peft.WEIGHTS)[
      'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight']
  np.testing.assert_array_equal(a.T, whole.state.policy['layers']['attention']['q']['lora_a'][1])


@pytest.mark.parametrize('knob, value, message', [
    ('lora.alpha', 8.0, 'begun with lora.alpha 16.0, not 8.0'),
    ('init', '', "begun with init .*, not ; resume it with the same init"),
    ('lora.rank', 2, r'lora_a: saved as float32\[2, 32, 4\], wanted float32\[2, 32, 2\]'),
])
def test_adapters_go_on_beside_their_own_base_only(trained, folder, knob, value, message):
  config = lora_config(trained[0].config.init, **{knob: value})
  with pytest.raises(ValueError, match=message):
    train.run(config, folder / 'ppo', is_resumed=True)


@pytest.mark.parametrize('knob, value, message', [
    ('lora.targets', ('q', 'head'), "no projection 'head'; choose from"),
    ('lora.rank', -1, 'rank of -1 must be ≥ 0'),
    ('lora.value_rank', -2, 'rank of -2 must be ≥ 0'),
    ('lora.alpha', 0.0, 'lora_alpha=0.0 must be above 0'),
])
def test_refuses(knob, value, message):
  with pytest.raises(ValueError, match=message):
    train.build(lora_config(**{knob: value}))


def test_there_are_no_adapters_to_export(tmp_path):
  with pytest.raises(ValueError, match='have no adapters; name the run with --workdir'):
    export.run_adapters(lora_config(), tmp_path / 'out', None)


def test_a_critic_of_rank_0_is_its_head():
  state = train.build(lora_config(**{'lora.value_rank': 0})).state
  assert set(state.value) == {'value'} and state.value['value'].shape == (32, 1)
