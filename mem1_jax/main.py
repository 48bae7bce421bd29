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

from mem1_jax import configs
from mem1_jax.parallel import multihost
from mem1_jax.types import Task

_DOCUMENTS = ('.jsonl or .jsonl.gz with a line of {"contents": "\\"Title\\"\\nText"} or {"title": …, '
              '"text": …} each; .json of {title: text or sentences}')


def train(config: ConfigDict, args: argparse.Namespace):
  """PPO."""
  from mem1_jax import metrics
  from mem1_jax import train as training
  from mem1_jax.report import summary
  workdir = pathlib.Path(args.workdir)
  training.run(config, workdir, args.resume, args.profile)
  if multihost.is_main():
    print(summary.reward_line(metrics.reward_gain(metrics.read_metrics(workdir))))


def sft(config: ConfigDict, args: argparse.Namespace):
  """Supervised training."""
  from mem1_jax import sft as supervised
  supervised.run(config, pathlib.Path(args.workdir), args.resume)


def evaluate(config: ConfigDict, args: argparse.Namespace):
  """Greedy evaluation of one agent, a table and the trajectories."""
  from mem1_jax import evaluate as evaluation
  evaluation.run(config, pathlib.Path(args.workdir))


def quickstart(config: ConfigDict, args: argparse.Namespace):
  """Trains and evaluates on the embedded world, and writes the report."""
  from mem1_jax import quickstart as story
  story.run(config, pathlib.Path(args.workdir), args.resume)


def export(config: ConfigDict, args: argparse.Namespace):
  """Writes parameters as a folder that transformers loads."""
  from mem1_jax import export as exporting
  workdir = pathlib.Path(args.workdir) if args.workdir else None
  if args.adapters:
    exporting.run_adapters(config, pathlib.Path(args.out), workdir)
    return
  exporting.run(config, pathlib.Path(args.out), workdir, args.critic, args.dtype,
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
  file = pathlib.Path(args.file)
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
  found = runs.find([pathlib.Path(run) for run in args.runs])
  path = page.write(pathlib.Path(args.out), found)
  num = sum(len(cell.records) for cell in found.cells)
  print(f'{path}: {len(found.evaluated)} cells, {len(found.curves)} training curves, {num} '
        f'trajectories, {path.stat().st_size / 1e6:.1f} MB; {path.with_name("report.md")}')
  print(*found.problems, sep='\n', end='\n' if found.problems else '', file=sys.stderr)


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


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='mem1', description='Train and study language agents with constant memory.',
      epilog='Knobs of a config are overridden by --config.NAME=VALUE; configs/base.py has all.')
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def add(function, text: str, workdir: str | None = None):
    command = commands.add_parser(function.__name__.replace('_', '-'), help=text,
                                  description=text, epilog=parser.epilog)
    command.set_defaults(function=function)
    command.add_argument('--config', default='atlas', metavar='FILE_OR_NAME',
                         help='config file or packaged name (default: %(default)s)')
    if workdir:
      command.add_argument('--workdir', default=workdir, help='run folder (default: %(default)s)')
    return command

  def add_parallel(function, text: str, workdir: str):
    command = add(function, text, workdir)
    command.add_argument('--distributed', action='store_true', help='join the other processes of a '
                         'TPU pod, Slurm, Kubernetes or Open MPI job; those started by hand set '
                         'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID instead')
    return command

  command = add_parallel(train, 'PPO training.', 'runs/train')
  command.add_argument('--resume', action='store_true', help='continue from the last checkpoint')
  command.add_argument('--profile', type=int, default=0, metavar='ITERATION',
                       help='trace that iteration (≥ 1) for TensorBoard and Perfetto; 0 for none')
  command = add_parallel(sft, 'Supervised training: drills or the scripted expert.', 'runs/sft')
  command.add_argument('--resume', action='store_true', help='continue from the last checkpoint')
  add_parallel(evaluate, 'Greedy evaluation of --config.init on eval.objectives; or of a model '
               'behind an OpenAI-compatible server, --config.endpoint.url.', 'runs/evaluate')
  command = add(quickstart, 'PPO, evaluation of three agents, report.', 'runs/quickstart')
  command.add_argument('--resume', action='store_true', help='continue where it was stopped')
  command = add(export, 'Writes parameters as a folder that transformers loads: --config.init, or '
                'what a run has trained.')
  command.add_argument('--out', required=True, help='new folder for the weights, config.json, '
                       'the tokenizer and generation_config.json')
  command.add_argument('--workdir', default='', help='run folder of `train`: its best policy')
  part = command.add_mutually_exclusive_group()
  part.add_argument('--critic', action='store_true', help="export that run's critic instead, as "
                       'a token classifier with one label')
  part.add_argument('--adapters', action='store_true', help="export that run's LoRA adapters "
                       'instead of merging them, as a folder that peft loads')
  command.add_argument('--dtype', default='', choices=['float32', 'bfloat16', 'float16'],
                       help='of the tensors (default: that of --config.model.param_dtype)')
  command.add_argument('--max-shard-gb', type=float, default=5, metavar='GB',
                       help='larger models become several files (default: %(default)s)')
  command = add(plan, 'Does a run fit a TPU slice, and how fast could it be? Needs no TPU, but its '
                'compiler (the extra `tpu`). Status 1 where it does not fit.')
  command.add_argument('--topology', required=True, metavar='CHIP:SHAPE',
                       help='v5e, v5p or v6e and the shape of the slice: v5e:4x4, v5p:2x4x4')
  command.add_argument('--json', action='store_true', help='one JSON object instead of tables')
  command = add(tasks, 'Shows composed tasks, or writes them into a file.')
  command.add_argument('-n', '--num', dest='n', type=int, default=5, metavar='N',
                       help='how many (default: %(default)s)')
  command.add_argument('--start', type=int, default=0, help='index of the first')
  form = command.add_mutually_exclusive_group()
  form.add_argument('--json', action='store_true', help='one JSON line each')
  form.add_argument('--out', metavar='FILE', help="a new .parquet or .jsonl in veRL's schema, "
                    'instead of showing them; --config.data.source=verl:FILE reads it')
  command = add(inspect, 'Shows a trajectory turn by turn.')
  command.add_argument('file', help='a .jsonl of trajectories, as evaluation or the '
                       'MEM1 release writes it')
  command.add_argument('-n', type=int, default=0, help='which line, from 0')
  command.add_argument('--max-chars', type=int, default=None, help='cut long texts, saying so')
  command.add_argument('--html', default='', metavar='OUT.html', help='write a page of the whole '
                       'file instead: timelines, search, filters; no network needed')
  _add_report(add(report, 'One page and Markdown about runs: tables with intervals, figures, and '
                  'every trajectory as a timeline.'))
  _add_index(add(index, 'Writes passages with vectors, for dense retrieval, or with scores of BM25 '
                 'into a folder, which --config.env.documents and serve-retriever open '
                 '(docs/retrieval.md).'))
  add(chat, 'Answers your own questions over the embedded documents.')
  _add_server_arguments(add(
      serve_retriever, "Serves search by HTTP in Search-R1's protocol: POST /retrieve, GET "
      '/health, GET /metrics. --config.env.bm25_k1 and its neighbours are used, reranker too; runs '
      'ask it with --config.env.retriever=URL. Needs the extra `retriever`.'))
  return parser


