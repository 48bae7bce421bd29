"""The table of a sweep: numbers by hand from folders made up."""

import json

import pytest

from mem1_jax.report.intervals import Estimate
from mem1_jax.sweep import folder, results
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import chain, named, product, sweep
from tests.sweep import made

POINTS = named(product(sweep('optim.policy_lr', [1e-3, 1e-4]), sweep('seed', [0, 1])))


@pytest.fixture
def collected(tmp_path):
  made.define(tmp_path, POINTS)
  for i, point in enumerate(POINTS[:3]):
    made.write_point(tmp_path, point, seed=10 * i)
  return results.collect(tmp_path)


def test_numbers_are_quarters_and_cells_with_intervals(collected):
  first = collected.rows[0]
  assert first.numbers['reward_first'].mean == 0.0 and first.numbers['reward_last'].mean == 1.5
  assert first.numbers['reward_last'].high == pytest.approx(1.5 + 1.96 * 0.1)
  em = first.numbers['em_2']
  assert em.low < em.mean < em.high
  assert first.curve == ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.5))
  assert collected.columns == ['reward_first', 'reward_last', 'em_1', 'em_2']
  assert collected.final == 'EM per question' and collected.curve == 'reward'
  assert first.final.mean == pytest.approx(
      (first.numbers['em_1'].mean + first.numbers['em_2'].mean / 2) / 2)
  assert collected.rows[3].numbers == {} and collected.rows[3].final is None


def test_knobs_are_the_swept_ones_with_the_config_s_value_where_a_point_has_none(tmp_path):
  points = named(chain(sweep('agent', ['mem1']),
                       product(sweep('agent', ['amem']), sweep('memory.budget', [64]))))
  made.define(tmp_path, points)
  found = results.collect(tmp_path)
  assert found.knobs == {'agent': 'agent', 'memory.budget': 'budget'}
  assert [row.knobs for row in found.rows] == [
      {'agent': 'mem1', 'memory.budget': '256'}, {'agent': 'amem', 'memory.budget': '64'}]
  assert found.final == '' and found.columns == []


def test_the_table_names_points_that_are_not_done(collected):
  text = results.markdown(collected, ['figures/a.png'])
  lines = [line for line in text.splitlines() if line.startswith('| ')]
  assert lines[0] == ('| point | policy\\_lr | seed | state | minutes | reward, first quarter | '
                      'reward, last quarter | EM 1 | EM 2 |')
  assert lines[1].startswith('| 0 | 0.001 | 0 | done | 1.5 | 0.000 [-0.196–0.196] | 1.500 [')
  assert lines[4] == '| 3 | 0.0001 | 1 | waiting | – | – | – | – | – |'
  assert '![figures/a.png](figures/a.png)' in text


def test_html_is_escaped(tmp_path):
  points = named(sweep('init', ['<b>', 'y']))
  made.define(tmp_path, points)
  text = results.table(results.collect(tmp_path))
  assert '&lt;b&gt;' in text and '<b>' not in text


def test_json_has_everything(collected):
  said = json.loads(results.as_json(collected))
  assert said['commands'] == ['train', 'evaluate'] and said['final_is'] == 'EM per question'
  first = said['points'][0]
  assert first['overrides'] == {'optim.policy_lr': '0.001', 'seed': '0'}
  assert first['state'] == 'done' and first['minutes'] == 1.5
  assert first['numbers']['reward_last']['mean'] == 1.5 and said['points'][3]['final'] is None


def test_without_evaluation_points_are_compared_by_what_training_says(tmp_path):
  points = POINTS[:2]
  made.define(tmp_path / 'ppo', points, ('train',))
  made.write_ppo(folder_of(tmp_path / 'ppo', points[0]) / 'train', [1.0, 2.0], error=0.0)
  found = results.collect(tmp_path / 'ppo')
  assert found.final == 'reward, last quarter' and found.rows[0].final == Estimate(2.0)
  made.define(tmp_path / 'sft', points, ('sft',))
  made.write_sft(folder_of(tmp_path / 'sft', points[0]) / 'sft', [4.0, 3.0, 2.0, 1.0])
  found = results.collect(tmp_path / 'sft')
  assert found.final == 'loss, last quarter' and found.curve == 'loss'
  assert found.rows[0].numbers == {'loss_first': Estimate(4.0), 'loss_last': Estimate(1.0)}


def test_a_shop_s_points_are_compared_by_reward(tmp_path):
  made.define(tmp_path, POINTS[:2])
  made.write_point(tmp_path, POINTS[0], sizes=(1,))
  place = folder_of(tmp_path, POINTS[0]) / 'evaluate'
  for file in (place / 'mem1-1.jsonl',):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
      line['score']['reward'] = 0.25
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  found = results.collect(tmp_path)
  assert found.final == 'reward in evaluation' and found.rows[0].final.mean == 0.25
  assert found.columns[-2:] == ['reward_1', 'em_1'] and results.heading('reward_1') == 'reward 1'


def test_a_run_that_is_going_on_has_no_number_that_was_not_finite(tmp_path):
  made.define(tmp_path, POINTS)
  run = folder_of(tmp_path, POINTS[0]) / 'train'
  made.write_ppo(run, [1.0, None, 2.0])
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "rew')
  assert results.collect(tmp_path).rows[0].curve == ((1, 1.0), (3, 2.0))
  assert folder.status(tmp_path, POINTS[0]).state == 'waiting'
