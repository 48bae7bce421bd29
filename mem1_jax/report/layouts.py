"""Pictures of packed rows: their tokens, who sees whom, and what each turn reads and writes.

Rows are columns of `memory/layout.py`, masks come from `ops/masks.py`: nothing is computed here
that training computes elsewhere. Colours are Okabe and Ito's, one for each sort of token; what a
turn reads again is a paler shade of what was written.
"""

from collections.abc import Mapping, Sequence

from matplotlib import axes, colors, figure, patches, ticker
import numpy as np

from mem1_jax.types import (
    Action, ActionKind, Context, Kind, Question, Segment, Stop, Task, Trajectory, TurnRecord)

SORTS = {  # of tokens, as they follow one another in a context: (legend, colour)
    'question': ('question', '#9AA3B2'),
    'copy': ('read again', '#BFE1F6'),
    'information': ('information', '#CC79A7'),
    'think': ('memory, written', '#56B4E9'),
    'action': ('action, written', '#E69F00'),
}
LINES = {  # of layouts, in `pairs`: colour and marker
    'exact': {'color': '#0072B2', 'marker': 'o'},
    'stitched': {'color': '#009E73', 'marker': 's'},
    'full context': {'color': '#D55E00', 'marker': '^'},
}
_SEEN_BY_NOBODY = '#F1F2F5'  # earlier tokens that are hidden
_MAX_LABELLED = 48  # tokens of a row whose cells have room for text


