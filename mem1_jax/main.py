"""The command line: `python -m mem1_jax.main COMMAND --help`.

Every command takes `--config` (a file, or the name of a packaged one) and dotted
overrides of its knobs, such as `--config.ppo.clip=0.1`; configs/base.py lists them.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mem1_jax import arguments, configs, preemption, storage, suites
from mem1_jax.parallel import multihost
from mem1_jax.types import Task


def train(config: ConfigDict, args: argparse.Namespace):
  """PPO."""
  from mem1_jax import metrics
  from mem1_jax import train as training
  from mem1_jax.report import summary
  workdir = storage.path(args.workdir)
  training.run(config, workdir, args.resume, args.profile)
  if multihost.is_main():
    print(summary.reward_line(metrics.reward_gain(metrics.read_metrics(workdir))))


def sft(config: ConfigDict, args: argparse.Namespace):
  """Supervised training."""
  from mem1_jax import sft as supervised
  supervised.run(config, storage.path(args.workdir), args.resume)


def evaluate(config: ConfigDict, args: argparse.Namespace):
  """Greedy evaluation of one agent, a table and the trajectories."""
  from mem1_jax import evaluate as evaluation
  del config  # each part has one
  suites.check(args.suite, args.overrides)
  parts = [(configs.load(args.config, [*part.overrides, *args.overrides]),
            storage.path(args.workdir) / part.folder) for part in args.suite.parts]
  if multihost.is_main():
    print(*args.suite.missing, sep='\n', end='\n' if args.suite.missing else '', file=sys.stderr)
  cells = evaluation.run_parts(parts)
  if multihost.is_main():
    print(suites.shown(args.suite, cells))


def quickstart(config: ConfigDict, args: argparse.Namespace):
  """Trains and evaluates on the embedded world, and writes the report."""
  from mem1_jax import quickstart as story
  story.run(config, storage.local(args.workdir), args.resume)


def export(config: ConfigDict, args: argparse.Namespace):
  """Writes parameters as a folder that transformers loads."""
  from mem1_jax import export as exporting
  workdir = storage.path(args.workdir) if args.workdir else None
  if args.adapters:
    exporting.run_adapters(config, storage.local(args.out), workdir)
    return
  exporting.run(config, storage.local(args.out), workdir, args.critic, args.dtype,
                int(args.max_shard_gb * 1e9))


def plan(config: ConfigDict, args: argparse.Namespace):
  """Compiles a run's programs for a TPU slice that is not here; status 1 where it does not fit."""
  from mem1_jax import plan as planning
  jax.config.update('jax_platforms', 'cpu')  # the TPU compiler alone is wanted
  found = planning.make(config, args.topology, lambda text: print(text, file=sys.stderr))
  if args.json:
    print(json.dumps(found.json()))
  else:
    planning.show(found)
  if not found.fits:
    sys.exit(1)


def tasks(config: ConfigDict, args: argparse.Namespace):
  """Prints composed tasks with their answers, or writes them into a file."""
  from mem1_jax import domains
  from mem1_jax.text.prompts import task_prompt
  out = pathlib.Path(args.out) if args.out else None
  if out and out.exists():
    raise FileExistsError(f'{out} is there already: delete it first, or give --out another name.')
  composer = domains.make_training_composer(config)
  if out:
    _write_tasks(config, composer.tasks(range(args.start, args.start + args.n)), out)
    return
  for index in range(args.start, args.start + args.n):
    task = composer.task(index)
    if args.json:
      print(json.dumps({'id': task.id, 'questions': [q.text for q in task.questions],
                        'answers': [q.answers for q in task.questions], 'hops': task.hops}))
      continue
    print(f'task {task.id} · {len(task.questions)} objectives · {task.hops} hops')
    print(task_prompt(task, config.prompt_style, config.agent), end='')
    for label, question in zip(task.labels, task.questions):
      steps = ' → '.join((*question.chain, question.answers[0]))
      print(f'  {label} {steps}')
    print()


def _write_tasks(config: ConfigDict, composed: Sequence[Task], out: pathlib.Path):
  from mem1_jax import progress
  from mem1_jax.data import verl
  from mem1_jax.text.prompts import task_prompt
  # Whoever reads the messages puts them into a chat template of their own.
  style = 'base' if config.prompt_style == 'chatml' else config.prompt_style
  out.parent.mkdir(parents=True, exist_ok=True)
  with progress.bar('tasks', len(composed)) as bar:
    verl.write_tasks(out, composed, config.data.split,
                     lambda task: task_prompt(task, style, config.agent), bar.advance)
  print(f'{len(composed)} tasks in {out}; as they are: --config.data.source=verl:{out} '
        '"--config.data.objectives=()"')


