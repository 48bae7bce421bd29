"""What each of several processes does in multihost_test.py: `python -m … SCENARIO FOLDER`.

Every assertion is made on every process. Environment variables say which process it is, as they
do in runs that are started by hand.
"""

import json
import pathlib
import sys

import jax

from mem1_jax.parallel import multihost

if __name__ == '__main__':
  multihost.initialize()  # before the imports below make an array
jax.config.update('jax_numpy_rank_promotion', 'raise')

import numpy as np  # noqa: E402

from mem1_jax import evaluate, sft, train  # noqa: E402
from mem1_jax.env import qa  # noqa: E402
from mem1_jax.parallel import sharding  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from mem1_jax.rollout import collect  # noqa: E402
from mem1_jax.rollout.collect import Collector  # noqa: E402
from mem1_jax.rollout.sampling import sampling  # noqa: E402
from tests.parallel import programs  # noqa: E402
from tests.rollout import collect_test, fakes  # noqa: E402
from tests.tiny import tiny_config  # noqa: E402


def helpers(folder):
  """Rows and objects of two processes with two devices each."""
  del folder
  me = jax.process_index()
  split, shared = (sharding.rows(make_mesh(MeshConfig(*sizes)), 4)
                   for sizes in ((4, 1, 1), (1, 2, 2)))
  # (1, 2, 2): rows 0 and 1 are on the two devices of process 0
  assert multihost.owners(split, 4).tolist() == [0, 0, 1, 1]
  assert multihost.own_rows(split, 4) == [2 * me, 2 * me + 1]
  across = make_mesh(MeshConfig(1, 2, 2), sorted(jax.devices(), key=lambda d: d.id % 2))
  across = sharding.rows(across, 4)
  assert shared.num_devices == 4 and multihost.owners(across, 4).tolist() == [0] * 4
  whole = sharding.whole(across.mesh)
  assert multihost.owners(whole, 3).tolist() == [0] * 3
  rows = {'x': np.arange(8).reshape(4, 2) + 100 * me, 'y': np.arange(4.0) + 100 * me}
  for where in (split, shared, across, whole):
    owner = multihost.owners(where, 4)
    placed = multihost.put_rows(rows, where)
    assert placed['y'].sharding == where
    np.testing.assert_array_equal(multihost.fetch(placed['y']), np.arange(4) + 100 * owner)
    np.testing.assert_array_equal(
        multihost.fetch(placed['x']), np.arange(8).reshape(4, 2) + 100 * owner[:, None])
    own = multihost.own_rows(where, 4)
    np.testing.assert_array_equal(multihost.fetch_rows(placed)['y'][own], rows['y'][own])
  key = multihost.put(jax.random.key(3), whole)
  np.testing.assert_array_equal(jax.random.key_data(key).addressable_data(0),
                                jax.random.key_data(jax.random.key(3)))
  try:
    make_mesh(MeshConfig(1, 1, 1))
    raise AssertionError('a mesh without the devices of process 1')
  except ValueError as error:
    assert 'uses 1 of 4 devices, none of processes [1]; set a size to -1' in str(error)
  long = b'x' * (multihost._CHUNK_BYTES * 2 * me + me)  # one chunk, and three
  with jax.transfer_guard('disallow'):
    assert multihost.gather((me, long)) == [
        (0, b''), (1, b'x' * (multihost._CHUNK_BYTES * 2 + 1))]
    assert multihost.gather(None) == [None, None]
  multihost.barrier()


def ppo_step(folder):
  """One PPO step on fixed trajectories on 2x2x2; multihost_test.py compares it with one device."""
  state, metrics = programs.ppo_step(programs.ppo(2, 2, 2))
  leaves = [multihost.fetch(x) for x in jax.tree.leaves(state)]
  if multihost.is_main():
    np.savez(folder / 'state.npz', *leaves)
    np.savez(folder / 'metrics.npz', **metrics)


