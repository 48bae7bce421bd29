"""report/results.py: what is claimed follows from the cells, and void claims say so."""

import dataclasses

import pytest

from mem1_jax.report import intervals, results, runs


def cell(agent, objectives, em, peak=100.0, run='r', **more):
  half = 0.1 * em
  values = {'em': (em, half), 'em_per_question': (em / objectives, half / objectives),
            'reward': (em, half), 'peak_tokens': (peak, 5.0)}
  values |= {name: (value, 0.0) for name, value in more.items()}
  return runs.Cell(run, agent, objectives, {
      name: intervals.Estimate(mean, mean - d, mean + d) for name, (mean, d) in values.items()})


def found(*cells, **more):
  return runs.Found(tuple(cells), **more)


MEMORY = (cell('mem1_ppo', 2, 1.8), cell('mem1_ppo', 16, 12.0, 360.0))


def test_the_headline_is_of_the_largest_tasks():
  claims = results.claims(found(*MEMORY, cell('full_context', 2, 1.75),
                                cell('full_context', 16, 1.0, 2628.0)))
  assert [claim.number for claim in claims] == ['12 / 16', '83%', '97%', '7.3×']
  assert '360 (355–365) against 2628' in claims[-1].text and '12 (10.8–13.2)' in claims[0].text
  assert not any(claim.is_void for claim in claims)


def test_a_weak_full_context_agent_makes_the_comparison_void():
  claims = results.claims(found(*MEMORY, cell('full_context', 2, 1.2),
                                cell('full_context', 16, 1.0, 2628.0)))
  assert claims[-1].is_void and 'void' in claims[-2].text
  assert '**void: 7.3×**' in results.markdown(found(*MEMORY, cell('full_context', 2, 1.2),
                                                    cell('full_context', 16, 1.0, 2628.0)))


def test_only_answers_to_the_same_tasks_are_compared():
  def asked(text, one):
    record = {'task': {'questions': [{'text': text}]}}
    return dataclasses.replace(one, records=(record,))

  memory, full = cell('mem1', 2, 1.8), cell('full_context', 2, 1.75, 300.0, run='other')
  assert len(results.claims(found(memory, full))) == 1  # another run, and nothing says what it was
  same = results.claims(found(asked('Who?', memory), asked('Who?', full)))
  assert [claim.number for claim in same] == ['1.8 / 2', '97%', '3.0×']
  assert len(results.claims(found(asked('Who?', memory), asked('What?', full)))) == 1


def test_the_comparison_is_at_the_most_that_both_were_asked():
  (*_, claim) = results.claims(found(*MEMORY, cell('full_context', 2, 1.75, 300.0)))
  assert claim.number == '3.0×' and 'at 2 objectives' in claim.text


def test_reward_of_training_is_of_its_first_and_last_quarter():
  curve = runs.Curve('ppo', {'reward': [(i, float(i >= 4)) for i in range(8)]})
  (claim,) = results.claims(found(curves=(curve,)))
  assert claim.number == '0.00 → 1.00' and '8 iterations' in claim.text


def test_the_better_of_two_agents_speaks():
  cells = (cell('mem1_sft', 2, 1.0), cell('mem1_ppo', 2, 1.5), cell('mem1_old', 1, 1.0))
  assert results.claims(found(*cells))[0].number == '1.5 / 2'


def test_labels_have_the_run_only_where_there_are_several():
  one, two = cell('mem1_ppo', 2, 1.0), cell('mine', 2, 1.0, run='s')
  assert results.label(one, found(one)) == 'constant memory, after PPO'
  assert results.label(two, found(one, two)) == 's · mine'


def test_reward_is_a_column_only_where_it_is_not_em():
  of = results.rows(found(cell('mem1', 1, 0.5)))
  assert results.columns(('em', 'reward', 'seconds'), of) == ['em']
  shop = results.rows(found(cell('mem1', 1, 0.5, reward=0.7)))
  assert results.columns(('em', 'reward'), shop) == ['em', 'reward']


def test_rows_stand_side_by_side_by_number_of_objectives():
  cells = [cell(agent, n, 1.0) for agent in ('mem1', 'full_context') for n in (8, 2)]
  rows = results.rows(found(*cells))
  assert [row.objectives for row in rows] == [2, 2, 8, 8]
  assert rows[0].label != rows[1].label


@pytest.mark.parametrize('estimate, text', [
    (None, ('–', '')), (intervals.Estimate(1.5), ('1.500', '')),
    (intervals.Estimate(1.5, 1.25, 1.75), ('1.500', '1.250–1.750'))])
def test_values_have_their_intervals(estimate, text):
  assert results.value(estimate, 'em') == text


def test_markdown_has_tables_the_paper_and_problems_and_names_are_text():
  text = results.markdown(found(*MEMORY, cell('a|b*c', 2, 1.0), origins=('r: seed 0',),
                                problems=('x.jsonl, line 3: <b>',)), ('figures/em.svg',))
  for part in ('| 16 | constant memory, after PPO | 12.000 [10.800–13.200] |', 'a\\|b\\*c',
               'not comparable', '| 16 | MEM1-7B (multi-objective QA) | 1.970 |', 'seed 0',
               'line 3: \\<b\\>', '![em](figures/em.svg)'):
    assert part in text, part
  widths = {line.count('|') - line.count('\\|') for line in text.split('## For')[1].splitlines()
            if line.startswith('|')}
  assert len(widths) == 1