def inspect(config: ConfigDict, args: argparse.Namespace):
  """Shows a recorded trajectory turn by turn, or a file of them as a page."""
  del config
  from mem1_jax.report import console, page, records
  file = storage.path(args.file)
  if not args.html:
    console.show(records.read_one(file, args.n), max_chars=args.max_chars)
    return
  reading = records.read(file)
  out = pathlib.Path(args.html)
  if out.suffix != '.html':
    raise ValueError(f'--html={out} does not end in .html; name the page that is to be written')
  out.write_text(page.viewer(reading.records, file.stem, reading.problems).html, encoding='utf-8')
  print(f'{out}: {len(reading.records)} trajectories, {out.stat().st_size / 1e6:.1f} MB')
  print(*reading.problems, sep='\n', end='\n' if reading.problems else '', file=sys.stderr)


def report(config: ConfigDict, args: argparse.Namespace):
  """Writes a page and Markdown about run folders."""
  del config
  from mem1_jax.report import page, runs
  found = runs.find([storage.path(run) for run in args.runs])
  path = page.write(storage.local(args.out), found)
  num = sum(len(cell.records) for cell in found.cells)
  print(f'{path}: {len(found.evaluated)} cells, {len(found.curves)} training curves, {num} '
        f'trajectories, {path.stat().st_size / 1e6:.1f} MB; {path.with_name("report.md")}')
  print(*found.problems, sep='\n', end='\n' if found.problems else '', file=sys.stderr)


def knobs(config: ConfigDict, args: argparse.Namespace):
  """Says what the knobs of a config are."""
  from mem1_jax import knobs as descriptions
  found = descriptions.read(pathlib.Path(configs.resolve('base')).read_text(encoding='utf-8'))
  if args.markdown:
    print(descriptions.markdown(found), end='')
    return
  found = descriptions.matching(found, args.text)
  print(*descriptions.lines(found, descriptions.values(config.to_dict())), sep='\n')


def sweep(config: ConfigDict, args: argparse.Namespace):
  """Runs the points of a sweep, one process each, and reports on them."""
  from mem1_jax.sweep import command
  jax.config.update('jax_platforms', 'cpu')  # the devices are for the points
  sys.exit(command.run(config, args))


def index(config: ConfigDict, args: argparse.Namespace):
  """Writes an index of documents: of BM25's scores, or of vectors for dense retrieval."""
  from mem1_jax import index as indexing
  files, out = [pathlib.Path(file) for file in args.documents], pathlib.Path(args.out)
  say = functools.partial(print, file=sys.stderr)
  if args.kind == 'bm25':
    e = config.env
    if args.encoder:
      raise ValueError('--kind bm25 has no encoder; leave out --encoder, or choose another kind')
    indexing.build_bm25(files, out, k1=e.bm25_k1, b=e.bm25_b, title_weight=e.title_weight,
                        is_resumed=args.resume, shard_size=args.shard_size, say=say)
    return
  if not args.encoder:
    raise ValueError(f'--kind {args.kind} needs --encoder, a folder or hf:NAME; bm25 needs none')
  options = indexing.Options(
      args.encoder, args.kind, args.stored, args.dtype, args.template, args.query_prefix,
      args.passage_prefix, args.max_length, args.shard_size, args.batch_tokens)
  indexing.build(files, out, options, args.resume, say)


def chat(config: ConfigDict, args: argparse.Namespace):
  """Answers questions typed at the prompt, turn by turn."""
  del args
  from mem1_jax import chat as conversation
  conversation.run(config)


def serve_retriever(config: ConfigDict, args: argparse.Namespace):
  """Serves search over a file's documents, or the embedded ones."""
  from mem1_jax import search
  from mem1_jax.retrieval.server import Limits
  search.serve(config, args.documents, args.host, args.port, Limits(
      top_k=args.top_k, max_top_k=args.max_top_k, max_queries=args.max_queries,
      max_query_chars=args.max_query_chars, max_body_bytes=args.max_body_mb * 10**6,
      max_batch=args.max_batch, max_waiting=args.max_waiting))


COMMANDS = {function.__name__.replace('_', '-'): function for function in (
    train, sft, evaluate, quickstart, export, plan, tasks, inspect, report, sweep, knobs, index,
    chat, serve_retriever)}


def run(argv: list[str] | None = None):
  """Entry point; user errors end with one line and status 2, a run told to end with status 75."""
  args, args.overrides = arguments.parser().parse_known_args(argv)
  try:
    if 'suite' in args:
      args.suite = suites.find(args.suite, args.data)
      args.config = args.config or args.suite.config
    config = configs.load(args.config, args.overrides)
    for name, url in (('endpoint', config.endpoint.url), ('judge', config.judge.url)):
      if url and args.command not in ('evaluate', 'sweep'):
        raise ValueError(f'{name}.url {url!r} is for `evaluate`; leave it out here')
    if 'distributed' in args:
      multihost.initialize(args.distributed)
    if config.compilation_cache:
      cache = os.path.abspath(os.path.expanduser(config.compilation_cache))
      jax.config.update('jax_compilation_cache_dir', cache)
    COMMANDS[args.command](config, args)
  except preemption.Preempted as error:
    print(f'mem1 {args.command}: {error}', file=sys.stderr)
    sys.exit(preemption.STATUS)
  except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
    if os.environ.get('MEM1_TRACEBACK'):
      raise
    print(f'mem1 {args.command}: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  run()