def uneven(folder):
  """The episodes of one process end at once, those of the other go on: none waits for ever."""
  del folder
  mesh = make_mesh(MeshConfig(-1, 1, 1))
  engine = fakes.engine(fakes.Chain(mesh=mesh), num_slots=2)
  params = multihost.put(np.asarray(collect_test.SEARCH), sharding.whole(mesh))
  begun = []

  def begin(task):  # the jobs with an even number are those of process 0
    begun.append(int(task.id[1:]))
    turns = 9 if begun[-1] % 2 else 1
    return qa.QAEpisode(task, collect_test.Shelf(), qa.QAConfig(1, 50, None, max_turns=turns))

  def run(begin, on_done=lambda _: None):
    collector = Collector(
        engine, collect_test.Reader(), begin, fakes.VOCABULARY, 0, has_gaps=False)
    return collector.run(params, [collect_test.job(i) for i in range(5)],
                         sampling(is_greedy=True, max_tokens=8), on_done=on_done)

  heard = []
  trajectories, stats = run(begin, heard.append)
  assert begun == ([0, 2, 4], [1, 3])[jax.process_index()]
  assert [len(t.turns) for t in trajectories] == [1, 9, 1, 9, 1]
  assert (stats.num_turns, stats.num_generated) == (21, 63)
  assert sorted(t.task.id for t in heard) == [t.task.id for t in trajectories]

  def fail(task):
    if task.id == 't3':
      raise ValueError('no such book')
    return begin(task)

  message = None
  try:
    run(fail)
  except (ValueError, RuntimeError) as error:
    message = f'{type(error).__name__}: {error}'
  other = "RuntimeError: process 1 stopped the rollout: ValueError('no such book')"
  assert message == (other, 'ValueError: no such book')[jax.process_index()], message
  assert len(run(begin)[0]) == 5  # nothing of it is left


def training_config(iterations, *mesh):
  """The tiny config with slots and rows that several devices share."""
  config = tiny_config()
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
  config.rollout.num_slots = config.ppo.num_rows = 4
  config.ppo.tasks, config.ppo.micro_rows, config.ppo.iterations = 6, 2, iterations
  config.checkpoint.every = 1
  return config


def counted_steps():
  """A list that grows by (task, turn) of each step of an environment in this process."""
  steps = []

  def step_many(episodes, actions):
    steps.extend((episode.task.id, episode.turns) for episode in episodes)
    return qa.step_many(episodes, actions)

  collect.step_many = step_many
  return steps


def resume(folder):
  """The second iteration of a run that one process began, then the third, resumed once more."""
  train.run(training_config(2, 2, 1, 1), folder / 'run', is_resumed=True)
  steps = counted_steps()
  trainer = train.run(training_config(3, 2, 1, 1), folder / 'run', is_resumed=True)
  assert trainer.iteration == 3 and trainer.next_index == 18
  assert len(steps) > 6  # both processes have their share, none twice
  _check_steps(steps)


def across(folder):
  """Training from the start, the tensor axis across the processes."""
  steps = counted_steps()
  config = training_config(2, 1, 1, 2)
  config.eval.every = 0
  train.run(config, folder / 'run')
  assert bool(steps) == multihost.is_main()
  _check_steps(steps)


def _check_steps(steps):
  everywhere = [step for part in multihost.gather(steps) for step in part]
  assert len(set(everywhere)) == len(everywhere)


def commands(folder):
  """Supervised training, stopped and resumed, and the evaluation of its parameters."""
  config = training_config(1, 2, 1, 1)
  config.sft.steps, config.lora.rank = 2, 2
  sft.run(config, folder / 'sft')
  config.sft.steps = 4
  config.init = str(sft.run(config, folder / 'sft', is_resumed=True))
  cells = evaluate.run(config, folder / 'evaluation')
  assert set(cells) == {'1', '2'}
  if multihost.is_main():
    (folder / 'cells.json').write_text(json.dumps(cells))


SCENARIOS = {function.__name__: function for function in (
    helpers, ppo_step, uneven, resume, across, commands)}


if __name__ == '__main__':
  SCENARIOS[sys.argv[1]](pathlib.Path(sys.argv[2]))
  print('done', flush=True)
