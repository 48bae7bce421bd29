"""How many tasks a second are composed? Over a list of questions, for training to wait for none.

    python benchmarks/compose.py [--source SPEC] [--objectives 1 2 8 16] [--out FILE]

Composes tasks of single questions in batches, as the feeds do, and counts tasks a second:

    compose     Composer.tasks, on one core
    cpu         the same in a second of CPU time, which other programs cannot take away
    cores       the same in a process for each core, as hosts of a batch that is so much larger
    numpy, tf   the feeds of data/pipeline.py, whole batches in one process
    dependent   chained questions of the atlas (data/chains.py)
    encode      compose, then token ids of every task's prompt, on one core

and checks, over two epochs, what is promised: each question once per epoch; two hosts disjoint
and complete; a feed continued in the middle of an epoch goes on as it would have.

Without --source it is the embedded atlas's training questions. Medians of --repeats runs of at
least --seconds each, after one that warms up. The last line is JSON, tasks a second.
"""

import argparse
import itertools
import json
import multiprocessing
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mem1_jax import metrics  # noqa: E402
from mem1_jax.data import chains, pipeline, sources  # noqa: E402
from mem1_jax.data.atlas.labels import LABELS  # noqa: E402
from mem1_jax.data.compose import Composer  # noqa: E402
from mem1_jax.text.prompts import encode_task  # noqa: E402
from mem1_jax.text.tokenizer import SentencePieceTokenizer  # noqa: E402

WAYS = ('compose', 'cpu', 'cores', 'numpy', 'tf', 'dependent', 'encode')


def rate(batches, batch: int, seconds: float, clock=time.perf_counter) -> float:
  """Tasks a second of an endless iterator of batches."""
  begun = clock()
  for number, _ in enumerate(batches, 1):
    elapsed = clock() - begun
    if elapsed >= seconds:
      return number * batch / elapsed


def composed(composer, batch: int, host: int = 0, hosts: int = 1):
  """Endless batches of tasks, every one new; a host's share of them."""
  share = batch // hosts
  for number in itertools.count():
    first = number * batch + host * share
    yield composer.tasks(range(first, first + share))


def encoded(composer, batch: int, tokenizer):
  for tasks in composed(composer, batch):
    yield [encode_task(tokenizer, task, 'base') for task in tasks]


def _host(composer, batch, host, hosts, seconds, barrier, queue):
  batches = composed(composer, batch * hosts, host, hosts)
  next(batches)
  barrier.wait()
  queue.put(rate(batches, batch, seconds))


def on_cores(composer, batch: int, cores: int, seconds: float) -> float:
  """The sum of a process for each core, all at once."""
  context = multiprocessing.get_context('spawn')
  barrier, queue = context.Barrier(cores), context.SimpleQueue()
  hosts = [context.Process(target=_host, args=(composer, batch, host, cores, seconds, barrier,
                                               queue)) for host in range(cores)]
  for host in hosts:
    host.start()
  found = sum(queue.get() for _ in hosts)
  for host in hosts:
    host.join()
  return found


def measure(args, composer, dependent, tokenizer) -> dict[str, list[float]]:
  """{way: tasks a second of each run} for one number of objectives."""
  batch, seconds = args.batch, args.seconds
  runs = {
      'compose': lambda: rate(composed(composer, batch), batch, seconds),
      'cpu': lambda: rate(composed(composer, batch), batch, seconds, time.process_time),
      'cores': lambda: on_cores(composer, batch, args.cores, seconds),
      'numpy': lambda: rate(pipeline.numpy_feed(composer, batch, 0), batch, seconds),
      'tf': lambda: rate(pipeline.tfdata_feed(composer, batch, 0), batch, seconds),
      'dependent': lambda: rate(composed(dependent, batch), batch, seconds),
      'encode': lambda: rate(encoded(composer, batch, tokenizer), batch, seconds),
  }
  if not pipeline.importlib.util.find_spec('tensorflow'):
    del runs['tf']
  found = {}
  for way in args.ways:
    if way in runs:
      runs[way]()  # warms up
      found[way] = [runs[way]() for _ in range(args.repeats)]
  return found


