"""report/charts.py: points are where their numbers say, and text is text."""

import math
import re
from xml.etree import ElementTree

import pytest

from mem1_jax.report import charts

SVG = '{http://www.w3.org/2000/svg}'


def drawn(*series, **kwargs):
  return ElementTree.fromstring(charts.line_chart('title', series, 'x', **kwargs))


def series(*points, label='a', style=0):
  return charts.Series(label, style, tuple(charts.Point(*point) for point in points))


def ends(tree, kind):
  paths = [p.get('d') for p in tree.iter(f'{SVG}path') if kind in p.get('class', '').split()]
  return [[float(n) for n in re.findall(r'-?\d+\.?\d*', d)] for d in paths]


def test_points_lie_on_a_log_axis_from_zero():
  tree = drawn(series((1, 0.0), (2, 0.5), (4, 1.0)), is_log2=True)
  x1, y1, x2, y2, x4, y4 = ends(tree, 'line')[0]
  assert x2 - x1 == pytest.approx(x4 - x2, abs=0.2)  # equal factors, equal steps
  assert y1 == pytest.approx(charts.TOP + charts.PLOT_HEIGHT) and y4 == pytest.approx(charts.TOP)
  assert y2 == pytest.approx((y1 + y4) / 2)
  titles = [node.text for node in tree.iter(f'{SVG}title')]
  assert titles == ['a at 1: 0', 'a at 2: 0.5', 'a at 4: 1']


def test_an_interval_is_drawn_and_said():
  tree = drawn(series((1, 5.0, 4.0, 6.0), (2, 5.0)))
  ((_, low, high),) = ends(tree, 'bar')
  assert low > high  # y grows downwards
  assert [node.text for node in tree.iter(f'{SVG}title')][0] == 'a at 1: 5 (4–6)'


@pytest.mark.parametrize('low, high', [(0, 1), (0, 12.83), (0, 2626), (-0.2, 0.1), (1e-5, 3e-4),
                                       (5, 5), (0, 0)])
def test_ticks_are_round_and_span_the_values(low, high):
  found = charts.ticks(low, high)
  assert found[0] <= low + 1e-12 and found[-1] >= high - 1e-12 and 2 <= len(found) <= 8
  digits = {f'{found[1] - found[0]:e}'.split('e')[0].rstrip('0').rstrip('.')}
  assert digits <= {'1', '2', '2.5', '5'}


def test_many_points_are_averaged_and_few_left_alone():
  points = [(float(i), 2.0 * i) for i in range(1000)]
  found = charts.thinned(points)
  assert len(found) == 200 and found[0] == charts.Point(2.0, 4.0)
  assert charts.thinned(points[:3]) == tuple(charts.Point(*p) for p in points[:3])
  assert charts.thinned([]) == ()


def test_one_point_and_a_flat_line_can_be_drawn():
  for one in (series((3, 7.0)), series((1, 2.0), (2, 2.0)), series((1, 0.0))):
    text = charts.line_chart('t', [one], 'x', is_log2=True, is_from_zero=False)
    assert 'nan' not in text and 'inf' not in text


def test_labels_are_escaped_and_no_style_is_inline():
  text = charts.line_chart('<b>', [series((1, 1.0), label='<script>')], '&', is_file=True)
  ElementTree.fromstring(text)
  assert '<script>' not in text and '<b>' not in text and 'style=' not in text
  assert 'prefers-color-scheme' in text and 'prefers' not in charts.line_chart(
      't', [series((1, 1.0))], 'x')  # in the page its style is the page's


def test_no_point_is_refused():
  with pytest.raises(ValueError, match='leave it out'):
    charts.line_chart('t', [], 'x')


def test_numbers_read_well():
  assert [charts.number(v) for v in (0.0, 1250.0, 0.05, 3e-7, 16.0, 0.30000000000000004)] == [
      '0', '1,250', '0.05', '3e-07', '16', '0.3']
  assert math.isfinite(float(charts.number(2.5e8)))
