"""Every part a config can name, and what is said of names that do not exist."""

import contextlib

import jax
import numpy as np
import pytest

from mem1_jax import assemble, checkpoint, domains
from mem1_jax.agents import amem
from mem1_jax.metrics import CompileCounter
from mem1_jax.model import named_config
from mem1_jax.retrieval.dense import SentenceEncoder
from tests.retrieval.dense import bert_small
from tests.tiny import tiny_config


def test_a_config_makes_parts_that_fit_one_another():
  config = tiny_config()
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  assert policy.config == named_config('tiny')
  assert assemble.make_agent(config, tokenizer).context_capacity == 160
  small = assemble.make_engine(config, policy, tokenizer, is_append_only=False)
  large = assemble.make_engine(config, policy, tokenizer, is_append_only=True)
  assert small.config.cache_capacity == 64 + 160 + 32 and large.config.cache_capacity == 1024


@pytest.mark.parametrize('name, more', [
    ('mem1', {}), ('full_context', {}), ('truncation', {'budget': 70}), ('threshold', {'budget': 70}),
    ('amem', {'budget': 70, 'num_notes': 5, 'embed': amem.hashed_words})])
def test_an_agent_gets_its_own_knobs(name, more):
  config = tiny_config()
  config.agent, config.memory.budget, config.memory.notes = name, 70, 5
  agent = assemble.make_agent(config, assemble.make_tokenizer(config))
  assert type(agent) is assemble.agent_class(config) is assemble.AGENTS[name]
  assert agent.is_append_only == (name == 'full_context')
  assert {key: getattr(agent, key) for key in more} == more
  config.memory.budget = 161
  with (pytest.raises(ValueError, match='memory.budget 161 is more than the 160')
        if more else contextlib.nullcontext()):
    assemble.make_agent(config, assemble.make_tokenizer(config))


def test_notes_may_be_compared_by_an_encoder(tmp_path):
  config = tiny_config()
  config.agent, config.memory.budget = 'amem', 70
  folder = tmp_path / 'e5'
  config.memory.encoder = str(bert_small.write(folder))
  embed = assemble.make_agent(config, assemble.make_tokenizer(config)).embed
  encoder = SentenceEncoder(folder)
  note, asked = embed('Oslo', False), embed('Oslo', True)
  np.testing.assert_array_equal(asked, encoder.encode_queries(encoder.tokenize_queries(['Oslo']))[0])
  np.testing.assert_allclose(
      note, encoder.encode_passages(encoder.tokenize_passages(['Oslo']))[0], atol=1e-5)
  assert embed('Oslo', False) is note
  compiles = CompileCounter()
  embed('Norway and the country that lies beside it', False)
  assert compiles.names == []


@pytest.mark.parametrize('key, value, make', [
    ('tokenizer.kind', 'runes', lambda c, t: assemble.make_tokenizer(c)),
    ('agent', 'oracle', assemble.make_agent),
    ('model.name', 'gpt-1', assemble.make_policy),
    ('data.feed', 'spoon', lambda c, t: assemble.make_feed(c, None, 1, 0)),
])
def test_unknown_names_are_named_with_the_choices(key, value, make):
  config = tiny_config()
  tokenizer = assemble.make_tokenizer(config)
  node = config
  *path, last = key.split('.')
  for name in path:
    node = node[name]
  node[last] = value
  with pytest.raises(ValueError, match=value):
    make(config, tokenizer)


def test_initial_parameters_come_from_a_folder(tmp_path):
  config = tiny_config()
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  params = assemble.initial_params(config, policy)
  checkpoint.save_params(tmp_path, params, {}, 'float32')
  config.init = str(tmp_path)
  loaded = assemble.initial_params(config, policy)
  np.testing.assert_array_equal(loaded['embed']['embedding'], params['embed']['embedding'])


def test_what_acts_is_read_in_the_dtype_of_computation():
  config = tiny_config()
  config.model.dtype = 'bfloat16'
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  whole, acting = assemble.initial_params(config, policy), assemble.acting_params(config, policy)
  assert {x.dtype.name for x in jax.tree.leaves(whole)} == {'float32'}
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.astype('bfloat16'), y), whole, acting)


def test_sizes_may_come_from_the_checkpoint():
  config = tiny_config()
  config.init, config.model.name, config.model.dtype = 'atlas/mem1', 'checkpoint', 'bfloat16'
  policy = assemble.make_policy(config, assemble.make_tokenizer(config))
  assert policy.config == named_config('atlas', copy_heads=None, dtype='bfloat16')
  assert assemble.initial_params(config, policy)['embed']['embedding'].shape == (1024, 128)