def _add_report(command: argparse.ArgumentParser):
  command.add_argument('runs', nargs='+', metavar='RUN', help='folder of evaluate, train, sft or '
                       'quickstart; or a .jsonl of trajectories')
  command.add_argument('--out', required=True, metavar='FOLDER', help='gets index.html, report.md '
                       'and figures/')


def _add_server_arguments(command: argparse.ArgumentParser):
  command.add_argument('--documents', nargs='*', default=(), metavar='FILE',
                       help=f'{_DOCUMENTS} (default: the embedded atlas)')
  command.add_argument('--host', default='127.0.0.1', help='address to listen on; there is no '
                       'password, so think before 0.0.0.0 (default: %(default)s)')
  command.add_argument('--port', type=int, default=8000, help='0 for any that is free (default: '
                       '%(default)s)')
  for name, default, text in (
      ('top-k', 3, 'passages per query, where a request does not say'),
      ('max-top-k', 100, 'passages per query that a request may ask for'),
      ('max-queries', 512, 'queries of a request'),
      ('max-query-chars', 4096, 'characters of a query'),
      ('max-body-mb', 8, 'megabytes of a request'),
      ('max-batch', 64, 'queries that are searched together'),
      ('max-waiting', 8192, 'queries that may wait for a search; more are refused')):
    command.add_argument(f'--{name}', type=int, default=default, metavar='N',
                         help=f'{text} (default: %(default)s)')


def _add_index(command: argparse.ArgumentParser):
  command.add_argument('--documents', nargs='+', required=True, metavar='FILE',
                       help=_DOCUMENTS)
  command.add_argument('--encoder', default='', metavar='FOLDER_OR_HF',
                       help='a BERT, E5 or sentence-transformer: a folder, or hf:NAME')
  command.add_argument('--out', required=True, help='folder of the index')
  command.add_argument('--kind', default='flat', choices=['flat', 'ivfpq', 'hnsw', 'bm25'],
                       help='vectors: exact, or approximate by FAISS; or bm25, with '
                       '--config.env.bm25_k1, bm25_b and title_weight (default: %(default)s)')
  command.add_argument('--resume', action='store_true', help='go on after the last whole shard, '
                       'begin a bm25 that was killed anew, or give whole vectors another --kind')
  command.add_argument('--stored', default='float16', choices=['float16', 'float32'],
                       help='dtype of the vectors on disk (default: %(default)s)')
  command.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'],
                       help="of the encoder's products (default: %(default)s, in full)")
  command.add_argument('--template', default='{title} {text}',
                       help='what is read of a passage (default: %(default)s)')
  for text in ('query', 'passage'):
    command.add_argument(f'--{text}-prefix', metavar='TEXT', help=f'what stands before a {text} '
                         f'(default: what the encoder\'s folder says, or "{text}: " for E5)')
  command.add_argument('--max-length', type=int, metavar='TOKENS', help='where a passage is cut '
                       "(default: what the encoder's folder says)")
  command.add_argument('--shard-size', type=int, default=65536, metavar='PASSAGES',
                       help='written at once (default: %(default)s)')
  command.add_argument('--batch-tokens', type=int, metavar='TOKENS', help='encoded at once, '
                       'padding included (default: 2048 for each CPU, 32768 for another device)')


def run(argv: list[str] | None = None):
  """Entry point; user errors end with one line and status 2."""
  args, rest = _parser().parse_known_args(argv)
  try:
    config = configs.load(args.config, rest)
    if config.endpoint.url and args.command != 'evaluate':
      raise ValueError(f'endpoint.url {config.endpoint.url!r} is for `evaluate`; leave it out here')
    if 'distributed' in args:
      multihost.initialize(args.distributed)
    if config.compilation_cache:
      cache = os.path.abspath(os.path.expanduser(config.compilation_cache))
      jax.config.update('jax_compilation_cache_dir', cache)
    args.function(config, args)
  except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
    if os.environ.get('MEM1_TRACEBACK'):
      raise
    print(f'mem1 {args.command}: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  run()
