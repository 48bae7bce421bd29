"""What the command line takes: every command and its options."""

import argparse

_DOCUMENTS = ('.jsonl or .jsonl.gz with a line of {"contents": "\\"Title\\"\\nText"} or {"title": …, '
              '"text": …} each; .json of {title: text or sentences}')


def parser() -> argparse.ArgumentParser:
  """Of all commands; `parse_args(…).command` is the name of the one that was given."""
  top = argparse.ArgumentParser(
      prog='mem1', description='Train and study language agents with constant memory.',
      epilog='Knobs of a config are overridden by --config.NAME=VALUE; configs/base.py has all.')
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def add(name: str, text: str, workdir: str | None = None):
    command = commands.add_parser(name, help=text, description=text, epilog=top.epilog)
    command.add_argument('--config', default='atlas', metavar='FILE_OR_NAME',
                         help='config file or packaged name (default: atlas)')
    if workdir:
      command.add_argument('--workdir', default=workdir, help='run folder (default: %(default)s)')
    return command

  def add_parallel(name: str, text: str, workdir: str):
    command = add(name, text, workdir)
    command.add_argument('--distributed', action='store_true', help='join the other processes of a '
                         'TPU pod, Slurm, Kubernetes or Open MPI job; those started by hand set '
                         'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID instead')
    return command

  command = add_parallel('train', 'PPO training.', 'runs/train')
  command.add_argument('--resume', action='store_true', help='continue from the last checkpoint')
  command.add_argument('--profile', type=int, default=0, metavar='ITERATION',
                       help='trace that iteration (≥ 1) for TensorBoard and Perfetto; 0 for none')
  command = add_parallel('sft', 'Supervised training: drills or the scripted expert.', 'runs/sft')
  command.add_argument('--resume', action='store_true', help='continue from the last checkpoint')
  _add_suite(add_parallel(
      'evaluate', 'Greedy evaluation of --config.init on eval.objectives; or of a model behind an '
      'OpenAI-compatible server, --config.endpoint.url.', 'runs/evaluate'))
  command = add('quickstart', 'PPO, evaluation of three agents, report.', 'runs/quickstart')
  command.add_argument('--resume', action='store_true', help='continue where it was stopped')
  _add_export(add('export', 'Writes parameters as a folder that transformers loads: --config.init, '
                  'or what a run has trained.'))
  command = add('plan', 'Does a run fit a TPU slice, and how fast could it be? Needs no TPU, but its '
                'compiler (the extra `tpu`). Status 1 where it does not fit.')
  command.add_argument('--topology', required=True, metavar='CHIP:SHAPE',
                       help='v5e, v5p or v6e and the shape of the slice: v5e:4x4, v5p:2x4x4')
  command.add_argument('--json', action='store_true', help='one JSON object instead of tables')
  command = add('tasks', 'Shows composed tasks, or writes them into a file.')
  command.add_argument('-n', '--num', dest='n', type=int, default=5, metavar='N',
                       help='how many (default: %(default)s)')
  command.add_argument('--start', type=int, default=0, help='index of the first')
  form = command.add_mutually_exclusive_group()
  form.add_argument('--json', action='store_true', help='one JSON line each')
  form.add_argument('--out', metavar='FILE', help="a new .parquet or .jsonl in veRL's schema, "
                    'instead of showing them; --config.data.source=verl:FILE reads it')
  command = add('inspect', 'Shows a trajectory turn by turn.')
  command.add_argument('file', help='a .jsonl of trajectories, as evaluation or the '
                       'MEM1 release writes it')
  command.add_argument('-n', type=int, default=0, help='which line, from 0')
  command.add_argument('--max-chars', type=int, default=None, help='cut long texts, saying so')
  command.add_argument('--html', default='', metavar='OUT.html', help='write a page of the whole '
                       'file instead: timelines, search, filters; no network needed')
  _add_report(add('report', 'One page and Markdown about runs: tables with intervals, figures, and '
                  'every trajectory as a timeline.'))
  command = add('knobs', 'Says what each knob of --config is, and its value there; * where that is not '
                "base.py's.")
  command.add_argument('text', nargs='?', default='', help='only those with it in their name or '
                       'description (default: all)')
  command.add_argument('--markdown', action='store_true', help='all, as docs/configs.md has them')
  _add_sweep(add('sweep', 'Runs a sweep: a command at many points of its knobs, one process and run '
                 'folder each (docs/sweeps.md).', 'runs/sweep'))
  _add_index(add('index', 'Writes passages with vectors, for dense retrieval, or with scores of BM25 '
                 'into a folder, which --config.env.documents and serve-retriever open '
                 '(docs/retrieval.md).'))
  add('chat', 'Answers your own questions over the embedded documents.')
  _add_server_arguments(add(
      'serve-retriever', "Serves search by HTTP in Search-R1's protocol: POST /retrieve, GET "
      '/health, GET /metrics. --config.env.bm25_k1 and its neighbours are used, reranker too; runs '
      'ask it with --config.env.retriever=URL. Needs the extra `retriever`.'))
  return top


def _add_export(command: argparse.ArgumentParser):
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


def _add_suite(command: argparse.ArgumentParser):
  command.set_defaults(config='')  # the suite's
  command.add_argument('--suite', default='', metavar='NAME', help='multi_objective, '
                       'single_hop_suite, web or webshop: its cells, and its config where none is '
                       'named (docs/evaluation.md)')
  command.add_argument('--data', default='', metavar='FOLDER', help="of the single-hop suite's sets, "
                       "in FlashRAG's form: FOLDER/nq/test.jsonl, FOLDER/hotpotqa/dev.jsonl, …")


def _add_report(command: argparse.ArgumentParser):
  command.add_argument('runs', nargs='+', metavar='RUN', help='folder of evaluate, train, sft or '
                       'quickstart; or a .jsonl of trajectories')
  command.add_argument('--out', required=True, metavar='FOLDER', help='gets index.html, report.md '
                       'and figures/')


def _add_sweep(command: argparse.ArgumentParser):
  command.add_argument('--sweep', default='', metavar='FILE_OR_NAME',
                       help='sweep file, or a name of configs/sweeps/')
  command.add_argument('--command', dest='stages', default='train', metavar='COMMAND',
                       help="train, sft or evaluate; or several, 'train then evaluate': each begins "
                       'with the parameters of the one before (default: %(default)s)')
  command.add_argument('--jobs', type=int, default=1, metavar='N', help='points at a time; CPU cores '
                       'and CUDA_VISIBLE_DEVICES are dealt out (default: %(default)s)')
  command.add_argument('--resume', action='store_true', help='continue: done points are left, '
                       'interrupted ones go on from their checkpoint, failed ones begin again')
  what = command.add_mutually_exclusive_group()
  what.add_argument('--list', action='store_true', help='print index, name and overrides of each '
                    'point, and run nothing')
  what.add_argument('--point', type=int, metavar='I', help='run that point alone, its output here: '
                    'for Slurm arrays and pods')
  what.add_argument('--report', action='store_true', help='write sweep.json, sweep.md, figures/ and '
                    'index.html of what is in --workdir, and run nothing')


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
