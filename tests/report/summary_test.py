"""report/summary.py: the schema refuses what it should, the headline is right, files exist."""

import copy
import json

import numpy as np
import pytest

from mem1_jax.report import summary as summary_lib


def cell(objectives, em, peak, episodes=100):
  return {
      'em': em, 'em_per_question': em / objectives, 'f1': em, 'answered': 0.95,
      'peak_tokens': peak, 'peak_tokens_with_question': peak + 20 * objectives,
      'dependency': 1.5e5, 'turns': 2.5 * objectives, 'seconds': 0.2, 'episodes': episodes,
  }  # fmt: skip


def example():
  """EM: mem1 keeps 0.75 of its .8 per question at 16; full context collapses there."""
  ems = {
      'mem1_sft': (0.5, 1.0, 1.8, 3.2, 6.0),
      'mem1_ppo': (0.9, 1.6, 3.0, 5.6, 9.6),
      'full_context': (0.9, 1.5, 2.0, 2.2, 2.4),
  }
  peaks = {'mem1_sft': (90,) * 5, 'mem1_ppo': (100,) * 5, 'full_context': (80, 120, 180, 300, 500)}
  return {
      'agents': {
          agent: {
              n: cell(int(n), ems[agent][i], peaks[agent][i])
              for i, n in enumerate(summary_lib.OBJECTIVES)
          }
          for agent in summary_lib.AGENTS
      },
      'ppo': {'reward_first': 1.0, 'reward_first_ci': 0.1, 'reward_last': 1.5,
              'reward_last_ci': 0.05, 'seconds': 300.0},
      'machine': 'test machine', 'commit': 'abc123', 'seed': 0,
  }  # fmt: skip


def set_at(tree, path, value):
  *folders, last = path.split('/')
  for folder in folders:
    tree = tree[folder]
  tree[last] = value


def test_a_whole_summary_is_valid():
  summary = example()
  summary_lib.validate(summary)
  assert summary == example()  # read, not changed


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        ('agents/mem1', {}, r"agents has unknown keys \['mem1'\]"),
        ('agents/mem1_ppo/3', {}, r"agents.mem1_ppo has unknown keys \['3'\]"),
        ('agents/mem1_ppo/2/em', 2.5, r'agents.mem1_ppo.2.em is 2.5; .* \[0.0, 2'),
        ('agents/mem1_ppo/2/em', float('nan'), 'must be finite'),
        ('agents/mem1_ppo/2/em', True, 'make it a number'),
        ('agents/mem1_ppo/2/em_per_question', 0.3, r'but em / 2 is 0.8'),
        ('agents/mem1_ppo/2/answered', 95, r'answered is 95'),
        ('agents/mem1_ppo/2/episodes', 12.5, 'integer ≥ 1'),
        ('agents/mem1_ppo/2/peak_tokens', 999, 'exceeds peak_tokens_with_question'),
        ('agents/mem1_ppo/2/extra', 1, 'unknown keys'),
        ('ppo/seconds', -1, 'ppo.seconds is -1'),
        ('machine', '', 'machine'),
        ('commit', None, 'commit'),
        ('seed', 1.5, 'seed is 1.5'),
        ('note', 'x', 'unknown keys'),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
  summary = example()
  set_at(summary, path, value)
  with pytest.raises(ValueError, match=message):
    summary_lib.validate(summary)


@pytest.mark.parametrize('path', ['ppo', 'agents/mem1_sft', 'agents/full_context/16'])
def test_missing_parts_are_an_error_unless_partial(path):
  summary = example()
  *folders, last = path.split('/')
  tree = summary
  for folder in folders:
    tree = tree[folder]
  del tree[last]
  with pytest.raises(ValueError, match=f'lacks .*{last}'):
    summary_lib.validate(summary)
  summary_lib.validate(summary, is_partial=True)
  summary_lib.headlines(summary)


def test_a_partial_summary_still_needs_its_machine_and_whole_cells():
  summary = example()
  del summary['machine']
  with pytest.raises(ValueError, match='machine'):
    summary_lib.validate(summary, is_partial=True)
  summary = example()
  del summary['agents']['mem1_ppo']['4']['f1']
  with pytest.raises(ValueError, match='f1'):
    summary_lib.validate(summary, is_partial=True)


