"""Supervised training: what is learned from, that it learns, that it resumes."""

import itertools
import json

import jax
import numpy as np
import pytest

from mem1_jax import assemble, checkpoint, domains, sft
from mem1_jax.types import Kind
from tests.tiny import tiny_config


def config_for(data: str, **changes):
  config = tiny_config()
  config.sft.data = data
  config.optim.policy_lr, config.optim.warmup = 1e-2, 1
  config.sft.update(changes)
  return config


def first_rows(config):
  return next(sft.rows(config, assemble.make_tokenizer(config)))


@pytest.mark.parametrize('agent', list(assemble.AGENTS))
def test_expert_rows_predict_thoughts_and_actions_only(agent):
  config = config_for('expert')
  config.agent, config.memory.budget = agent, 150
  episodes = first_rows(config)
  generated = episodes.tags.kind[episodes.tags.is_generated]
  assert set(generated.tolist()) == {Kind.STATE, Kind.ACTION}
  assert (episodes.tags.kind == Kind.INFO).any() and (episodes.tags.kind == Kind.PROMPT).any()


def test_text_rows_predict_targets_and_see_their_own_text_only():
  config, num_generated, num_tokens = config_for('text'), 0, 0
  rows = sft.rows(config, assemble.make_tokenizer(config))
  for tags in (episodes.tags for episodes in itertools.islice(rows, 20)):
    num_generated += tags.is_generated.sum()
    num_tokens += (tags.key_end > 0).sum()
    for row in range(tags.episode.shape[0]):
      for episode in range(tags.episode[row].max() + 1):
        where = np.flatnonzero(tags.episode[row] == episode)
        assert (tags.key_end[row, where] == where[-1] + 1).all()
  assert 0.1 < num_generated / num_tokens < 0.9


def test_examples_longer_than_a_row_are_left_out(caplog):
  config = config_for('text')
  config.rows.length = 256
  rows = sft.rows(config, assemble.make_tokenizer(config))
  assert (next(rows).tags.key_end > 0).any()
  next(rows)
  assert 'more than rows.length 256, is left out' in caplog.text
  config.rows.length = 2
  with pytest.raises(ValueError, match='100 examples in a row.* longer than rows.length 2; raise'):
    first_rows(config)


def test_rows_are_the_same_for_the_same_seed_and_others_for_another():
  one, same = first_rows(config_for('text')), first_rows(config_for('text'))
  config = config_for('text')
  config.seed = 1
  np.testing.assert_array_equal(one.tokens, same.tokens)
  assert not np.array_equal(one.tokens, first_rows(config).tokens)


def test_loss_falls_and_a_resumed_run_ends_with_the_same_bits(tmp_path):
  whole = sft.run(config_for('expert', steps=12), tmp_path / 'whole')
  losses = [json.loads(line)['loss'] for line in (tmp_path / 'whole/metrics.jsonl').open()]
  assert losses[-1] < losses[0] - 0.5
  sft.run(config_for('expert', steps=4), tmp_path / 'resumed')
  resumed = sft.run(config_for('expert', steps=12), tmp_path / 'resumed', is_resumed=True)
  jax.tree.map(np.testing.assert_array_equal, checkpoint.load_params(whole)[0],
               checkpoint.load_params(resumed)[0])


@pytest.mark.slow
def test_weights_and_moments_in_bfloat16_resume_with_the_same_bits(tmp_path):
  def config(steps):
    config = config_for('expert', steps=steps, micro_rows=1)
    config.model.param_dtype = config.optim.mu_dtype = config.optim.nu_dtype = 'bfloat16'
    config.optim.policy_lr = 1e-3
    return config

  whole = sft.run(config(4), tmp_path / 'whole')
  sft.run(config(2), tmp_path / 'resumed')
  resumed = sft.run(config(4), tmp_path / 'resumed', is_resumed=True)
  jax.tree.map(np.testing.assert_array_equal, checkpoint.load_params(whole)[0],
               checkpoint.load_params(resumed)[0])
  lines = [json.loads(line) for line in (tmp_path / 'whole/metrics.jsonl').open()]
  assert lines[-1]['loss'] < lines[0]['loss'] and not any(line['skipped'] for line in lines)


