"""Records of trajectories for people; cells of an evaluation, and going on after a stop."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from mem1_jax import assemble, domains, evaluate, measures, partial_cell, types
from mem1_jax.agents import turns as turns_lib
from mem1_jax.memory import state
from mem1_jax.metrics import CompileCounter
from mem1_jax.report import console, page
from mem1_jax.types import Kind
from tests.tiny import tiny_config

PROMPT = types.Segment((10, 11, 12), (0, 1, 2), (Kind.PROMPT,) * 3)
QUESTIONS = (types.Question('q0', 'Capital?', ('Oslo',)), types.Question('q1', 'Code?', ('47',)))
TASK = types.Task('t', QUESTIONS, ('[bc]', '[hs]'), 'test')
EMPTY = types.Segment((), (), ())


class Letters:
  """A tokenizer that decodes each id as `iN ` (a fake)."""

  def decode(self, ids):
    return ''.join(f'i{i} ' for i in ids)


def episode(is_append_only, answer='Oslo; 46', lengths=(2, 3, 4)):
  """Writes 20 20, 40 40 40, …; is told 30 and 31."""
  turns = []
  for j, length in enumerate(lengths):
    if not j:
      context = state.first_context(PROMPT)
    else:
      last = turns[-1].written
      first = last.positions[-1] + 1 if is_append_only else 3
      context = state.carry(EMPTY if is_append_only else last, (29 + j,), first)
    first, is_last = context.segment.positions[-1] + 1, j + 1 == len(lengths)
    written = types.Segment((20 * (j + 1),) * length, tuple(range(first, first + length)),
                            (Kind.ACTION,) * length)
    kind = types.ActionKind.ANSWER if is_last else types.ActionKind.SEARCH
    turns.append(types.TurnRecord(context, written, (0.0,) * length, types.Action(kind, 'a'),
                                  types.Stop.TAG, float(is_last)))
  return types.Trajectory(TASK, PROMPT, tuple(turns), is_append_only, 0, answer, 2, 1.5)


def rereading():
  """Reads turn 0 and 1 again at turn 2, then turn 2 and something new, with turn 0 again."""
  whole = episode(False, lengths=(2, 3, 4, 1))
  first, second, third, last = whole.turns
  zero = second.context.segment
  two = state.carry(turns_lib.join([zero, second.written]), (31,), 3)
  three = state.carry(turns_lib.join([zero, third.written]), (32, 33), 3)
  turns = (first, second, dataclasses.replace(third, context=two),
           dataclasses.replace(last, context=three))
  return dataclasses.replace(whole, turns=turns)


def test_a_record_of_turns_that_are_read_again_drops_what_is_not():
  turns = evaluate.record(rereading(), Letters())['turns']
  zero, one, two = 'i20 i20 i30 ', 'i40 i40 i40 i31 ', 'i60 i60 i60 i60 '
  assert [turn['dropped'] for turn in turns] == ['', '', one, '']
  assert turns[2]['saw'] == 'i10 i11 i12 ' + zero + one
  assert turns[3]['saw'] == 'i10 i11 i12 ' + zero + two + 'i32 i33 '
  assert [turn['tokens_in_context'] for turn in turns] == [5, 9, 14, 13]


def test_a_record_tells_what_was_seen_and_dropped():
  record = evaluate.record(episode(False), Letters())
  first, second, third = record['turns']
  question = 'i10 i11 i12 '
  assert first['saw'] == question
  assert (first['wrote'], first['information'], first['dropped']) == ('i20 i20 ', 'i30 ', '')
  assert second['saw'] == question + 'i20 i20 i30 '
  assert (second['information'], second['dropped']) == ('i31 ', 'i20 i20 i30 ')
  assert third['saw'] == question + 'i40 i40 i40 i31 '
  assert (third['information'], third['dropped']) == ('', '')
  assert [turn['tokens_in_context'] for turn in record['turns']] == [5, 9, 11]
  assert third['action'] == {'kind': 'answer', 'text': 'a'}
  assert [q['label'] for q in record['task']['questions']] == ['[bc]', '[hs]']


def test_a_full_context_record_drops_nothing():
  record = evaluate.record(episode(True), Letters())
  assert [turn['dropped'] for turn in record['turns']] == ['', '', '']
  assert record['turns'][1]['saw'] == '[all of the above] i30 '
  assert record['turns'][0]['information'] == 'i30 '


@pytest.mark.parametrize('trajectory', [episode(False), episode(True), episode(False, None)])
def test_records_can_be_shown_and_written(trajectory, tmp_path):
  path = tmp_path / 'samples' / 'one.jsonl'
  evaluate.write_records(path, [trajectory, trajectory], Letters())
  lines = path.read_text().splitlines()
  assert len(lines) == 2
  out = io.StringIO()
  console.show(json.loads(lines[0]), to=Console(file=out, width=100))
  assert 'turn 3 · answer' in out.getvalue() and 'i40 i40 i40' in out.getvalue()


def test_a_record_is_shown_as_it_is_and_as_it_is_read_from_a_file():
  record = evaluate.record(episode(False), Letters())
  assert page.viewer([record]) == page.viewer([json.loads(json.dumps(record))])


@pytest.mark.parametrize('agent', ['truncation', 'threshold', 'amem'])
def test_a_baseline_is_evaluated_with_the_parameters_that_ship(agent, tmp_path):
  """Two questions each, at which more than the last turn is in view and never too much."""
  config = tiny_config()
  config.agent, config.init, config.model.name = agent, 'atlas/mem1', 'checkpoint'
  config.eval.objectives, config.eval.tasks, config.eval.max_tokens = (2,), 4, 72
  config.rollout.turn_capacity, config.rollout.context_capacity = 80, 200
  config.memory.budget, config.env.turns = 150, '5'
  cell = evaluate.run(config, tmp_path)['2']
  assert (cell['episodes'], cell['overflow'], cell['faults']) == (4, 0, 0)
  assert 2 < cell['turns'] <= 5 and cell['searches'] > 1 and cell['em'] <= 2
  assert 150 / 2 < cell['peak_tokens'] <= 200 + 72
  lines = [json.loads(line) for line in (tmp_path / f'{agent}-2.jsonl').read_text().splitlines()]
  assert max(turn['saw'].count('<information>') for line in lines for turn in line['turns']) > 1


def test_two_and_64_objectives_run_in_the_same_programs(tmp_path):
  config = tiny_config()
  config.rollout.question_capacity, config.env.turns = 1536, '4'
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = assemble.initial_params(config, policy)
  engine = assemble.make_engine(config, policy, tokenizer, is_append_only=False)
  evaluator = evaluate.Evaluator(config, engine, tokenizer, domains.make_environment(config))
  evaluator.run(params, 2, 'test', 4)
  compiles = CompileCounter()
  trajectories, stats = evaluator.run(params, 64, 'test', 4)
  assert compiles.names == [] and stats.num_overflow == 0
  assert min(len(t.prompt) for t in trajectories) > 800


def test_a_cell_that_another_process_claimed_is_left_to_it(tmp_path):
  config, asked = tiny_config(), []
  config.eval.tasks = 1
  first = evaluate.run(config, tmp_path, 'a', lambda n: asked.append(n) or n == 2)
  assert asked == [1, 2] and set(first) == {'2'}
  assert {'overflow', 'faults', 'search_queries', 'shown_cut_passages'} <= set(first['2'])
  assert set(evaluate.run(config, tmp_path, 'a', lambda n: n == 1)) == {'1', '2'}


def test_an_episode_without_a_turn_counts_like_any_other():
  nothing = dataclasses.replace(episode(False, None), turns=(), fault='endpoint: gone')
  measured = measures.measure(nothing)
  assert (measured['em'], measured['turns'], measured['answered']) == (0.0, 0, 0.0)
  assert (measured['peak_tokens'], measured['peak_tokens_with_question']) == (0, 3)
  record = evaluate.record(nothing, Letters())
  assert record['turns'] == [] and record['fault'] == 'endpoint: gone'
  assert measures.aggregate([nothing, episode(False)])['turns'] == 1.5


def stopped_after(monkeypatch, number):
  """Ends a run, as a signal would, once so many trajectories are written."""
  add = partial_cell.PartialCell.add

  def add_some(self, *arguments):
    if len(self.records) == number:
      raise KeyboardInterrupt
    add(self, *arguments)

  monkeypatch.setattr(partial_cell.PartialCell, 'add', add_some)


def without_seconds(path):
  cell = json.loads(path.read_text())
  lines = [json.loads(line) for line in path.with_suffix('.jsonl').read_text().splitlines()]
  for found in (cell, *(line['score'] for line in lines)):
    del found['seconds']
  return cell, lines


def test_a_run_that_is_resumed_has_the_records_of_one_that_was_not_disturbed(
    tmp_path, monkeypatch):
  config = tiny_config()
  config.eval.objectives, config.eval.tasks, config.env.turns = (2,), 6, '3'
  evaluate.run(config, tmp_path / 'whole')
  folder = tmp_path / 'resumed'
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stopped_after(patch, 2)
    evaluate.run(config, folder)
  partial, = folder.iterdir()
  assert partial.name == 'mem1-2.partial'
  with partial.open('a') as file:
    file.write('{"index": 5, "record": {"ta')
  config.seed = 1
  with pytest.raises(ValueError, match='mem1-2.partial was .* seed 0 there, 1 here'):
    evaluate.run(config, folder)
  config.seed, kept = 0, partial.read_text().splitlines()[1:3]
  evaluate.run(config, folder)
  want, got = (without_seconds(one / 'mem1-2.json') for one in (tmp_path / 'whole', folder))
  assert got[1] == want[1] and len(got[1]) == 6  # in the order of the tasks
  assert [got[1][json.loads(line)['index']]['task'] for line in kept] == [
      json.loads(line)['record']['task'] for line in kept]
  counted = [name for name in want[0] if name.startswith(('search_', 'shown_'))]
  assert {k: v for k, v in got[0].items() if k not in counted} == {
      k: v for k, v in want[0].items() if k not in counted}
  assert {file.name for file in folder.iterdir()} == {'mem1-2.json', 'mem1-2.jsonl'}
  config.seed = 1
  with pytest.raises(ValueError, match='mem1-2.json was .* seed 0 there, 1 here'):
    evaluate.run(config, folder)
