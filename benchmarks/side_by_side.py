"""Peers of a benchmark: each in a process of its own, taking turns, on the same episodes.

A worker builds and warms up, then answers each line that it reads with one line of JSON, which
has `seconds`, or `not_run` with the reason. Whatever else it prints is not read.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Workers share a GPU: none may take all of its memory in advance.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

from mem1_jax import progress  # noqa: E402
from mem1_jax.arrays import Episodes  # noqa: E402
from mem1_jax.memory import layout  # noqa: E402
from mem1_jax.types import (  # noqa: E402
    Action, ActionKind, Context, Kind, Question, Segment, Stop, Task, Trajectory, TurnRecord)

LENGTHS = {'question': 500, 'think': 200, 'action': 50, 'information': 450}


def add_lengths(parser):
  """The flags that say how long episodes are."""
  for name, tokens in LENGTHS.items():
    parser.add_argument(f'--{name}', type=int, default=tokens, help='tokens (default: %(default)s)')


def trajectory(args, num_turns: int, vocab_size: int, rng: np.random.Generator) -> Trajectory:
  """An episode of random ids; the sampler's log-probs are those of a policy that is not far."""
  written_kinds = (Kind.STATE,) * args.think + (Kind.ACTION,) * args.action

  def segment(ids, begin, kinds):
    return Segment(tuple(ids), tuple(range(begin, begin + len(ids))), tuple(kinds))

  def draw(n):
    return rng.integers(0, vocab_size, n).tolist()

  carried, turns, context = [], [], Context(segment([], 0, []))
  for j in range(num_turns):
    if j:
      kinds = (*written_kinds,) + (Kind.INFO,) * args.information
      context = Context(segment(carried + draw(args.information), args.question, kinds),
                        len(carried))
    carried = draw(len(written_kinds))
    written = segment(carried, args.question + len(context.segment), written_kinds)
    logprobs = -np.log(vocab_size) + 0.1 * rng.standard_normal(len(carried))
    is_last = j == num_turns - 1
    turns.append(TurnRecord(
        context, written, tuple(logprobs.tolist()),
        Action(ActionKind.ANSWER if is_last else ActionKind.SEARCH, ''), Stop.TAG,
        float(rng.random()) if is_last else 0.0))
  question = Question('q', '', ('',))
  return Trajectory(Task('random', (question,), ('a',), 'random'),
                    segment(draw(args.question), 0, (Kind.PROMPT,) * args.question), tuple(turns),
                    is_append_only=False)


def pack(trajectories: list[Trajectory], name: str) -> Episodes:
  """A row for each, in their order: all are of one length. `name` is of layout.LAYOUTS."""
  columns = [layout.lay_out(t, name) for t in trajectories]
  return layout.pack(columns, len(columns), max(len(c['tokens']) for c in columns), 0)[0]


def visible_pairs(key_end_BS: np.ndarray) -> float:
  """Pairs of query and key that the masks of all rows leave."""
  return float(np.maximum(key_end_BS - np.arange(key_end_BS.shape[1]), 0).sum())


class NotRun(Exception):
  """A peer cannot run here."""


class Worker:
  """A peer's process."""

  def __init__(self, command: list[str]):
    self._process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

  def ask(self, line: str) -> dict:
    """What the peer answers.

    Raises:
      NotRun: with the reason.
    """
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write(f'{line}\n')
      self._process.stdin.flush()
    for text in self._process.stdout:
      if text.startswith('{'):  # libraries print, too
        reply = json.loads(text)
        if 'not_run' in reply:
          raise NotRun(reply['not_run'])
        return reply
    raise NotRun(f'its process ended with code {self._process.wait()}')

  def close(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(30)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()


def measure(title: str, commands: dict[str, list[str]], cases: dict[str, tuple[str, str]],
            repeats: int) -> dict[str, dict]:
  """{case: {'replies': […]}}, with 'not_run' where it ended; the first reply is of the warm-up.

  Args:
    commands: how each worker is started.
    cases: name → (worker, the line that asks it to measure this case).
    repeats: replies after the warm-up, taken from all cases in turn.
  """
  results = {name: {'replies': []} for name in cases}
  with contextlib.ExitStack() as stack, progress.bar(
      title, 1 + repeats, line_every_s=0.0) as bar:
    workers = {name: Worker(command) for name, command in commands.items()}
    for worker in workers.values():
      stack.callback(worker.close)
    for _ in range(1 + repeats):
      told = []
      for name, (worker, line) in cases.items():
        if 'not_run' in results[name]:
          continue
        try:
          results[name]['replies'].append(workers[worker].ask(line))
          told.append(f'{name} {results[name]["replies"][-1]["seconds"]:.2f} s')
        except NotRun as reason:
          results[name]['not_run'] = str(reason)
      bar.advance(1, ', '.join(told))
  return results


def serve(answer):
  """The worker's side: answers each line of stdin with what `answer(line)` returns."""
  for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)
