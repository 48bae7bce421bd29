"""report/layouts.py: toys are what the layouts draw, and pictures show what the mask says."""

from matplotlib import colors
import numpy as np
import pytest

from mem1_jax import measures
from mem1_jax.memory import layout
from mem1_jax.ops import masks
from mem1_jax.report import layouts


def visible(columns):
  return np.asarray(masks.visible_BSS(columns['key_end'][None])[0])


def test_a_toy_is_the_drawing_of_the_exact_layout():
  row = layout.lay_out(layouts.toy(3))
  assert row['tokens'].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 6, 7, 8, 9, 10]
  assert row['position'].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7]
  assert row['key_end'].tolist() == [15] * 3 + [5] * 2 + [10] * 5 + [15] * 5
  assert row['is_generated'].nonzero()[0].tolist() == [3, 4, 8, 9, 13, 14]


def test_a_toy_stitched_and_append_only_has_each_token_once():
  stitched = layout.lay_out(layouts.toy(3), 'stitched')
  full = layout.lay_out(layouts.toy(3, is_append_only=True))
  for row in (stitched, full):
    assert row['tokens'].tolist() == list(range(11))
    assert row['position'].tolist() == list(range(11))
  assert stitched['key_end'].tolist() == [11] * 3 + [9] * 3 + [11] * 5
  assert full['key_end'].tolist() == [11] * 11


def test_a_toy_of_nothing_is_refused():
  with pytest.raises(ValueError, match='0 told in a turn needs numbers ≥ 1'):
    layouts.toy(2, information=0)


def test_cells_say_who_wrote_them():
  row = layout.lay_out(layouts.toy(2))
  assert layouts.labels(row) == ['q'] * 3 + ['g0'] * 2 + ['c1'] * 2 + ['i'] + ['g1'] * 2
  assert layouts.sorts(row)[3:] == ['think', 'action', 'copy', 'copy', 'information', 'think',
                                    'action']


def test_rows_write_every_number():
  row = layout.lay_out(layouts.toy(2))
  (panel,) = layouts.rows({'exact': row}).axes
  texts = [text.get_text() for text in panel.texts]
  assert panel.get_title('left') == 'exact'
  assert texts[3::4] == [str(end) for end in row['key_end']]
  assert texts[2::4] == [str(position) for position in row['position']]
  with pytest.raises(ValueError, match='a row of 75 tokens has no room'):
    layouts.rows({'exact': layout.lay_out(layouts.toy(15))})


def test_a_mask_is_coloured_where_it_is_visible_alone():
  row = layout.lay_out(layouts.toy(3))
  mask = visible(row)
  (panel,) = layouts.masks({'exact': (row, mask)}).axes
  image = np.asarray(panel.images[0].get_array())
  hidden = [np.array(colors.to_rgb(color)) for color in ('white', layouts._SEEN_BY_NOBODY)]
  is_coloured = ~np.any([np.isclose(image, color).all(-1) for color in hidden], axis=0)
  np.testing.assert_array_equal(is_coloured, mask)
  np.testing.assert_allclose(image[7, 5], colors.to_rgb(layouts.SORTS['copy'][1]))
  assert panel.get_title('left') == 'exact: 15 tokens\n75 pairs, 62% of a causal mask'
  assert mask.sum() == 75


def test_pairs_are_drawn_on_two_log_scales():
  (panel,) = layouts.pairs([1, 2], {'exact': [3, 5], 'another': [4, 6]}).axes
  assert [line.get_ydata().tolist() for line in panel.get_lines()] == [[3, 5], [4, 6]]
  assert (panel.get_xscale(), panel.get_yscale()) == ('log', 'log')


@pytest.mark.parametrize('is_append_only', [False, True])
def test_bars_are_the_tokens_that_evaluation_counts(is_append_only):
  trajectory = layouts.toy(4, 5, 4, 3, is_append_only)
  counts = layouts.turn_tokens(trajectory)
  assert sum(counts.values()).tolist() == [sum(pair) for pair in measures.contexts(trajectory)]
  assert counts['information'].tolist() == ([0, 3, 6, 9] if is_append_only else [0, 3, 3, 3])
  assert counts['copy'].tolist() == ([0, 4, 8, 12] if is_append_only else [0, 4, 4, 4])
  left, right = layouts.turns({'a': trajectory, 'b': trajectory}).axes
  assert left.get_ylim() == right.get_ylim()
  assert len(left.patches) == 4 * len(layouts.SORTS)


