"""report/paper.py: the figures agree with the sentences that the paper writes about them."""

from mem1_jax.report import paper


def value(agent, objectives, metric, domain='multi-objective QA'):
  (row,) = [row for row in paper.ROWS
            if (row.agent, row.objectives, row.domain) == (agent, objectives, domain)]
  return row.values[metric]


def test_em_per_question_is_em_by_questions():
  found = [round(100 * value('MEM1-7B', n, 'em_per_question')) for n in (2, 8, 16)]
  assert found == [35, 23, 12]


def test_the_abstract_s_factors_at_sixteen_objectives():
  ours, theirs = 'MEM1-7B', '14B, full context'
  assert round(value(ours, 16, 'em') / value(theirs, 16, 'em'), 1) == 3.5
  assert round(value(theirs, 16, 'peak_tokens') / value(ours, 16, 'peak_tokens'), 1) == 3.7


def test_what_the_paper_does_not_give_is_missing_and_the_caveat_says_not_comparable():
  assert all(v is not None for row in paper.ROWS for v in row.values.values())
  assert 'not comparable' in paper.CAVEAT and paper.SOURCE in paper.CAVEAT
