"""Peers of a benchmark: each in a process of its own, taking turns, on the same episodes.

A worker builds and warms up, then answers each line that it reads with one line of JSON, which
has `seconds`, or `not_run` with the reason. Whatever else it prints is not read, a line of JSON
that says `ready` before the first answer neither.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Workers share a GPU: none may take all of its memory in advance.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax  # noqa: E402

from mem1_jax import progress  # noqa: E402

_MACHINE = 'import json; from mem1_jax import metrics; print(json.dumps(metrics.machine()))'


def machine() -> dict:
  """metrics.machine() as the workers will see it; this process computes on the CPU from now on.

  A TPU belongs to one process, and a GPU's memory is the workers'.
  """
  jax.config.update('jax_platforms', 'cpu')
  run = subprocess.run([sys.executable, '-c', _MACHINE], cwd=ROOT, check=True, text=True,
                       stdout=subprocess.PIPE)
  return json.loads(run.stdout.splitlines()[-1])


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
        if 'ready' not in reply:
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


def measure(title: str, commands: dict[str, list[str] | str], cases: dict[str, str],
            repeats: int) -> dict[str, dict]:
  """{case: {'replies': […]}}, with 'not_run' where it ended; the first reply is of the warm-up.

  Args:
    commands: how each worker is started, or why it is not.
    cases: name → the worker that is asked, by that name, to measure the case.
    repeats: replies after the warm-up, taken from all cases in turn.
  """
  results = {name: {'replies': []} for name in cases}
  with contextlib.ExitStack() as stack, progress.bar(
      title, 1 + repeats, line_every_s=0.0) as bar:
    workers = {}
    for name, command in commands.items():
      if not isinstance(command, str):
        workers[name] = Worker(command)
        stack.callback(workers[name].close)
    for _ in range(1 + repeats):
      told = []
      for name, worker in cases.items():
        if 'not_run' in results[name]:
          continue
        try:
          if worker not in workers:
            raise NotRun(commands[worker])
          load = os.getloadavg()[0]
          reply = workers[worker].ask(name) | {'load': load}
          results[name]['replies'].append(reply)
          told.append(f'{name} {reply["seconds"]:.2f} s')
        except NotRun as reason:
          results[name]['not_run'] = str(reason)
      bar.advance(1, ', '.join(told))
  return results


def serve(answer):
  """The worker's side: answers each line of stdin with what `answer(line)` returns."""
  for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)