def toy(num_turns: int, question: int = 3, written: int = 2, information: int = 1,
        is_append_only: bool = False) -> Trajectory:
  """An episode of turns that all write and are told so many tokens, without a model or a world.

  Raises:
    ValueError: a number below 1.
  """
  if min(num_turns, question, written, information) < 1:
    raise ValueError(f'a toy of {num_turns} turns, a question of {question} tokens, {written} '
                     f'written and {information} told in a turn needs numbers ≥ 1')
  actions = max(1, written // 4)
  kinds = (Kind.STATE,) * (written - actions) + (Kind.ACTION,) * actions
  segment = lambda kinds, ids, first: Segment(
      tuple(ids), tuple(range(first, first + len(ids))), tuple(kinds))
  prompt = segment((Kind.PROMPT,) * question, range(question), 0)
  turns, before, end, next_id = [], Segment((), (), ()), question, question
  for turn in range(num_turns):
    told = range(next_id, next_id + information * (turn > 0))
    ids = range(next_id + len(told), next_id + len(told) + written)
    kept = Segment((), (), ()) if is_append_only else before
    context = segment(kept.kinds + (Kind.INFO,) * len(told), (*kept.ids, *told),
                      end if is_append_only else question)
    end = (context.positions or prompt.positions)[-1] + 1
    before, next_id = segment(kinds, ids, end), next_id + len(told) + written
    turns.append(TurnRecord(Context(context, len(kept)), before, (0.0,) * written,
                            Action(ActionKind.SEARCH, ''), Stop.TAG, 0.0))
    end += written
  task = Task('toy', (Question('toy', '', ('',)),), ('[aa]',), 'toy')
  return Trajectory(task, prompt, tuple(turns), is_append_only)


def sorts(columns: Mapping[str, np.ndarray]) -> list[str]:
  """The key in `SORTS` of each token of a row."""
  names = {Kind.PROMPT: 'question', Kind.INFO: 'information', Kind.STATE: 'think',
           Kind.ACTION: 'action'}
  found = [names[Kind(int(kind))] for kind in columns['kind']]
  return ['copy' if name in ('think', 'action') and not is_generated else name
          for name, is_generated in zip(found, columns['is_generated'])]


def labels(columns: Mapping[str, np.ndarray]) -> list[str]:
  """What stands in each cell: q, g0 (turn 0 wrote it), c1 (turn 1 reads it again), i (told)."""
  texts = {'question': 'q', 'think': 'g{}', 'action': 'g{}', 'copy': 'c{}', 'information': 'i'}
  return [texts[name].format(turn) for name, turn in zip(sorts(columns), columns['turn'])]


def rows(pictured: Mapping[str, Mapping[str, np.ndarray]]) -> figure.Figure:
  """Short rows, token by token: what each is, its position and its key_end.

  Raises:
    ValueError: a row is too long for text in its cells.
  """
  longest = max(len(columns['tokens']) for columns in pictured.values())
  if longest > _MAX_LABELLED:
    raise ValueError(f'a row of {longest} tokens has no room for text in its cells, at most '
                     f'{_MAX_LABELLED} have; draw its mask')
  picture = figure.Figure(figsize=(1.5 + 0.44 * longest, 0.3 + 1.45 * len(pictured)),
                          layout='constrained')
  panels = np.atleast_1d(picture.subplots(len(pictured), 1))
  for panel, (name, columns) in zip(panels, pictured.items(), strict=True):
    panel.set(xlim=(-0.5, longest - 0.5), ylim=(3.05, -0.5))
    panel.set_title(name, loc='left', fontsize=11, fontweight='bold')
    panel.set_yticks([0.1, 1.1, 1.9, 2.7], ['token', 'index in the row', 'position', 'key_end'])
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    for i, (sort, label) in enumerate(zip(sorts(columns), labels(columns))):
      panel.add_patch(patches.Rectangle((i - 0.46, -0.42), 0.92, 1.0, color=SORTS[sort][1]))
      panel.text(i, 0.1, label, ha='center', va='center', fontsize=10)
      for y, value in ((1.1, i), (1.9, columns['position'][i]), (2.7, columns['key_end'][i])):
        panel.text(i, y, str(value), ha='center', va='center', fontsize=9,
                   color='#667085' if y == 1.1 else '#1c2330')
  _legend(picture, pictured)
  return picture


def masks(pictured: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]) -> figure.Figure:
  """Who sees whom in whole rows: a line for each token that looks, coloured by what it sees.

  Args:
    pictured: name → (columns, visible [S, S] of query and key, ops/masks.py).
  """
  sizes = [len(visible) for _, visible in pictured.values()]
  scale = 11.2 / sum(sizes)  # inches a token; the rest is for names
  picture = figure.Figure(figsize=(13.5, scale * max(sizes) + 1.3), layout='constrained')
  panels = np.atleast_1d(picture.subplots(1, len(sizes), width_ratios=sizes))
  for panel, (name, (columns, visible)) in zip(panels, pictured.items(), strict=True):
    size, is_visible = len(visible), np.asarray(visible, bool)
    paint = np.array([colors.to_rgb(SORTS[sort][1]) for sort in sorts(columns)])
    image = np.ones((size, size, 3))
    image[np.tril(np.ones((size, size), bool))] = colors.to_rgb(_SEEN_BY_NOBODY)
    image[is_visible] = np.broadcast_to(paint, image.shape)[is_visible]
    panel.imshow(image, interpolation='nearest', extent=(0, size, size, 0))
    panel.set_anchor('N')
    panel.set_title(f'{name}: {size:,} tokens\n{int(is_visible.sum()):,} pairs, '
                    f'{is_visible.sum() / (size * (size + 1) / 2):.0%} of a causal mask',
                    fontsize=11, loc='left')
    _divide(panel, columns)
  panels[0].set_ylabel('the token that looks (query), by turn')
  _legend(picture, {name: columns for name, (columns, _) in pictured.items()})
  return picture


def _divide(panel: axes.Axes, columns: Mapping[str, np.ndarray]):
  """Lines between turns, their names beside them; between tokens, too, where there are few."""
  turn, size = np.asarray(columns['turn']), len(columns['turn'])
  edges = [0, *(np.flatnonzero(np.diff(turn)) + 1).tolist(), size]
  middles = [(a + b) / 2 for a, b in zip(edges, edges[1:])]
  names = ['' if b - a < size / 40 else 'q' if turn[a] < 0 else str(turn[a])
           for a, b in zip(edges, edges[1:])]
  panel.set_xticks(middles, names, fontsize=9)
  panel.set_yticks(middles, names, fontsize=9)
  panel.tick_params(length=0)
  panel.set_xlabel('the token looked at (key), by turn')
  panel.spines[:].set_visible(False)
  if size <= _MAX_LABELLED:
    for i in range(1, size):
      panel.axhline(i, color='white', linewidth=1)
      panel.axvline(i, color='white', linewidth=1)
  for edge in edges[1:-1]:  # not above the diagonal, where nothing is
    panel.plot([0, edge, edge], [edge, edge, size], color='#667085', linewidth=0.6)


