"""Cells: their tasks, what they depend on, their means, and the files they are."""

import dataclasses
import json

import pytest

from mem1_jax import cells
from mem1_jax.configs import base


def make_config(**knobs):
  c = base.get_config()
  c.init = 'atlas/mem1'
  for name, value in knobs.items():
    group, _, leaf = name.partition('__')
    c[group][leaf] = value
  return c


def test_0_tasks_are_all_questions_once_and_none_is_asked_alone_twice():
  num = len(cells.make_jobs(make_config(eval__tasks=0), 1))
  asked = [job.task.questions[0].id for job in cells.make_jobs(make_config(eval__tasks=10**5), 1)]
  assert len(asked) == num == len(set(asked)) > 1000
  assert len(cells.make_jobs(make_config(eval__tasks=0), 4)) == num // 4
  many = cells.make_jobs(make_config(eval__tasks=num), 4)  # questions come again, in other company
  assert [job.index for job in many] == list(range(num))
  mixed = make_config(eval__tasks=0, data__source='atlas,atlas')
  with pytest.raises(ValueError, match="eval.tasks 0 .* 'atlas,atlas' does not"):
    cells.make_jobs(mixed, 2)


def test_what_numbers_depend_on():
  found = cells.made_by(make_config(), None)
  assert found['agent'] == 'mem1' and found['eval.tasks'] == 100 and len(found['parameters']) == 32
  same = cells.made_by(make_config(ppo__clip=0.3, mesh__data=-1, eval__num_slots=7, eval__objectives=(7,)), None)
  assert same == found
  other = cells.made_by(make_config(env__top_k=3), None)
  assert {name for name in found if found[name] != other[name]} == {'env.top_k'}
  served = cells.made_by(make_config(), {'model': 'm'})
  assert served['endpoint'] == {'model': 'm'}
  assert not {'init', 'parameters', 'model.name'} & served.keys()
  json.dumps([found, served])


def test_a_digest_tells_other_tasks_under_an_old_name():
  jobs = cells.make_jobs(make_config(eval__tasks=3), 2)
  question = dataclasses.replace(jobs[2].task.questions[0], answers=('other',))
  task = dataclasses.replace(jobs[2].task, questions=(question, jobs[2].task.questions[1]))
  other = [*jobs[:2], dataclasses.replace(jobs[2], task=task)]
  assert cells.digest(jobs) == cells.digest(cells.make_jobs(make_config(eval__tasks=3), 2))
  assert len({cells.digest(some) for some in (jobs, other, jobs[:2])}) == 3


def test_means_are_of_what_all_have():
  assert cells.means([{'em': 1.0, 'judged': 1.0}, {'em': 0.0}]) == {'em': 0.5, 'episodes': 2}


def test_a_cell_is_written_with_its_trajectories(tmp_path):
  question = {'label': '[bc]', 'text': 'Capital?', 'answers': ['Oslo']}
  record = {'task': {'questions': [question | {'id': 'atlas/test/heldout/1'}]}, 'answer': 'Oslo',
            'score': {'em': 1.0}, 'outgrew': False, 'fault': ''}
  wrong = record | {'answer': 'Rome', 'score': {'em': 0.0}, 'outgrew': True, 'fault': 'gone'}
  path = tmp_path / 'mem1-1.json'
  cells.write(path, [record, wrong], {'made_by': {'seed': 0}})
  assert json.loads(path.read_text()) == {
      'em': 0.5, 'episodes': 2, 'em_held_out_wording': 0.5, 'overflow': 1, 'faults': 1,
      'made_by': {'seed': 0}}
  lines = path.with_suffix('.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [record, wrong]
  assert {file.suffix for file in tmp_path.iterdir()} == {'.json', '.jsonl'}
  cells.check_whole(path, {'seed': 0})
  with pytest.raises(ValueError, match='seed 0 there, 1 here'):
    cells.check_whole(path, {'seed': 1})
