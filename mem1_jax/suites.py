"""Evaluation suites by name: cells, each a set of overrides of one config.

    suite              cells                                           its config
    multi_objective    1, 2, 3, 4, 6, 8, 16 and 32 questions a task    atlas
    single_hop_suite   one question a task, of seven sets of questions  atlas
    web                1 and 2 questions a task, in the web            web
    webshop            the shop's goals                                webshop

Overrides of a suite come after its config, or the one that is named, and before those of the
command line, which win. Turn budgets are the config's: slack grows with the questions, and
`env.turns=paper` is the paper's. The seven sets are those of Search-R1 (arXiv 2503.09516) in
FlashRAG's files (arXiv 2405.13576), all questions of the split that Search-R1 takes:

    FOLDER/nq/test.jsonl  FOLDER/hotpotqa/dev.jsonl  …
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SETS = ('nq', 'triviaqa', 'popqa', 'hotpotqa', '2wikimultihopqa', 'musique', 'bamboogle')
SPLITS = ('test', 'dev')  # the first that a set has

Cells = Mapping[str, Mapping[str, Any]]  # {str(objectives): cell}


@dataclasses.dataclass(frozen=True)
class Part:
  """The cells of one config.

  Attributes:
    folder: theirs, below the run's; '' for that itself.
    overrides: `--config.NAME=VALUE` each.
  """

  folder: str = ''
  overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Suite:
  """What is evaluated with one model in one world.

  Attributes:
    config: used where none is named.
    parts: they differ in `data` alone.
    missing: a line for each part whose data are not there.
  """

  config: str = 'atlas'
  parts: tuple[Part, ...] = (Part(),)
  missing: tuple[str, ...] = ()


SUITES = {
    'multi_objective': Suite('atlas', (Part('', (
        '--config.eval.objectives=(1, 2, 3, 4, 6, 8, 16, 32)',)),)),
    'web': Suite('web', (Part('', ('--config.domain=web', '--config.eval.objectives=(1, 2)')),)),
    'webshop': Suite('webshop', (Part('', (
        '--config.domain=webshop', '--config.data.objectives=(1, 1)',
        '--config.eval.objectives=(1,)')),)),
}
_OF_SETS = 'single_hop_suite'


def find(name: str, data: str = '') -> Suite:
  """The suite of a name; '' for the config's own cells.

  Args:
    data: folder of the single-hop suite's sets.

  Raises:
    ValueError: there is no such suite, it has no use for a folder, or needs one.
    FileNotFoundError: the folder has none of the sets.
  """
  if name == _OF_SETS:
    return _of_sets(data)
  if name and name not in SUITES:
    raise ValueError(f'--suite={name!r} is unknown; choose one of {sorted([*SUITES, _OF_SETS])}')
  if data:
    raise ValueError(f'--data={data} is for --suite={_OF_SETS}; elsewhere --config.data.source says '
                     'where questions come from')
  return SUITES[name] if name else Suite()


def _of_sets(data: str) -> Suite:
  if not data:
    raise ValueError(f'--suite={_OF_SETS} reads FOLDER/nq/test.jsonl and so on; say where by '
                     '--data=FOLDER')
  parts, missing = [], []
  for name in SETS:
    files = [pathlib.Path(data, name, f'{split}.jsonl') for split in SPLITS]
    file = next((file for file in files if file.is_file()), None)
    if file:
      parts.append(Part(name, (
          '--config.domain=qa', f'--config.data.source=jsonl:{file}', '--config.data.fields=',
          '--config.data.weights=()', '--config.data.dependent=0', '--config.data.objectives=(1, 1)',
          # All questions of the file: its split is the test's.
          '--config.data.shares=(0.0, 0.0, 1.0)', '--config.eval.split=test',
          '--config.eval.objectives=(1,)')))
    else:
      missing.append(f'{name} is not there: neither {files[0]} nor {files[1]}')
  if not parts:
    raise FileNotFoundError('\n'.join([f'--data={data} has none of {", ".join(SETS)}:', *missing]))
  return Suite('atlas', tuple(parts), tuple(missing))


def check(suite: Suite, overrides: Sequence[str]):
  """Raises ValueError where an override would make parts of the suite alike."""
  names = {text.partition('=')[0] for text in overrides}
  for name in sorted(names):
    if len({_last(part.overrides, name) for part in suite.parts}) > 1:
      raise ValueError(f'{name} is what tells the parts of this suite apart; leave it out, or '
                       '--suite')


def _last(overrides: Sequence[str], name: str) -> str:
  return next((text for text in reversed(overrides) if text.startswith(f'{name}=')), '')


def shown(suite: Suite, cells: Sequence[Cells]) -> str:
  """The cells of each part as lines, their mean where there are several parts, what is missing."""
  lines = [f'{"":16} {"N":>3} {"EM":>7} {"EM/N":>6} {"F1":>7} {"reward":>7} {"peak":>6} '
           f'{"turns":>6} {"tasks":>6}']
  for part, some in zip(suite.parts, cells, strict=True):
    for objectives, cell in some.items():
      lines.append(_line(part.folder, objectives, cell) + f' {cell["episodes"]:6d}')
  if len(suite.parts) > 1:
    of_one = [cell for some in cells for cell in some.values()]
    names = ('em', 'em_per_question', 'f1', 'reward', 'peak_tokens', 'turns')
    means = {name: statistics.fmean(cell[name] for cell in of_one) for name in names}
    lines.append(_line(f'mean of {len(suite.parts)} sets', '', means))
  return '\n'.join([*lines, *suite.missing])


def _line(label: str, objectives: str, cell: Mapping[str, float]) -> str:
  return (f'{label:16} {objectives:>3} {cell["em"]:7.3f} {cell["em_per_question"]:6.3f} '
          f'{cell["f1"]:7.3f} {cell["reward"]:7.3f} {cell["peak_tokens"]:6.0f} {cell["turns"]:6.1f}')
