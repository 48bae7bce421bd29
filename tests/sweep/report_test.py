"""The report of a sweep's folder, whole and from nothing."""

import json
import re

import pytest

from mem1_jax.sweep import report
from mem1_jax.sweep.points import named, sweep
from tests.sweep import made

POINTS = named(sweep('optim.policy_lr', [1e-3, 1e-4]))


def test_the_page_has_the_table_the_figures_and_every_point_s_runs(tmp_path):
  made.define(tmp_path, POINTS)
  for point in POINTS:
    made.write_point(tmp_path, point)
  page = report.write(tmp_path).read_text()
  assert page.count('src="data:image/png;base64,') == len(list(tmp_path.glob('figures/*.png'))) == 2
  assert 'img-src data:;' in page and '<td>0.0001</td>' in page
  for point in POINTS:
    assert f'{point.name} · mem1' in page and f'>{point.name}<' in page
  assert 'class="claims"' not in page  # not those of each point
  assert json.loads((tmp_path / 'sweep.json').read_text())['points'][1]['state'] == 'done'
  shown = re.findall(r'!\[(.*?)\]', (tmp_path / 'sweep.md').read_text())
  assert all((tmp_path / name).exists() for name in shown) and len(shown) == 2


def test_a_sweep_that_has_not_begun_is_a_table_of_waiting_points(tmp_path):
  made.define(tmp_path, POINTS)
  assert report.write(tmp_path).read_text().count('<td>waiting</td>') == 2


def test_there_must_be_a_sweep(tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no sweep'):
    report.write(tmp_path)
