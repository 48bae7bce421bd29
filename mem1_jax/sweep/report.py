"""The report of a sweep's folder: sweep.json, sweep.md, figures/*.png and index.html."""

import base64
import dataclasses
import html
import pathlib

from mem1_jax.report import page, runs
from mem1_jax.sweep import plots, results
from mem1_jax.sweep.folder import folder_of


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes it from what there is by now; returns the page's path.

  Raises:
    FileNotFoundError: the folder holds no sweep.
  """
  sweep = results.collect(workdir)
  figures = plots.write(workdir / 'figures', sweep)
  (workdir / 'sweep.json').write_text(results.as_json(sweep), encoding='utf-8')
  (workdir / 'sweep.md').write_text(
      results.markdown(sweep, [f'figures/{file.name}' for file in figures]), encoding='utf-8')
  title = f'Sweep {sweep.name}: {" then ".join(sweep.commands)}'
  first = (f'<h2>{html.escape(title)}</h2>{results.table(sweep)}<div class="figures">'
           + ''.join(map(_picture, figures)) + '</div>')
  path = workdir / 'index.html'
  path.write_text(page.report(_found(workdir, sweep), title, first).html, encoding='utf-8')
  return path


def _picture(file: pathlib.Path) -> str:
  data = base64.b64encode(file.read_bytes()).decode()
  return (f'<div class="figure"><img alt="{html.escape(file.stem)}" '
          f'src="data:image/png;base64,{data}"></div>')


def _found(workdir: pathlib.Path, sweep: results.Sweep) -> runs.Found:
  """The runs of all points; their names are the points'."""
  places = [folder_of(workdir, row.point) for row in sweep.rows]
  try:
    found = runs.find([place for place in places if place.exists()])
  except ValueError:  # nothing has come to a number yet
    return runs.Found(())
  curves = tuple(dataclasses.replace(curve, run=curve.run.removesuffix('/train'))
                 for curve in found.curves)
  return dataclasses.replace(found, curves=curves)
