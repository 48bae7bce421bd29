"""report/plots.py: what is drawn is what was measured."""

import numpy as np
import pytest

from mem1_jax.report import plots

AGENTS = {
    'mem1_ppo': {
        n: {'em': 0.8 * int(n), 'em_per_question': 0.8, 'peak_tokens': 100.0,
            'peak_tokens_with_question': 100.0 + 20 * int(n)}
        for n in ('1', '16', '2', '4', '8')
    },
    'full_context': {
        n: {'em': 0.9, 'em_per_question': 0.9 / int(n), 'peak_tokens': 50.0 * int(n),
            'peak_tokens_with_question': 70.0 * int(n)}
        for n in ('1', '2')
    },
}  # fmt: skip


def lines(panel):
  return {line.get_label(): line.get_xydata().tolist() for line in panel.get_lines()}


def test_exact_match_draws_every_cell_in_order():
  left, right = plots.exact_match(AGENTS).axes
  name = 'constant memory, after PPO'
  assert lines(left)[name] == [[n, pytest.approx(0.8 * n)] for n in (1, 2, 4, 8, 16)]
  assert lines(right)['full context'] == [[1, 0.9], [2, 0.45]]
  assert left.get_xlabel()
  assert left.get_ylabel() != right.get_ylabel()
  assert right.get_ylim()[0] == 0  # no cut axis that makes a difference look larger


def test_peak_tokens_panels_share_their_scale():
  left, right = plots.peak_tokens(AGENTS).axes
  assert left.get_ylim() == right.get_ylim()
  assert lines(left)['full context'] == [[1, 50.0], [2, 100.0]]
  assert lines(right)['full context'] == [[1, 70.0], [2, 140.0]]


def test_smoothed_is_a_centred_mean():
  values = np.arange(41.0)
  smooth = plots.smoothed(values)  # window 5
  np.testing.assert_allclose(smooth[2:-2], values[2:-2])
  assert smooth[0] == 1.0  # mean of 0, 1, 2
  np.testing.assert_array_equal(plots.smoothed([3.0, 5.0]), [3.0, 5.0])


def test_ppo_curve_draws_em_only_where_there_is_one():
  assert len(plots.ppo_curve({'step': [1, 2], 'reward': [0.0, 1.0]}).axes) == 1
  assert len(plots.ppo_curve({'step': [1], 'reward': [0.0], 'em': [0.0]}).axes) == 2


def test_a_short_ppo_curve_has_no_running_mean():
  short, long = (plots.ppo_curve({'step': list(range(n)), 'reward': list(range(n))}).axes[0]
                 for n in (19, 20))
  assert len(short.get_lines()) == 1 and short.get_legend() is None
  assert set(lines(long)) == {'step', 'running mean'}


def test_sft_curve_of_both_agents():
  curves = {a: {'step': [1, 2], 'loss': [2.0, 0.5]} for a in ('mem1', 'full_context')}
  (panel,) = plots.sft_curve(curves).axes
  assert set(lines(panel)) == {'constant memory', 'full context'}
  assert panel.get_yscale() == 'log'


@pytest.mark.parametrize(
    ('curves', 'message'),
    [
        ({'grpo': {}}, 'unknown names'),
        ({'sft': {'mem2': {}}}, 'unknown names'),
        ({'ppo': {'step': [1]}}, r"lacks \['reward'\]"),
        ({'sft': {'mem1': {'step': [1, 2], 'loss': [1.0]}}}, 'lengths'),
    ],
)
def test_malformed_curves_are_refused(tmp_path, curves, message):
  with pytest.raises(ValueError, match=message):
    plots.write_figures(tmp_path, {}, curves)


def test_files_are_png_and_reproducible(tmp_path):
  first = plots.write_figures(tmp_path / 'a', AGENTS, {})
  second = plots.write_figures(tmp_path / 'b', AGENTS, {})
  assert [path.name for path in first] == ['exact_match.png', 'peak_tokens.png']
  for one, other in zip(first, second, strict=True):
    assert one.read_bytes().startswith(b'\x89PNG')
    assert one.read_bytes() == other.read_bytes()
