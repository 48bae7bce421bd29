"""What each of several processes does in multihost_test.py: `python -m … SCENARIO FOLDER`.

The last line that it prints is what it found, in JSON, for the test to judge. Environment
variables say which process it is, as they do in runs that are started by hand.
"""

import json
import pathlib
import signal
import sys

import jax

from mem1_jax.parallel import multihost

if __name__ == '__main__':
  multihost.initialize()  # before the imports below make an array
jax.config.update('jax_numpy_rank_promotion', 'raise')

import numpy as np  # noqa: E402

from mem1_jax import evaluate, preemption, sft, train  # noqa: E402
from mem1_jax.env import environment, qa  # noqa: E402
from mem1_jax.parallel import sharding  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from mem1_jax.rollout import collect  # noqa: E402
from mem1_jax.rollout.collect import Collector  # noqa: E402
from mem1_jax.rollout.sampling import sampling  # noqa: E402
from tests.parallel import programs  # noqa: E402
from tests.rollout import collect_test, fakes  # noqa: E402
from tests.tiny import tiny_config, training_config  # noqa: E402


def helpers(folder):
  """Rows and objects of two processes with two devices each."""
  del folder
  me, found = jax.process_index(), {}
  split = sharding.rows(make_mesh(MeshConfig(4, 1, 1)), 4)
  shared = sharding.rows(make_mesh(MeshConfig(1, 2, 2)), 4)  # each half on one process
  across = sharding.rows(
      make_mesh(MeshConfig(1, 2, 2), sorted(jax.devices(), key=lambda d: d.id % 2)), 4)
  whole = sharding.whole(across.mesh)
  rows = {'x': np.arange(8).reshape(4, 2) + 100 * me, 'y': np.arange(4.0) + 100 * me}
  for name, where in dict(split=split, shared=shared, across=across, whole=whole).items():
    placed, own = multihost.put_rows(rows, where), multihost.own_rows(where, 4)
    found[name] = {
        'owners': multihost.owners(where, 4).tolist(), 'own': own,
        'lies': placed['y'].sharding == where,
        'all': {key: multihost.fetch(x).tolist() for key, x in placed.items()},
        'mine': multihost.fetch_rows(placed)['y'][own].tolist()}
  key = multihost.put(jax.random.key(3), whole)
  found['key'] = jax.random.key_data(key).addressable_data(0).tolist()
  try:
    make_mesh(MeshConfig(1, 1, 1))
  except ValueError as error:
    found['refusal'] = str(error)
  long = 'x' * (multihost._CHUNK_BYTES * 2 * me + me)  # one chunk, and three
  with jax.transfer_guard('disallow'):
    found['lengths'] = [(process, len(text)) for process, text in multihost.gather((me, long))]
    found['nothing'] = multihost.gather(None)
  multihost.barrier()
  return found


def ppo_step(folder, rank=0):
  """One PPO step on fixed trajectories on 2x2x2; multihost_test.py compares it with one device."""
  state, metrics = programs.ppo_step(programs.ppo(2, 2, 2, rank=rank))
  leaves = [multihost.fetch(x) for x in jax.tree.leaves(state)]
  if multihost.is_main():
    np.savez(folder / 'state.npz', *leaves)
    np.savez(folder / 'metrics.npz', **metrics)


def lora_ppo_step(folder):
  """The same of adapters beside a frozen base."""
  ppo_step(folder, programs.RANK)