def test_headlines_by_hand():
  lines = {line.name: line for line in summary_lib.headlines(example())}
  assert list(lines) == ['ppo_gain', 'kept', 'fair', 'peak', 'em']
  assert lines['ppo_gain'].value == pytest.approx(1.6)  # 1.0 → 1.6
  assert lines['kept'].value == pytest.approx(0.75)  # .6 over .8
  assert lines['peak'].value == pytest.approx(5.0)  # 500 over 100
  assert lines['em'].value == pytest.approx(4.0)  # 9.6 over 2.4
  assert lines['fair'].value == pytest.approx(0.9375)  # 1.5 over 1.6
  assert all(line.is_met for line in lines.values())
  assert 'VOID' not in lines['fair'].text
  assert '(+60%)' in lines['ppo_gain'].text


def test_a_weak_full_context_agent_voids_the_comparison():
  summary = example()
  summary['agents']['full_context']['2'] = cell(2, 1.4, 120)  # 1.4 < .9 · 1.6
  lines = {line.name: line for line in summary_lib.headlines(summary)}
  assert not lines['fair'].is_met
  assert 'VOID' in lines['fair'].text
  assert {name for name, line in lines.items() if line.is_void} == {'peak', 'em'}
  assert 'VOID' in summary_lib.markdown(summary)


def test_ppo_near_the_maximum_needs_no_gain():
  summary = example()
  summary['agents']['mem1_sft']['2'] = cell(2, 1.8, 90)
  summary['agents']['mem1_ppo']['2'] = cell(2, 1.85, 90)
  assert summary_lib.headlines(summary)[0].is_met
  summary['agents']['mem1_ppo']['2'] = cell(2, 1.79, 90)
  assert not summary_lib.headlines(summary)[0].is_met


def test_zero_scores_do_not_divide():
  summary = example()
  for agent in summary_lib.AGENTS:
    for n in summary_lib.OBJECTIVES:
      summary['agents'][agent][n] = cell(int(n), 0.0, 100)
  lines = {line.name: line for line in summary_lib.headlines(summary)}
  assert np.isnan(lines['em'].value)
  assert not lines['em'].is_met
  summary_lib.markdown(summary)


def test_few_episodes_are_warned_of():
  summary = example()
  assert not summary_lib.warnings(summary)
  summary['agents']['mem1_ppo']['16']['episodes'] = 40
  assert 'mem1_ppo at 16: 40' in summary_lib.warnings(summary)[0]


def test_write_report_leaves_json_markdown_and_figures(tmp_path):
  summary = example()
  summary['agents']['mem1_ppo']['2'] = {
      key: np.int64(value) if key == 'episodes' else np.float32(value)
      for key, value in summary['agents']['mem1_ppo']['2'].items()
  }
  curves = {
      'ppo': {'step': [1, 2, 3], 'reward': [0.5, 0.7, 0.8]},
      'sft': {'mem1': {'step': [1, 2], 'loss': [2.0, 1.0]}},
  }
  folder = summary_lib.write_report(tmp_path / 'run', summary, curves)
  read = json.loads((folder / 'summary.json').read_text())
  summary_lib.validate(read)
  assert read['agents']['full_context'] == summary['agents']['full_context']
  assert read['agents']['mem1_ppo']['2']['em'] == pytest.approx(1.6)
  text = (folder / 'summary.md').read_text()
  for name in ('exact_match', 'peak_tokens', 'ppo', 'sft'):
    assert (folder / 'figures' / f'{name}.png').is_file()
    assert f'(figures/{name}.png)' in text
  assert 'test machine' in text
  assert 'abc123' in text


def test_a_malformed_summary_writes_nothing(tmp_path):
  summary = copy.deepcopy(example())
  summary['seed'] = 'zero'
  with pytest.raises(ValueError, match='seed'):
    summary_lib.write_report(tmp_path / 'run', summary)
  with pytest.raises(ValueError, match='curves'):
    summary_lib.write_report(tmp_path / 'run', example(), {'grpo': {}})
  assert not (tmp_path / 'run').exists()


def test_two_agents_without_a_match_have_nothing_to_compare():
  summary = example()
  for agent in ('mem1_ppo', 'full_context'):
    summary['agents'][agent]['16'] |= {'em': 0.0, 'em_per_question': 0.0}
  line = next(h for h in summary_lib.headlines(summary) if h.name == 'em')
  assert 'nothing to compare' in line.text and not line.is_met


def test_an_agent_without_a_match_is_beaten_by_no_ratio():
  summary = example()
  summary['agents']['full_context']['16'] |= {'em': 0.0, 'em_per_question': 0.0}
  line = next(h for h in summary_lib.headlines(summary) if h.name == 'em')
  assert line.text.endswith('against 0.00 of full context: which has none right') and line.is_met
