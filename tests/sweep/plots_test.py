"""Figures of a sweep: which there are, and what they show."""

import numpy as np
import pytest

from mem1_jax.sweep import plots, results
from mem1_jax.sweep.points import named, product, sweep, zipped
from tests.sweep import made


def collect(tmp_path, made_, sizes=(1,)):
  points = named(made_)
  made.define(tmp_path, points)
  for i, point in enumerate(points):
    made.write_point(tmp_path, point, seed=10 * i, sizes=sizes)
  return results.collect(tmp_path)


def test_two_knobs_and_seeds_have_curves_a_figure_each_and_a_heat_map(tmp_path):
  found = collect(tmp_path, product(sweep('optim.policy_lr', [1e-4, 1e-3]),
                                    sweep('critic', ['head', 'separate']), sweep('seed', [0, 1])))
  files = plots.write(tmp_path / 'figures', found)
  assert [file.stem for file in files] == [
      'curves', 'by_policy_lr', 'by_critic', 'by_seed', 'policy_lr_by_critic']
  assert all(file.read_bytes().startswith(b'\x89PNG') for file in files)


def test_lines_are_means_over_seeds_and_dots_are_points(tmp_path):
  found = collect(tmp_path, product(sweep('optim.policy_lr', [1e-3, 1e-4]), sweep('seed', [0, 1])))
  panel = plots.against(found, 'optim.policy_lr', found.rows).axes[0]
  means = [np.mean([row.final.mean for row in rows])
           for rows in (found.rows[2:], found.rows[:2])]  # numbers in order
  line = panel.lines[0]
  np.testing.assert_allclose(line.get_xdata(), [1e-4, 1e-3])
  np.testing.assert_allclose(line.get_ydata(), means)
  assert len(panel.lines) == 1 + 4 and panel.get_xscale() == 'log'
  assert panel.get_legend() is None


def test_each_setting_of_the_other_knobs_has_a_line_with_intervals(tmp_path):
  found = collect(tmp_path, product(sweep('ppo.epochs', [1, 2]), sweep('critic', ['a', 'b'])))
  panel = plots.against(found, 'ppo.epochs', found.rows).axes[0]
  assert [text.get_text() for text in panel.get_legend().get_texts()] == ['critic=a', 'critic=b']
  assert panel.get_xscale() == 'linear' and len(panel.lines) == 2 + 4


def test_values_that_are_no_numbers_stand_side_by_side(tmp_path):
  found = collect(tmp_path, sweep('data.objectives', [(1, 2), (1, 8), (1, 4)]))
  panel = plots.against(found, 'data.objectives', found.rows).axes[0]
  assert [text.get_text() for text in panel.get_xticklabels()] == ['(1, 2)', '(1, 8)', '(1, 4)']


def test_a_heat_map_has_the_first_knob_across_and_blanks_where_nothing_has_run(tmp_path):
  found = collect(tmp_path, product(sweep('ppo.epochs', [2, 1]), sweep('ppo.samples', [1, 3])))
  picture = plots.heat_map(found, 'ppo.epochs', 'ppo.samples', found.rows[:3])
  panel = picture.axes[0]
  values = panel.images[0].get_array()
  assert [text.get_text() for text in panel.get_xticklabels()] == ['1', '2']
  assert values[0, 0] == pytest.approx(found.rows[2].final.mean)
  assert values[0, 1] == pytest.approx(found.rows[0].final.mean)
  assert [text.get_text() for text in panel.texts][2] == '–'


def test_knobs_that_were_zipped_have_one_figure(tmp_path):
  found = collect(tmp_path, zipped(sweep('ppo.epochs', [1, 2]), sweep('ppo.samples', [1, 2])))
  files = plots.write(tmp_path / 'figures', found)
  assert [file.stem for file in files] == ['curves', 'by_epochs']
  before = [file.read_bytes() for file in files]
  (tmp_path / 'figures' / 'old.png').touch()
  assert before == [file.read_bytes() for file in plots.write(tmp_path / 'figures', found)]
  assert not (tmp_path / 'figures' / 'old.png').exists()


def test_many_points_are_drawn_without_a_legend(tmp_path):
  found = collect(tmp_path, sweep('seed', range(13)))
  panel = plots.curves(found).axes[0]
  assert len(panel.lines) == 26 and panel.get_legend() is None


def test_nothing_has_no_figure(tmp_path):
  made.define(tmp_path, named(sweep('seed', [0, 1])))
  assert plots.write(tmp_path / 'figures', results.collect(tmp_path)) == []
