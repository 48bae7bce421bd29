"""How well and how cheaply an agent answers: greedy, over all trajectories.

A model elsewhere (endpoint.py) may be sampled otherwise; a cell says how. What is measured:
measures.py.
"""

import contextlib
import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from mem1_jax import assemble, cells, domains, endpoint, progress, storage
from mem1_jax.arrays import Params
from mem1_jax.judge import Judge
from mem1_jax.measures import contexts, measure
from mem1_jax.parallel import multihost
from mem1_jax.partial_cell import Told, merged
from mem1_jax.retrieval import metrics_of
from mem1_jax.rollout.collect import Collector
from mem1_jax.rollout.engine import Engine
from mem1_jax.rollout.sampling import Sampling, sampling
from mem1_jax.rollout.slots import Job
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Trajectory


_EPISODES_OF_A_SLOT = 8  # of several processes, between which trajectories are kept


def max_tokens(config: Any, objectives: int) -> int:
  """Of a turn: more where there are more answers to write."""
  return config.eval.max_tokens + objectives * config.eval.max_tokens_per_objective


def greedy(config: Any, objectives: int) -> Sampling:
  """Greedy turns."""
  return sampling(config.rollout.temperature, is_greedy=True,
                  max_tokens=max_tokens(config, objectives))


class Evaluator:
  """Greedy evaluation of one agent on one engine, the same tasks every time."""

  def __init__(self, config: Any, engine: Engine, tokenizer: Tokenizer, environment: Any):
    self._config = config
    agent = assemble.make_agent(config, tokenizer)
    self._collector = Collector(engine, agent, environment.start, tokenizer.token_bytes,
                                config.seed, has_gaps=False,
                                reply_timeout_s=config.rollout.reply_timeout,
                                counted=lambda: metrics_of(environment))

  def run(self, params: Params, objectives: int, split: str, num_tasks: int,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Episodes of tasks 0…num_tasks-1 of `objectives` questions each."""
    composer = domains.make_composer(self._config, split, objectives)
    jobs = [Job(composer.task(i), i) for i in range(num_tasks)]
    return self.play(params, jobs, objectives, on_done)

  def play(self, params: Params, jobs: Sequence[Job], objectives: int,
           on_done: Callable[[Trajectory], None] = lambda _: None,
           ) -> tuple[list[Trajectory], RolloutStats]:
    """Episodes of these tasks, of `objectives` questions each."""
    return self._collector.run(params, jobs, greedy(self._config, objectives), on_done=on_done)


def _dropped(trajectory: Trajectory, j: int) -> list[int]:
  """Ids that turn j read beside the question, or wrote, and that the next turn is without."""
  turn, following = trajectory.turns[j], trajectory.turns[j + 1].context
  before = [*(turn.context.segment.ids if j else ()), *turn.written.ids]
  kept = list(following.segment.ids[:following.num_carried])
  if before[len(before) - len(kept):] == kept:  # what stays is mostly the end
    return before[:len(before) - len(kept)]
  changes = difflib.SequenceMatcher(None, before, kept, autojunk=False).get_opcodes()
  return [i for tag, begin, end, *_ in changes if tag != 'equal' for i in before[begin:end]]


def record(trajectory: Trajectory, tokenizer: Tokenizer) -> dict[str, Any]:
  """A trajectory as JSON for people (report/console.py says what the keys mean)."""
  task, sizes = trajectory.task, contexts(trajectory)
  question = tokenizer.decode(trajectory.prompt.ids)
  before = '[all of the above] ' if trajectory.is_append_only else question
  read = ['', *(tokenizer.decode(t.context.segment.ids) for t in trajectory.turns[1:])]
  turns = []
  for j, turn in enumerate(trajectory.turns):
    is_last = j + 1 == len(trajectory.turns)
    following = None if is_last else trajectory.turns[j + 1].context
    turns.append({
        'saw': (before if j else question) + read[j],
        'wrote': tokenizer.decode(turn.written.ids),
        'information': '' if is_last else tokenizer.decode(
            following.segment.ids[following.num_carried:]),
        'action': {'kind': turn.action.kind.value, 'text': turn.action.text},
        'tokens_in_context': sum(sizes[j]),
        'dropped': '' if is_last or trajectory.is_append_only else tokenizer.decode(
            _dropped(trajectory, j)),
        'outage': turn.outage,
    })
  questions = [{'label': label, 'text': q.text, 'answers': list(q.answers), 'id': q.id}
               for label, q in zip(task.labels, task.questions)]
  return {'task': {'id': task.id, 'questions': questions}, 'turns': turns,
          'answer': trajectory.answer, 'fault': trajectory.fault,
          'outgrew': trajectory.outgrew, 'score': measure(trajectory)}


def write_records(path: storage.Path, trajectories: Sequence[Trajectory], tokenizer: Tokenizer):
  """One JSON line per trajectory, written once."""
  if not multihost.is_main():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w') as file:
    for trajectory in trajectories:
      file.write(json.dumps(record(trajectory, tokenizer)) + '\n')


def run(config: Any, workdir: storage.Path, name: str = '',
        claim: Callable[[int], bool] = lambda _: True) -> dict[str, dict[str, float]]:
  """Evaluates `config.agent` on every number of `eval.objectives`.

  Its model is `config.init`, or what `config.endpoint` names; then a cell says how that was asked
  and what it reported, under `endpoint`.

  Each cell is written to `workdir/NAME-N.json` with its trajectories beside it; one that is there
  is not computed again. Until it is whole, trajectories are kept as they end (partial_cell.py), and
  a run that is started again does only the rest.

  Args:
    claim: asked before a number of objectives is begun; False leaves it to another process.

  Returns:
    {str(objectives): cell} of the cells that are there, the fields of report/summary.py.

  Raises:
    ValueError: what is there was made by another config or model, or a server does not answer.
  """
  return run_parts([(config, workdir)], name, claim)[0]


def run_parts(parts: Sequence[tuple[Any, storage.Path]], name: str = '',
              claim: Callable[[int], bool] = lambda _: True) -> list[dict[str, dict[str, float]]]:
  """What `run` does, for each (config, folder): these differ in data alone.

  Model and world are made once, by the first config.
  """
  first = parts[0][0]
  name, judge = name or first.agent, Judge(first) if first.judge.url else None
  wanted = [(config, n, workdir / f'{name}-{n}.json')
            for config, workdir in parts for n in config.eval.objectives]
  for config, n, path in wanted:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
      _check_cell(config, n, path)
      if judge:
        judge.check(path)
  missing = [cell for cell in wanted if not cell[-1].exists()]
  if missing:
    with _remote(first) if first.endpoint.url else _local(first) as player:
      for config, n, path in missing:
        if claim(n):
          label = f'{name} at {n}' if len(parts) == 1 else f'{path.parent.name}, {name} at {n}'
          _run_cell(config, n, path, player, label)
  if judge and multihost.is_main():
    with contextlib.closing(judge):
      for *_, path in wanted:
        if path.exists():
          judge.run(path)
  multihost.barrier()
  return [{str(n): json.loads((workdir / f'{name}-{n}.json').read_text())
           for n in config.eval.objectives if (workdir / f'{name}-{n}.json').exists()}
          for config, workdir in parts]


@dataclasses.dataclass(frozen=True)
class _Player:
  """A model, here or elsewhere.

  Attributes:
    play: does jobs of so many objectives, and tells of each trajectory.
    told: what was counted since it was asked last: `counts` of the world, and of an `endpoint`.
  """

  tokenizer: Tokenizer
  play: Callable[[Sequence[Job], int, Callable[[Trajectory], None]], Any]
  told: Callable[[], Told]


def _run_cell(config: Any, objectives: int, path: storage.Path, player: _Player, label: str):
  """Does what is left of a cell, and writes it."""
  jobs, asked = cells.make_jobs(config, objectives), _settings(config, objectives)
  origin = cells.made_by(config, asked) | {'tasks': cells.digest(jobs)}
  with contextlib.ExitStack() as stack:
    partial = stack.enter_context(cells.begun(path, origin))
    left, told = cells.left(partial, jobs), player.told()
    if len(left) < len(jobs):
      label += f', after {len(jobs) - len(left)} that were done'
    show = progress.of_episodes(stack.enter_context(progress.bar(label, len(left))))

    def on_done(trajectory: Trajectory):
      nonlocal told
      new = player.told()
      told = merged(told, new)
      if multihost.is_main():
        partial.add(trajectory.index, record(trajectory, player.tokenizer), new)
      show(trajectory)

    for some in _blocks(left, config.eval.num_slots):
      player.play(some, objectives, on_done)
    told = functools.reduce(merged, multihost.gather(merged(told, player.told())), partial.told)
    if multihost.is_main():
      more = {'endpoint': {'settings': asked} | told['endpoint']} if asked else {}
      cells.write(path, [partial.records[job.index] for job in jobs],
                  told['counts'] | more | {'made_by': origin})
      partial.remove()
  multihost.barrier()


def _blocks(jobs: Sequence[Job], num_slots: int) -> Iterator[Sequence[Job]]:
  """All jobs at once; with several processes in parts, after which the main one has all."""
  size = len(jobs) if jax.process_count() == 1 else _EPISODES_OF_A_SLOT * num_slots
  yield from (jobs[start:start + size] for start in range(0, len(jobs), max(1, size)))


def _since(count: Callable[[], Mapping[str, int]]) -> Callable[[], dict[str, int]]:
  """How much each number has grown since the last call."""
  last = dict(count())

  def grown():
    nonlocal last
    before, last = last, dict(count())
    return {name: n - before[name] for name, n in last.items()}

  return grown


@contextlib.contextmanager
def _local(config: Any) -> Iterator[_Player]:
  """With parameters, here."""
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = assemble.acting_params(config, policy)
  is_append_only = assemble.agent_class(config).is_append_only
  engine = assemble.make_engine(config, policy, tokenizer, is_append_only,
                                min(config.eval.num_slots, config.eval.tasks or math.inf))
  world = domains.make_environment(config)
  evaluator = Evaluator(config, engine, tokenizer, world)
  counted = _since(lambda: metrics_of(world))
  yield _Player(tokenizer, functools.partial(evaluator.play, params),
                lambda: {'counts': counted()})


@contextlib.contextmanager
def _remote(config: Any) -> Iterator[_Player]:
  """With a model behind a server; a cell says what was asked, and what was reported."""
  if jax.process_count() > 1:
    raise ValueError(f'{jax.process_count()} processes would all ask endpoint.url; start one, '
                     'endpoint.concurrent says how many episodes it runs at a time')
  tokenizer, world = endpoint.make_tokenizer(config), domains.make_environment(config)
  counted = _since(lambda: metrics_of(world))
  with contextlib.closing(endpoint.RemoteEvaluator(config, tokenizer, world)) as evaluator:
    yield _Player(tokenizer,
                  lambda jobs, n, on_done: evaluator.play(jobs, _asked_tokens(config, n), on_done),
                  lambda: {'counts': counted(), 'endpoint': evaluator.account()})


def _asked_tokens(config: Any, objectives: int) -> int:
  """Of a server, for a turn: no more than parameters here could write."""
  return min(max_tokens(config, objectives), config.rollout.turn_capacity)


def _settings(config: Any, objectives: int) -> dict[str, Any] | None:
  return endpoint.settings(config, _asked_tokens(config, objectives))


def _check_cell(config: Any, objectives: int, path: storage.Path):
  """Raises ValueError for a cell of another model, or of another way to ask it."""
  there = json.loads(path.read_text()).get('endpoint', {}).get('settings')
  wanted = _settings(config, objectives)
  if there != wanted:
    raise ValueError(f'{path} is of the endpoint {there}, this run of {wanted}; give it another '
                     '--workdir')
  cells.check_whole(path, cells.made_by(config, wanted))