def test_what_is_trained_is_all_or_adapters_of_each_network():
  config = tiny_config()
  params = assemble.initial_params(
      config, assemble.make_policy(config, assemble.make_tokenizer(config)))
  assert assemble.trainable(config, params, 'policy') == (params, None)
  assert assemble.origin(config) == {'seed': 0}
  config.critic = 'lora'
  config.lora.rank, config.lora.value_rank, config.lora.alpha = 2, 3, 5.0
  assert assemble.make_policy(config, assemble.make_tokenizer(config)).config.lora_alpha == 5.0
  assert assemble.origin(config) == {'seed': 0, 'init': '', 'lora.alpha': 5.0}
  (policy, frozen), (value, _) = (
      assemble.trainable(config, params, network) for network in ('policy', 'value'))
  assert frozen is params
  ones, twos = (tree['layers']['mlp']['up']['lora_a'] for tree in (policy, value))
  assert ones.shape == (2, 32, 2) and twos.shape == (2, 32, 3)
  config.lora.value_rank = 2
  other = assemble.trainable(config, params, 'value')[0]['layers']['mlp']['up']['lora_a']
  assert not np.array_equal(ones, other)  # the networks draw apart


def test_weights_in_float16_are_trained_by_adapters_only():
  config, params = tiny_config(), {'layers': {'mlp': {'up': {'kernel': np.ones((2, 3, 4), np.float16)}}}}
  config.model.param_dtype, config.lora.targets = 'float16', ('up',)
  with pytest.raises(ValueError, match='float16 cannot be trained: small updates round'):
    assemble.trainable(config, params, 'policy')
  config.lora.rank = 1
  assert assemble.trainable(config, params, 'policy')[1] is params


def test_what_is_kept_of_the_initial_parameters():
  config, params = tiny_config(), {'a': np.ones(3, np.float32)}
  assert assemble.frozen(config, params)['a'] is params['a']
  config.model.dtype = 'bfloat16'
  assert assemble.frozen(config, params)['a'].dtype == 'bfloat16'
  config.critic = 'lora'
  assert assemble.frozen(config, params) is params
  config.reference, config.ppo.kl_coef = 'none', 0.0
  assert assemble.frozen(config, params) is params  # the base of the critic's adapters
  config.critic = 'head'
  assert assemble.frozen(config, params) is None


def test_a_tokenizer_without_the_markers_cannot_chat():
  config = tiny_config()
  config.prompt_style = 'chatml'
  with pytest.raises(ValueError, match='as one token, which this tokenizer lacks'):
    assemble.make_agent(config, assemble.make_tokenizer(config))


def test_a_context_holds_the_longest_turn_and_a_reply():
  config = tiny_config()
  config.rollout.context_capacity = config.rollout.turn_capacity
  tokenizer = assemble.make_tokenizer(config)
  with pytest.raises(ValueError, match='context_capacity 32 must hold a turn'):
    assemble.make_engine(config, assemble.make_policy(config, tokenizer), tokenizer, False)


@pytest.fixture(scope='module')
def composer():
  return domains.make_training_composer(tiny_config())


@pytest.mark.parametrize('knobs, text', [
    ({}, None),
    ({'ppo.num_rows': 3}, 'ppo.num_rows 3 may not hold the 4 episodes.*raise it to 4'),
    ({'ppo.samples': 2}, 'ppo.num_rows 4 may not hold the 8 episodes'),
    ({'rollout.question_capacity': 20}, 'question_capacity 20 is too short.*raise it to'),
    ({'rows.length': 32, 'rollout.max_tokens': 12}, 'rows.length 32 is too short.*may write 12'),
])
def test_what_cannot_be_packed_is_refused_before_anything_is_compiled(composer, knobs, text):
  config = tiny_config()
  config.update_from_flattened_dict(knobs)
  agent = assemble.make_agent(config, assemble.make_tokenizer(config))
  with pytest.raises(ValueError, match=text) if text else contextlib.nullcontext():
    assemble.check_room(config, agent, composer)


def test_the_last_stage_of_a_curriculum_needs_room_too(composer):
  config = tiny_config()
  config.data.curriculum = ((0, 1, 1), (100, 16, 16))
  agent = assemble.make_agent(config, assemble.make_tokenizer(config))
  with pytest.raises(ValueError, match='question_capacity 64 is too short'):
    assemble.check_room(config, agent, domains.make_training_composer(config))


def test_the_smallest_room_that_is_asked_for_is_enough(composer):
  config = tiny_config()
  agent = assemble.make_agent(config, assemble.make_tokenizer(config))
  config.rows.length = 32
  with pytest.raises(ValueError) as refused:
    assemble.check_room(config, agent, composer)
  config.rows.length = int(str(refused.value).split('raise it to ')[1].split()[0])
  assemble.check_room(config, agent, composer)
