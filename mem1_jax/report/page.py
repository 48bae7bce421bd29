"""One HTML page of a run: the report, and every trajectory as a timeline. Nothing is fetched.

Templates lie beside this file. Text from outside reaches the page in two ways only: escaped here,
or in base64 (report/pack.py), which viewer.js turns into text nodes. The page's own policy lets
nothing run and nothing load but the script and the style that are in it, by their hashes.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import html
import pathlib
import re
import string
from typing import Any

from mem1_jax.report import charts, pack, paper, records, results, runs

_FOLDER = pathlib.Path(__file__).parent
# metric → the title of its chart over objectives
RESULTS = {
    'em': 'EM, sum over questions', 'em_per_question': 'EM per question',
    'peak_tokens': 'Peak context, tokens without the question',
    'seconds': 'Seconds of a trajectory',
}  # fmt: skip
# name in metrics.jsonl → the title of its chart over steps
TRAINING = {
    'reward': 'Mean reward', 'rollout_em': 'EM of training episodes', 'loss': 'Loss',
    'kl': 'KL to the reference', 'entropy': 'Entropy, nats a token',
    'clip_fraction': 'Share of clipped ratios',
    'explained_variance': 'Explained variance of values',
    'policy_grad_norm': "Norm of the policy's gradient", 'rollout_turns': 'Turns of an episode',
    'rollout_peak_tokens': 'Peak context of an episode, tokens',
    'rollout_generated_tokens': 'Generated tokens of an episode', 'eval_em': 'EM in validation',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Page:
  """A page; a notebook shows it in a frame."""

  html: str
  height: int = 760  # pixels in a notebook

  def _repr_html_(self) -> str:
    return (f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="{self.height}" '
            'style="border:1px solid #8884;border-radius:8px"></iframe>')


def viewer(trajectories: Sequence[Mapping[str, Any]], title: str = 'Trajectories',
           problems: Sequence[str] = ()) -> Page:
  """A page of trajectories alone.

  Args:
    trajectories: records (report/console.py).
    problems: lines about what could not be read, shown above the list.

  Raises:
    ValueError: a record is malformed.
  """
  for record in trajectories:
    records.check(record)
  packer = pack.Packer()
  for i, record in enumerate(trajectories):
    packer.add(f'{_slug(title)}/{i}', 0, record)
  return Page(_page(title, '', [''], packer, problems, 'only-viewer viewing'))


def report(found: runs.Found, title: str = 'mem1_jax report', first: str = '') -> Page:
  """The whole page of what was found in run folders.

  Args:
    first: HTML to be seen first, instead of the headline.
  """
  packer, groups = pack.Packer(), []
  for cell in found.cells:
    if not cell.records:
      continue
    name = results.label(cell, found)
    if name not in groups:
      groups.append(name)
    for i, record in enumerate(cell.records):
      packer.add(f'{_key(cell, found)}/{i}', groups.index(name), record)
  return Page(_page(title, first + _report(found, not first), groups, packer, found.problems,
                    'viewing' if not found.evaluated and not found.curves else ''))


def write(folder: pathlib.Path, found: runs.Found) -> pathlib.Path:
  """Writes index.html, report.md and figures/*.svg into `folder`; returns the page's path.

  Raises:
    ValueError: `folder` is a file.
  """
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'{folder} is a file; give a folder, new or not')
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  names = []
  for name, picture in figures(found, is_file=True).items():
    names.append(f'figures/{name}.svg')
    (folder / names[-1]).write_text(picture, encoding='utf-8')
  (folder / 'report.md').write_text(results.markdown(found, names), encoding='utf-8')
  path = folder / 'index.html'
  path.write_text(report(found).html, encoding='utf-8')
  return path


def _page(title: str, body: str, groups: Sequence[str], packer: pack.Packer,
          problems: Sequence[str], mode: str) -> str:
  chart_css, css, script = (_read(name) for name in ('chart.css', 'page.css', 'viewer.js'))
  style = chart_css + css
  policy = ("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"script-src '{_hash(script)}'; style-src '{_hash(style)}'")
  data = pack.encode({'groups': list(groups), 'problems': list(problems)} | packer.packed)
  return string.Template(_read('page.html')).substitute(
      policy=policy, title=html.escape(title), style=style, mode=mode, report=body, data=data,
      script=script)


def _read(name: str) -> str:
  return (_FOLDER / name).read_text(encoding='utf-8')


def _hash(text: str) -> str:
  return f'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'


def _slug(text: str) -> str:
  return re.sub(r'[^\w.+-]+', '-', text).strip('-') or 'trajectories'


def _key(cell: runs.Cell, found: runs.Found) -> str:
  """A cell's part of a link; with its run where there are several."""
  name = f'{cell.agent}-{cell.objectives}'
  is_alone = len({other.run for other in found.cells}) == 1
  return _slug(name if is_alone else f'{cell.run}-{name}')


def figures(found: runs.Found, *, is_file: bool = False) -> dict[str, str]:
  """{name: SVG} of what there are numbers for."""
  pictures = {}
  styles = {name: i for i, name in enumerate(
      dict.fromkeys(row.label for row in sorted(results.rows(found), key=results.order)))}
  for metric, title in RESULTS.items():
    lines = {name: [] for name in styles}
    for cell in found.evaluated:
      if metric in cell.estimates:
        one = cell.estimates[metric]
        lines[results.label(cell, found)].append(
            charts.Point(cell.objectives, one.mean, one.low, one.high))
    if any(lines.values()):
      series = [charts.Series(name, styles[name], tuple(points))
                for name, points in lines.items() if points]
      pictures[metric] = charts.line_chart(title, series, 'objectives of a task (log scale)',
                                           is_log2=True, is_file=is_file)
  for name, title in TRAINING.items():
    series = [charts.Series(curve.run, i, charts.thinned(curve.lines[name]))
              for i, curve in enumerate(found.curves) if name in curve.lines]
    if series:
      pictures[f'training_{name}'] = charts.line_chart(
          title, series, 'step', is_from_zero=False, is_file=is_file)
  return pictures


def _report(found: runs.Found, has_claims: bool) -> str:
  """The report as HTML."""
  parts = []
  if has_claims and (claims := results.claims(found)):
    parts.append('<div class="claims">' + ''.join(
        f'<div{" class=void" * claim.is_void}><strong>{html.escape(claim.number)}</strong>'
        f'<p>{html.escape(claim.text)}</p></div>' for claim in claims) + '</div>')
  rows, theirs = results.rows(found), results.paper_rows()
  for title, names in results.TABLES.items():
    if kept := results.columns(names, rows):
      parts += [f'<h2>{title}</h2>', _table(rows, kept, found)]
  if rows:
    parts.append(f'<p class="legend">{html.escape(results.LEGEND)}</p>')
  pictures = figures(found)
  for title, is_training in (('Against the number of objectives', False), ('Training', True)):
    some = [svg for name, svg in pictures.items() if name.startswith('training_') == is_training]
    if some:
      parts.append(f'<h2>{title}</h2><div class="figures">' + ''.join(
          f'<div class="figure">{svg}</div>' for svg in some) + '</div>')
  names = results.columns([name for group in results.TABLES.values() for name in group], theirs)
  parts += [f'<h2>For orientation: the paper</h2><p class="legend">{html.escape(paper.CAVEAT)}</p>',
            _table(theirs, names, found)]
  for title, said in (('Where from', found.origins), ('What could not be read', found.problems)):
    if said:
      lines = ''.join(f'<li>{html.escape(line)}</li>' for line in said)
      parts.append(f'<h2>{title}</h2><ul class="legend">{lines}</ul>')
  return ''.join(parts)


def _table(rows: Sequence[results.Row], names: Sequence[str], found: runs.Found) -> str:
  headings = ''.join(f'<th>{html.escape(results.COLUMNS[name][0])}</th>' for name in names)
  bodies = []
  for size in sorted({row.objectives for row in rows}):
    same = [row for row in rows if row.objectives == size]
    lines = [_table_row(row, names, found) for row in same]
    # One number for its rows: they are to be read side by side.
    lines[0] = lines[0].replace('>', f'><td class="n" rowspan="{len(same)}">{size}</td>', 1)
    bodies.append(f'<tbody>{"".join(lines)}</tbody>')
  return (f'<div class="sheet"><table><thead><tr><th>N</th><th class="agent">agent</th>{headings}'
          f'</tr></thead>{"".join(bodies)}</table></div>')


def _table_row(row: results.Row, names: Iterable[str], found: runs.Found) -> str:
  name = html.escape(row.label)
  if row.cell and row.cell.records:
    name = f'<a href="#{_key(row.cell, found)}/0">{name}</a>'
  cells = ''
  for metric in names:
    mean, interval = results.value(row.values.get(metric), metric)
    cells += f'<td>{mean}{f"<small>{interval}</small>" * bool(interval)}</td>'
  kind = '' if row.cell else ' class="paper"'
  return f'<tr{kind}><td class="agent">{name}</td>{cells}</tr>'