def test_steps_that_are_not_finite_end_the_run(tmp_path):
  config = config_for('expert', steps=4)
  config.optim.policy_lr, config.ppo.max_skipped = 1e30, 2
  with pytest.raises(FloatingPointError, match='2 steps in a row .* lower learning rate'):
    sft.run(config, tmp_path)


def test_a_finished_folder_is_not_overwritten(tmp_path):
  sft.run(config_for('text', steps=2), tmp_path)
  with pytest.raises(FileExistsError, match='--resume'):
    sft.run(config_for('text', steps=2), tmp_path)


def test_unknown_data_names_the_choices():
  with pytest.raises(ValueError, match="sft.data 'poems' is unknown"):
    first_rows(config_for('poems'))


def test_prefetched_keeps_order_and_raises_what_the_maker_raises():
  def make():
    yield 1
    yield 2
    raise RuntimeError('made of straw')

  items = sft.prefetched(make())
  assert [next(items), next(items)] == [1, 2]
  with pytest.raises(RuntimeError, match='straw'):
    next(items)


def test_a_share_of_searches_is_for_misspelt_names():
  config = config_for('expert')
  config.sft.mistakes = 0.2
  tokenizer = assemble.make_tokenizer(config)
  world, rng = domains.make_worlds(config, tokenizer).real, np.random.default_rng(0)
  mistake = sft.mistakes(config, [passage.title for passage in world.documents], rng)
  made = [mistake('Porto Novo') for _ in range(1000)]
  wrong = [name for name in made if name is not None]
  assert 120 < len(wrong) < 220 and len(set(wrong)) > 100 and 'Porto Novo' not in wrong
  assert all(name[0] == 'P' and name == ' '.join(name.split()) for name in wrong)


@pytest.mark.parametrize('hasty, num_unknown', [(1.0, 2), (0.0, 0)])
def test_a_hasty_share_gives_up_the_second_question(hasty, num_unknown):
  """Once in its thoughts, once in its answer."""
  config = config_for('expert', hasty=hasty, drill_share=0.0, mistakes=0.0, garbled=0.0,
                      short_budget=0.0)
  config.data.objectives = (2, 2)
  tokenizer = assemble.make_tokenizer(config)
  for columns in itertools.islice(sft.expert_examples(config, tokenizer), 3):
    tokens = columns['tokens'][columns['is_generated'].astype(bool)]
    assert tokenizer.decode(tokens.tolist()).count(': unknown;') == num_unknown


def test_openings_are_first_turns_alone():
  def turns(share):
    return first_rows(config_for('expert', openings=share, drill_share=0.0)).tags.turn

  assert turns(0.0).max() > 0 and turns(1.0).max() == 0


def test_nothing_is_learned_from_a_mistake_but_from_how_it_goes_on():
  def taught(share):
    config = config_for('expert', mistakes=share, garbled=0.0, drill_share=0.0)
    config.agent = 'full_context'  # whose rows hold each turn once
    tags = first_rows(config).tags
    is_written = (tags.kind == Kind.STATE) | (tags.kind == Kind.ACTION)
    return tags.is_generated.sum() / is_written.sum()

  assert taught(0.0) == 1.0
  assert 0.3 < taught(0.5) < 0.7


def test_a_garbled_turn_breaks_off_within_its_think():
  rng, text = np.random.default_rng(0), '<think> a is b.*>[kf]</think><search> c</search>'
  made = [sft.garbled(text, rng) for _ in range(200)]
  assert all(g.startswith('<think>') and '</think>' not in g for g in made)
  assert len(set(made)) > 60 and any(len(g) > len(text) for g in made)