def uneven(folder):
  """The episodes of one process end at once, those of the other go on: none waits for ever."""
  del folder
  mesh = make_mesh(MeshConfig(-1, 1, 1))
  begun = []

  def begin(task):  # the jobs with an even number are those of process 0
    begun.append(int(task.id[1:]))
    turns = 9 if begun[-1] % 2 else 1
    return qa.QAEpisode(task, collect_test.Shelf(), qa.QAConfig(1, 50, None, max_turns=turns))

  heard, run = [], _collect(mesh)
  trajectories, stats = run(begin, heard.append)
  found = {'begun': list(begun), 'turns': [len(t.turns) for t in trajectories],
           'counts': [stats.num_turns, stats.num_generated],
           'tasks': [t.task.id for t in trajectories], 'heard': sorted(t.task.id for t in heard)}

  def fail(task):
    if task.id == 't3':
      raise ValueError('no such book')
    return begin(task)

  try:
    run(fail)
  except (ValueError, RuntimeError) as error:
    found['error'] = f'{type(error).__name__}: {error}'
  found['after'] = len(run(begin)[0])  # nothing of it is left
  begun.clear()
  # The tensor axis across the processes: both hold all slots, one owns them.
  trajectories, _ = _collect(make_mesh(MeshConfig(1, 1, -1)))(begin)
  return found | {'begun_across': begun, 'turns_across': [len(t.turns) for t in trajectories]}


def _collect(mesh):
  """(begin_episode, on_done) → what a collector of two slots on that mesh returns of five jobs."""
  engine = fakes.engine(fakes.Chain(mesh=mesh), num_slots=2)
  params = multihost.put(np.asarray(collect_test.SEARCH), sharding.whole(mesh))

  def run(begin, on_done=lambda _: None):
    collector = Collector(
        engine, collect_test.Reader(), begin, fakes.VOCABULARY, 0, has_gaps=False)
    return collector.run(params, [collect_test.job(i) for i in range(5)],
                         sampling(is_greedy=True, max_tokens=8), on_done=on_done)
  return run


def counted_steps():
  """A list that grows by (task, turn) of each step of an environment in this process."""
  steps = []

  def step_many(episodes, actions):
    steps.extend((episode.task.id, episode.turns) for episode in episodes)
    return environment.step_many(episodes, actions)

  collect.step_many = step_many
  return steps


def resume(folder):
  """The second iteration of a run that one process began, then the third, resumed once more."""
  train.run(training_config(2, 2, 1, 1), folder / 'run', is_resumed=True)
  steps = counted_steps()
  trainer = train.run(training_config(3, 2, 1, 1), folder / 'run', is_resumed=True)
  return {'iteration': trainer.iteration, 'next_index': trainer.next_index, 'steps': steps}


def across(folder):
  """Training from the start, the tensor axis across the processes."""
  steps = counted_steps()
  config = training_config(2, 1, 1, 2)
  config.eval.every = 0
  train.run(config, folder / 'run')
  return {'steps': steps}


def told(folder):
  """SIGTERM to process 1 alone, in the middle of its second rollout: both leave, and go on."""
  config, rollout, iterations = training_config(3, 2, 1, 1), train.rollout, []
  config.checkpoint.every = 3

  def telling(trainer, *args):
    iterations.append(trainer.iteration)
    if len(iterations) == 2 and jax.process_index() == 1:
      signal.raise_signal(signal.SIGTERM)
    return rollout(trainer, *args)

  train.rollout = telling
  try:
    train.run(config, folder / 'run')
  except preemption.Preempted as error:
    said = str(error)
  train.run(config, folder / 'run', is_resumed=True)
  return {'said': said, 'iterations': iterations}


def commands(folder):
  """Supervised training, stopped and resumed, and the evaluation of its parameters."""
  config = training_config(1, 2, 1, 1)
  config.sft.steps, config.lora.rank = 2, 2
  sft.run(config, folder / 'sft')
  config.sft.steps = 4
  config.init = str(sft.run(config, folder / 'sft', is_resumed=True))
  cells = evaluate.run(config, folder / 'evaluation')
  return cells


SCENARIOS = {function.__name__: function for function in (
    helpers, ppo_step, lora_ppo_step, uneven, resume, across, told, commands)}


if __name__ == '__main__':
  print(json.dumps(SCENARIOS[sys.argv[1]](pathlib.Path(sys.argv[2]))), flush=True)
