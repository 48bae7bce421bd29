"""The PPO loop: resumes bit for bit, compiles once, explains its folder."""

import json

import jax
import numpy as np
import pytest

from mem1_jax import domains, train
from mem1_jax.data import verl
from mem1_jax.types import (Action, ActionKind, Context, Kind, Question, Segment, Stop, Task,
                            Trajectory, TurnRecord)
from tests.tiny import tiny_config


_EMPTY = Segment((), (), ())


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of four iterations, and one that is stopped after two and resumed."""
  folder = tmp_path_factory.mktemp('runs')
  whole = train.run(tiny_config(), folder / 'whole')
  half = tiny_config()
  half.ppo.iterations = 2
  train.run(half, folder / 'resumed')
  resumed = train.run(tiny_config(), folder / 'resumed', is_resumed=True)
  return folder, whole, resumed


def test_a_resumed_run_ends_with_the_same_bits(trained):
  _, whole, resumed = trained
  assert whole.iteration == resumed.iteration == 4
  assert whole.next_index == resumed.next_index == 16
  jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)


def test_training_moves_the_parameters_but_not_the_reference(trained):
  _, whole, _ = trained
  start = train.build(tiny_config())
  jax.tree.map(np.testing.assert_array_equal, whole.reference, start.reference)
  moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), whole.state.policy,
                       start.state.policy)
  assert all(jax.tree.leaves(moved))


def test_nothing_is_compiled_after_the_first_iteration(trained):
  folder, _, _ = trained
  lines = [json.loads(line) for line in (folder / 'whole/metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert lines[-1]['recompiles'] == 0
  for name in ('search_queries', 'search_cache_hits', 'shown_passages', 'shown_cut_passages'):
    assert all(line[name] >= 0 for line in lines)  # what its world counts


def test_metrics_of_a_resumed_run_are_those_of_the_whole(trained):
  folder, _, _ = trained
  read = lambda run: [json.loads(line) for line in (folder / run / 'metrics.jsonl').open()]
  for whole, resumed in zip(read('whole'), read('resumed'), strict=True):
    for name in ('reward', 'kl', 'policy_loss', 'value_loss', 'rollout_turns'):
      assert whole[name] == resumed[name], (whole['step'], name)


def test_sampler_and_learner_agree_in_the_loop(trained):
  folder, _, _ = trained
  for line in (folder / 'whole/metrics.jsonl').open():
    assert json.loads(line)['logprob_gap_max'] < 1e-3


def test_nothing_is_learned_from_an_episode_whose_environment_failed(trained):
  _, whole, _ = trained
  task = Task('t', (Question('q', 'a?', ('b',)),), ('[kf]',), 'test')
  prompt = Segment((3,) * 4, tuple(range(4)), (Kind.PROMPT,) * 4)

  def trajectory(num, fault=''):
    written = Segment((5,) * num, tuple(range(4, 4 + num)), (Kind.STATE,) * num)
    turn = TurnRecord(Context(_EMPTY), written, (-1.0,) * num, Action(ActionKind.MALFORMED, ''),
                      Stop.TAG, 1.0)
    return Trajectory(task, prompt, (turn,), False, fault=fault)

  state = jax.tree.map(np.asarray, whole.state)  # an update donates it
  metrics = train.learn(whole, [trajectory(3), trajectory(7, 'TimeoutError: down')])
  whole.state = jax.device_put(state, whole.shardings.state)
  assert metrics['num_tokens'] == 3


def test_the_folder_explains_itself(trained):
  folder, _, _ = trained
  names = {path.name for path in (folder / 'whole').iterdir()}
  assert {'run.json', 'config.txt', 'README.txt', 'metrics.jsonl', 'checkpoints', 'samples'} <= names


def test_a_finished_folder_is_not_overwritten(trained):
  folder, _, _ = trained
  with pytest.raises(FileExistsError, match='--resume'):
    train.run(tiny_config(), folder / 'whole')


def test_another_seed_cannot_resume(trained):
  folder, _, _ = trained
  config = tiny_config()
  config.seed, config.rollout.question_capacity = 1, 96  # its questions are longer
  with pytest.raises(ValueError, match='seed 0, not 1'):
    train.run(config, folder / 'whole', is_resumed=True)


def test_tasks_of_a_file_are_trained_on_as_they_are(tmp_path):
  config = tiny_config()
  for split, count in (('train', 8), ('validation', 4)):
    config.data.split = split
    verl.write_tasks(tmp_path / f'{split}.jsonl',
                     domains.make_training_composer(config).tasks(range(count)), split)
  config.data.split, config.data.objectives = 'train', ()
  config.data.source, config.env.documents = f'verl:{tmp_path}/train.jsonl', 'atlas'
  config.ppo.iterations = config.eval.every = 2
  with pytest.raises(ValueError, match="no task of split 'validation' with 2 questions, but 4 of "):
    train.build(config)  # and not after the first iterations
  config.data.source += f',verl:{tmp_path}/validation.jsonl'
  trainer = train.run(config, tmp_path / 'run')
  assert trainer.iteration == 2 and trainer.next_index == 8
  last = json.loads((tmp_path / 'run/metrics.jsonl').read_text().splitlines()[-1])
  assert 'eval_turns' in last
