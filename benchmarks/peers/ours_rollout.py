"""The worker of mem1_jax: collector and engine, as train.py runs them (see benchmarks/rollout.py)."""

import argparse
import collections
import os
import pathlib
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import side_by_side  # noqa: E402  first: it finds mem1_jax
import random_turns  # noqa: E402

from mem1_jax.env.qa import QAConfig, QAEpisode  # noqa: E402
from mem1_jax.memory import state  # noqa: E402
from mem1_jax.model import ModelConfig, build_policy, hf  # noqa: E402
from mem1_jax.model.hf_files import SafetensorsFolder  # noqa: E402
from mem1_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from mem1_jax.rollout.collect import Collector  # noqa: E402
from mem1_jax.rollout.engine import Engine, EngineConfig  # noqa: E402
from mem1_jax.rollout.sampling import sampling  # noqa: E402
from mem1_jax.rollout.slots import Job  # noqa: E402
from mem1_jax.types import Kind, Passage, Question, Segment, Task  # noqa: E402

_STOP = b'<search>more</search>'


class RandomAgent:
  """Reads random ids for questions and replies."""

  def __init__(self, case: random_turns.Case):
    self._case = case
    self.is_append_only = case.agent == 'full_context'

  def prompt(self, task, rng):
    del rng
    ids = tuple(self._case.ids(self._case.question, *map(int, task.id.split())))
    return Segment(ids, tuple(range(len(ids))), (Kind.PROMPT,) * len(ids))

  def context(self, prompt, turns, information, rng):
    del information, rng
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    reply = self._case.ids(self._case.reply, *prompt.ids[:4], len(turns))
    if not self.is_append_only:
      return state.carry(turns[-1].written, reply, prompt.positions[-1] + 1), len(prompt)
    read = sum(len(turn.context.segment) + len(turn.written) for turn in turns) - 1
    nothing = Segment((), (), ())
    return state.carry(nothing, reply, turns[-1].written.positions[-1] + 1), len(prompt) + read


class SlowRetriever:
  """Every search takes as long, however many are under way."""

  def __init__(self, seconds: float):
    self._seconds = seconds

  def search(self, queries, k):
    del k
    time.sleep(self._seconds)
    return [[Passage('Nothing', 'nothing')] for _ in queries]


class Worker:
  """Engines by what fixes their shapes, so that cases share programs where they can."""

  def __init__(self, settings, cases):
    self._cases, self._settings = cases, settings
    self._model = ModelConfig(**settings['model'])
    self._policy = build_policy(self._model, 'auto', make_mesh(MeshConfig(-1, 1, 1)))
    params = hf.load(SafetensorsFolder(pathlib.Path(settings['weights']) / 'policy'), self._model)
    self._params = jax.device_put(params, self._policy.shardings())
    self._engines, self._repeats = {}, collections.Counter()
    self.num_compiled = 0
    jax.monitoring.register_event_duration_secs_listener(self._hear)

  def _hear(self, event, *_, **__):
    self.num_compiled += event == '/jax/core/compile/backend_compile_duration'

  def answer(self, name: str) -> dict:
    case, repeat = self._cases[name], self._repeats[name]
    self._repeats[name] += 1
    collector, options = self._collector(case), self._settings['sampling']
    before = self.num_compiled
    jobs = [Job(Task(f'{repeat} {i}', (Question('', '', ('',)),), ('',), ''), i)
            for i in range(case.episodes)]
    begun = time.perf_counter()
    # Another temperature each time: nothing may compile for it.
    trajectories, stats = collector.run(
        self._params, jobs,
        sampling(options[repeat % len(options)], max_tokens=case.longest), repeat)
    seconds = time.perf_counter() - begun
    if any(t.fault or len(t.turns) != case.turns for t in trajectories):
      raise RuntimeError(f'{name}: an episode did not take its {case.turns} turns')
    return random_turns.result(
        case, seconds, stats.num_generated, occupancy=stats.occupancy,
        recompiles=self.num_compiled - before, prefill=stats.prefill_seconds / stats.seconds,
        decode=stats.decode_seconds / stats.seconds,
        environment=stats.environment_seconds / stats.seconds, read=stats.num_read,
        reused=stats.num_reused)

  def _collector(self, case: random_turns.Case) -> Collector:
    context = case.longest + case.reply if case.turns > 1 else 1
    is_append_only = case.agent == 'full_context'
    turns = case.turns if is_append_only else 1
    config = EngineConfig(
        case.slots, case.question, context, case.longest,
        case.question + turns * (context + case.longest), self._settings['prefill_chunk'],
        case.vocab_size, keeps_turns=is_append_only, **self._settings['engine'])
    token_bytes = [b''] * case.vocab_size
    for i in case.stop_ids:
      token_bytes[i] = _STOP
    key = config, len(case.stop_ids)
    if key not in self._engines:
      self._engines[key] = Engine(self._policy, config, token_bytes, eos_id=-1, pad_id=0)
    retriever = SlowRetriever(case.latency_s)
    qa = QAConfig(top_k=1, max_passage_chars=100, slack=None, max_turns=case.turns)
    return Collector(self._engines[key], RandomAgent(case),
                     lambda task: QAEpisode(task, retriever, qa), token_bytes, case.seed, has_gaps=False, is_lockstep=case.is_lockstep)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--settings', required=True, help='a .json of benchmarks/rollout.py')
  settings, cases = random_turns.read(parser.parse_args().settings)
  if settings['platform'] == 'cpu' and hasattr(os, 'sched_setaffinity'):
    # XLA counts the cores when its first array is made.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:settings['threads']])
    jax.config.update('jax_num_cpu_devices', settings['devices'])
  side_by_side.serve(Worker(settings, cases).answer)


if __name__ == '__main__':
  main()