def pairs(num_turns: Sequence[int], counts: Mapping[str, Sequence[int]]) -> figure.Figure:
  """Visible pairs of a row against the turns of its episode, a line for each layout."""
  picture = figure.Figure(figsize=(6.6, 4.2), layout='constrained')
  panel = picture.subplots()
  for name, values in counts.items():
    panel.plot(num_turns, values, linewidth=2, label=name, **LINES.get(name, {}))
  panel.set_xscale('log', base=2)
  panel.set_yscale('log')
  panel.xaxis.set_major_locator(ticker.FixedLocator(list(num_turns)))
  panel.xaxis.set_major_formatter(ticker.FormatStrFormatter('%d'))
  panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.legend(frameon=False, fontsize=9)
  panel.set_xlabel('turns of the episode (log scale)')
  panel.set_ylabel('pairs that attention computes (log scale)')
  panel.grid(axis='y', color='#DDDDDD', linewidth=0.8)
  panel.spines[['top', 'right']].set_visible(False)
  return picture


def turns(pictured: Mapping[str, Trajectory]) -> figure.Figure:
  """What each turn of an episode has in its context, token by sort; agents side by side."""
  picture = figure.Figure(figsize=(11, 4), layout='constrained')
  panels = np.atleast_1d(picture.subplots(1, len(pictured), sharey=True))
  for panel, (name, trajectory) in zip(panels, pictured.items(), strict=True):
    heights = turn_tokens(trajectory)
    at, bottom = np.arange(len(trajectory.turns)), np.zeros(len(trajectory.turns))
    for sort, values in heights.items():
      panel.bar(at, values, bottom=bottom, width=0.8, color=SORTS[sort][1])
      bottom += values
    panel.annotate(f'{int(bottom.max())} tokens at most', (int(bottom.argmax()), bottom.max()),
                   xytext=(0, 4), textcoords='offset points', fontsize=9,
                   ha='right' if bottom.argmax() > len(at) / 2 else 'left')
    panel.set_title(name, loc='left', fontsize=11, fontweight='bold')
    panel.set_xlabel('turn')
    panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    panel.spines[['top', 'right']].set_visible(False)
  panels[0].set_ylabel('tokens in context')
  panels[0].set_ylim(top=panels[0].get_ylim()[1] * 1.05)
  _legend(picture, SORTS)
  return picture


def turn_tokens(trajectory: Trajectory) -> dict[str, np.ndarray]:
  """{sort: tokens of it in the context of each turn, when the turn has been written}."""
  counts = {sort: np.zeros(len(trajectory.turns), int) for sort in SORTS}
  older = {'copy': 0, 'information': 0}  # what an append-only agent still has
  for j, turn in enumerate(trajectory.turns):
    context = turn.context.segment.kinds if j else ()  # turn 0 reads the question alone
    told = sum(kind == Kind.INFO for kind in context)
    counts['question'][j] = len(trajectory.prompt)
    counts['copy'][j] = older['copy'] + len(context) - told
    counts['information'][j] = older['information'] + told
    counts['action'][j] = sum(kind == Kind.ACTION for kind in turn.written.kinds)
    counts['think'][j] = len(turn.written) - counts['action'][j]
    if trajectory.is_append_only:
      older = {'copy': counts['copy'][j] + len(turn.written),
               'information': counts['information'][j]}
  return counts


def _legend(picture: figure.Figure, pictured: Mapping):
  """The sorts of tokens that occur, below the picture."""
  used = set(pictured) if set(pictured) <= set(SORTS) else {
      sort for columns in pictured.values() for sort in sorts(columns)}
  handles = [patches.Patch(color=color, label=label)
             for sort, (label, color) in SORTS.items() if sort in used]
  picture.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False,
                 fontsize=9)
