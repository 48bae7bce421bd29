"""report/runs.py: everything in a run folder is found, and what does not agree is said."""

import json

import pytest

from mem1_jax.report import runs
from tests.report import synthetic


def test_cells_curves_and_origins_of_a_run(tmp_path):
  synthetic.write_run(tmp_path / 'quick', 10, (1, 2))
  found = runs.find([tmp_path / 'quick'])
  assert [(c.run, c.agent, c.objectives, len(c.records)) for c in found.cells] == [
      ('quick', agent, n, 10) for agent in ('full_context', 'mem1_ppo') for n in (1, 2)]
  em = found.cells[0].estimates['em']
  assert em.low <= em.mean <= em.high
  (curve,) = found.curves
  assert curve.run == 'quick/ppo' and len(curve.lines['reward']) == 40
  assert 'explained_variance' not in curve.lines and 'time' not in curve.lines  # null; no metric
  assert found.origins == ('quick/ppo: seed 3, commit abcdef012345, Linux, 2 CPU cores',)
  assert not found.problems


def test_means_without_trajectories_are_a_cell_without_intervals(tmp_path):
  synthetic.write_cell(tmp_path, 'mem1', synthetic.trajectories(4))
  (tmp_path / 'mem1-2.jsonl').unlink()
  (cell,) = runs.find([tmp_path]).cells
  assert (cell.agent, cell.objectives, cell.records) == ('mem1', 2, ())
  assert cell.estimates['em'].low is None


def test_means_that_are_not_those_of_the_trajectories_are_said(tmp_path):
  synthetic.write_cell(tmp_path, 'mem1', synthetic.trajectories(5))
  path = tmp_path / 'mem1-2.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'em': 1.99, 'episodes': 6}))
  problems = runs.find([tmp_path]).problems
  assert len(problems) == 2 and 'mem1-2.json has episodes 6 and its trajectories 5' in problems[0]


def test_runs_of_one_name_are_told_apart_and_so_are_folders_in_one(tmp_path):
  for where in ('a/eval', 'b/eval'):
    synthetic.write_cell(tmp_path / where, 'mem1', synthetic.trajectories(2))
  both = runs.find([tmp_path / 'a' / 'eval', tmp_path / 'b' / 'eval'])
  assert [cell.run for cell in both.cells] == ['a/eval', 'b/eval']
  assert [cell.run for cell in runs.find([tmp_path]).cells] == [
      f'{tmp_path.name}/a/eval', f'{tmp_path.name}/b/eval']


def test_samples_of_training_are_in_no_table(tmp_path):
  samples = tmp_path / 'samples'
  samples.mkdir()
  (samples / 'iteration-00010.jsonl').write_text(json.dumps(synthetic.trajectories(1)[0]))
  (cell,) = runs.find([tmp_path]).cells
  assert cell.is_sample and cell.agent == 'iteration-00010'
  assert not runs.find([tmp_path]).evaluated


def test_a_file_with_tasks_of_several_sizes_is_several_cells(tmp_path):
  mixed = synthetic.trajectories(3, 1) + synthetic.trajectories(2, 4)
  path = tmp_path / 'mine-2.jsonl'
  path.write_text(''.join(json.dumps(record) + '\n' for record in mixed))
  found = runs.find([path])
  assert [(c.agent, c.objectives, len(c.records)) for c in found.cells] == [
      ('mine-2', 1, 3), ('mine-2', 4, 2)]


def test_broken_lines_of_a_curve_are_counted_and_large_folders_passed_over(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.0}\n{"loss": 1}\n{"step": 2, "lo')
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'checkpoints' / 'x.jsonl').write_text('{"turns": 1}')
  found = runs.find([tmp_path])
  assert found.curves[0].lines == {'loss': [(1, 2.0)]}
  assert ['line 2' in found.problems[0], 'line 3' in found.problems[1]] == [True, True]


def test_where_there_is_nothing_the_error_says_what_was_looked_for(tmp_path):
  (tmp_path / 'corpus.jsonl').write_text('{"contents": "x"}\n')
  with pytest.raises(ValueError, match='nothing to report.*main evaluate'):
    runs.find([tmp_path])
  with pytest.raises(FileNotFoundError, match='name a run folder'):
    runs.find([tmp_path / 'missing'])