def check(composer, objectives: int, batch: int) -> dict[str, bool]:
  """What is promised, over two epochs of tasks."""
  num, size = composer.epoch_slots, batch // 2 * 2
  num_batches = -(-2 * num // (objectives * size))

  def used(start, count, host=0, hosts=1):
    feed = pipeline.numpy_feed(composer, size, start, host, hosts)
    return [[q.id for task in part.tasks for q in task.questions]
            for part in itertools.islice(feed, count)]

  whole = used(0, num_batches)
  ids = [i for part in whole for i in part]
  half = num_batches // 2
  halves = [used(0, num_batches, host, 2) for host in range(2)]
  uses, position = [set(), set()], 0  # (epoch, question) of each host
  for parts in zip(*halves):
    for mine, part in zip(uses, parts):
      mine.update(((position + i) // num, question) for i, question in enumerate(part))
      position += len(part)
  return {
      'once_per_epoch': all(len(set(ids[e * num:(e + 1) * num])) == num for e in range(2)),
      'hosts_disjoint_and_complete': not uses[0] & uses[1] and whole == [
          a + b for a, b in zip(*halves)],
      'resume_identical': used(half * size, num_batches - half) == whole[half:],
  }


def table(cells: dict[int, dict], ways) -> str:
  lines = ['tasks/s     ' + ''.join(f'{way:>11}' for way in ways) + '  promises']
  for objectives, cell in cells.items():
    rates = [f'{statistics.median(cell["raw"][way]):11,.0f}' if way in cell['raw'] else f'{"–":>11}'
             for way in ways]
    broken = [name for name, kept in cell['promises'].items() if not kept]
    lines.append(f'{objectives:>3} questions' + ''.join(rates).removeprefix(' ')
                 + f'  {"broken: " + ", ".join(broken) if broken else "kept"}')
  return '\n'.join(lines)


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', default='', help='as sources.load takes it, such as '
                      'hotpotqa:dev.json; default: the atlas\'s training questions')
  parser.add_argument('--objectives', type=int, nargs='+', default=[1, 2, 8, 16])
  parser.add_argument('--ways', nargs='+', default=list(WAYS), choices=WAYS)
  parser.add_argument('--batch', type=int, default=256, help='tasks of each process, even')
  parser.add_argument('--cores', type=int, default=2, help='processes of `cores`')
  parser.add_argument('--repeats', type=int, default=3, help='timed runs of each')
  parser.add_argument('--seconds', type=float, default=1.0, help='of each run, at least')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def main():
  args = parse()
  begun = time.perf_counter()
  asked = (sources.load(args.source).questions if args.source else sources.load_atlas('train'))
  loading = time.perf_counter() - begun
  linked = 'dependent' in args.ways and chains.link(sources.load_atlas('train'), 2, args.seed)
  tokenizer = SentencePieceTokenizer(sources.tokenizer_path())
  print(f'{len(asked)} questions in {loading:.2f} s, {len(linked or ())} chains', file=sys.stderr)
  cells = {}
  for objectives in args.objectives:
    composer = Composer(asked, objectives, args.seed, LABELS, 'benchmark')
    dependent = linked and chains.DependentComposer(linked, objectives, args.seed, LABELS)
    cells[objectives] = {'raw': measure(args, composer, dependent, tokenizer),
                         'promises': check(composer, objectives, args.batch)}
    print(f'{objectives} objectives: done', file=sys.stderr, flush=True)
  if args.out:
    knobs = {name: value for name, value in vars(args).items() if name not in ('out', 'source')}
    args.out.write_text(json.dumps({
        'knobs': knobs | {'source': pathlib.PurePath(args.source).name or 'atlas'},
        'questions': len(asked), 'chains': len(linked or ()), 'loading_s': loading,
        'commit': metrics.commit(), 'versions': metrics.versions(), 'machine': metrics.machine(),
        'cases': cells}, indent=1) + '\n')
  print(table(cells, args.ways))
  print(json.dumps({str(objectives): {way: round(statistics.median(raw))
                                      for way, raw in cell['raw'].items()} | cell['promises']
                    for objectives, cell in cells.items()}))


if __name__ == '__main__':
  main()
