"""The headline's ratios on cells with known values, and the commands that it gives."""

import json
import math
import subprocess
import sys

import pytest

from benchmarks import headline
from mem1_jax import configs


def cell(per_question, objectives, peak, seconds=1.0, tasks=None):
  tasks = tasks or [f't{i}' for i in range(len(per_question))]
  return [{'em': x * objectives, 'em_per_question': x, 'peak_tokens': peak, 'seconds': seconds,
           'task': task} for x, task in zip(per_question, tasks)]


def cells(theirs_at_2=(1.0, 1.0), theirs_at_16=(0.25, 0.25)):
  ours = {2: cell([1.0, 1.0], 2, 100), 16: cell([0.75, 0.75], 16, 300, 2.0)}
  theirs = {2: cell(theirs_at_2, 2, 200), 16: cell(theirs_at_16, 16, 1500, 5.0)}
  return {'mem1': ours, 'full_context': theirs, 'full_context_16': theirs}


def test_ratios_of_known_values():
  found = headline.compare(cells())
  assert found['mem1']['kept'] == {'value': 0.75, 'low': 0.75, 'high': 0.75}
  theirs = found['full_context']
  assert theirs['em_at_2']['value'] == 1.0 and not theirs['is_void']
  assert theirs['em_ratio']['value'] == 3.0
  assert theirs['peak_ratio']['value'] == 5.0 and theirs['seconds_ratio']['value'] == 2.5


@pytest.mark.parametrize('at_2, is_void', [((1.0, 0.8), False), ((1.0, 0.75), True),
                                           ((0.0, 0.0), True)])
def test_the_comparison_is_void_below_nine_tenths(at_2, is_void):
  assert headline.compare(cells(at_2))['full_context']['is_void'] is is_void


def test_no_right_answer_is_no_ratio():
  found = headline.compare(cells(theirs_at_16=(0.0, 0.0)))['full_context']['em_ratio']
  assert found == {'value': None, 'low': None, 'high': None}
  some = headline.ratio([1.0] * 4, [1.0, 0.0, 0.0, 0.0], is_paired=True)
  assert some['value'] == 4.0 and some['low'] < 4.0 and some['high'] is None
  json.dumps(found, allow_nan=False)


def test_an_interval_holds_what_resampling_holds():
  above, below = [3.0, 1.0] * 50, [1.0, 3.0] * 50
  apart = headline.ratio(above, below, is_paired=False)
  together = headline.ratio(above, above, is_paired=True)
  assert together == {'value': 1.0, 'low': 1.0, 'high': 1.0}
  assert apart['low'] < 1.0 < apart['high'] and math.isclose(apart['value'], 1.0)
  spread = math.sqrt(2) * 0.1 / 2  # two means of 2 ± 0.1
  assert abs((apart['high'] - apart['low']) - 2 * 1.96 * spread) < 0.06


def test_other_tasks_are_refused():
  wrong = cells()
  wrong['full_context'] = {**wrong['full_context'], 16: cell([0.2, 0.2], 16, 9, tasks=['a', 'b'])}
  with pytest.raises(ValueError, match='mem1 and full_context were asked different tasks of 16'):
    headline.compare(wrong)


@pytest.mark.parametrize('is_own_sft', [False, True])
def test_all_agents_have_the_same_budget_and_knobs_that_there_are(tmp_path, is_own_sft):
  seen = {}
  for agent in headline.AGENTS:
    for command, name, *arguments in agent.commands(tmp_path, is_own_sft):
      knobs = [text for text in arguments if text.startswith('--config.')]
      seen[agent.name, command] = configs.load(name.removeprefix('--config='), knobs)
  supervised = {name: c for (name, command), c in seen.items() if command == 'sft'}
  assert set(supervised) == ({a.name for a in headline.AGENTS} if is_own_sft
                             else {'full_context_16'})
  assert {c.sft.rows_per_step * c.rows.length * c.sft.steps for c in supervised.values()} == {
      3840 * 1400}
  trained = {name: c for (name, command), c in seen.items() if command == 'train'}
  assert len({(c.ppo.iterations, c.ppo.tasks, c.optim.policy_lr) for c in trained.values()}) == 1
  assert trained['full_context_16'].data.objectives == (1, 16)
  assert all(seen[a.name, 'evaluate'].eval.objectives == headline.OBJECTIVES
             for a in headline.AGENTS)


def test_a_command_that_fails_is_named(tmp_path, monkeypatch):
  run = subprocess.Popen
  monkeypatch.setattr(headline.subprocess, 'Popen', lambda command, **more: run(
      [sys.executable, '-c', 'raise SystemExit(3)'], **more))
  with pytest.raises(RuntimeError, match='`main train` of mem1 ended with status 3; .*mem1.log'):
    headline.do(headline.AGENTS[1], tmp_path, set(), [], False)
