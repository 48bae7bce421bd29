"""Trajectories ⇄ packed rows.

The exact layout writes an episode of turns 0…n-1 as one row:

    tokens    q q q | g0 g0 | c1 c1 c1 g1 g1 | c2 c2 c2 g2 g2 | …
    position  0 1 2 | 3 4   | 3 4 5 6 7      | 3 4 5 6 7      | …
    generated 0 0 0 | 1 1   | 0 0 0 1 1      | 0 0 0 1 1      |
    key_end   ← end of episode | ← each token: end of its own turn

`q` the question, `g` what a turn generated, `c` the context it re-read (a copy
of the turn before and its information). Every token sees the question and its
own turn, which is what the sampler saw: log-probs are equal at equal weights.

The stitched layout (arXiv 2506.15841) keeps one copy of each token:

    tokens    q q q | g0 g0 i0 | g1 g1 i1 | g2 …
    key_end   end of episode | each token: end of the *next* turn

It is not exact from turn 2 on (the keys of turn j were computed while turn j-1
was visible); it is here to measure that. An append-only agent's row is plain
causal: every key_end is the end of the episode.

Several episodes share a row where they fit; padding has key_end 0.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mem1_jax.arrays import Episodes, Tags
from mem1_jax.types import Kind, Segment, Trajectory

LAYOUTS = ('exact', 'stitched')


@dataclasses.dataclass(frozen=True)
class PackStats:
  """How well rows were filled: `fill` is tokens over capacity of used rows."""

  num_rows: int
  num_tokens: int
  fill: float


class _RowWriter:
  """Appends segments of one episode to columns, [tokens of the episode]."""

  def __init__(self):
    self.columns = {name: [] for name in (
        'tokens', 'kind', 'turn', 'position', 'key_end', 'is_generated', 'logprob', 'reward')}

  def __len__(self) -> int:
    return len(self.columns['tokens'])

  def add(self, segment: Segment, turn: int, logprobs=None, reward: float = 0.0):
    n = len(segment)
    c = self.columns
    c['tokens'].extend(segment.ids)
    c['kind'].extend(segment.kinds)
    c['turn'].extend([turn] * n)
    c['position'].extend(segment.positions)
    c['key_end'].extend([0] * n)
    c['is_generated'].extend([logprobs is not None] * n)
    c['logprob'].extend([0.0] * n if logprobs is None else logprobs)
    c['reward'].extend([0.0] * (n - 1) + [reward] if n else [])

  def see_until(self, begin: int, end: int, key_end: int):
    self.columns['key_end'][begin:end] = [key_end] * (end - begin)

  def arrays(self) -> dict[str, np.ndarray]:
    dtypes = {'is_generated': bool, 'logprob': np.float32, 'reward': np.float32}
    return {name: np.asarray(values, dtypes.get(name, np.int32))
            for name, values in self.columns.items()}


def lay_out(trajectory: Trajectory, layout: str = 'exact') -> dict[str, np.ndarray]:
  """Columns of one episode, each [tokens of the episode], key_end counted from its start.

  Raises:
    ValueError: on an unknown layout, or a turn that generated nothing.
  """
  if layout not in LAYOUTS:
    raise ValueError(f'layout {layout!r} is unknown; choose one of {LAYOUTS}.')
  is_stitched = layout == 'stitched' and not trajectory.is_append_only
  row = _RowWriter()
  row.add(trajectory.prompt, -1)
  begins = []  # of each turn's block: what it alone (or it and the next turn) sees
  shift = 0
  for j, turn in enumerate(trajectory.turns):
    if not len(turn.written):
      raise ValueError(f'turn {j} of task {trajectory.task.id!r} generated no token.')
    context = turn.context.segment if j else _EMPTY  # turn 0 reads the prompt's last token
    carried = turn.context.num_carried if j and is_stitched else 0
    if carried and context.ids[:carried] != trajectory.turns[j - 1].written.ids:
      carried = 0  # it carries more than the last turn, which the row has no single copy of
    if carried:  # the copy that the row has stands `shift` positions further on
      shift = row.columns['position'][-1] - context.positions[carried - 1]
    if is_stitched:
      row.add(_moved(context, carried, shift), j - 1)
      begins.append(len(row))
    else:
      begins.append(len(row))
      row.add(context, j)
    row.add(_moved(turn.written, 0, shift), j, turn.logprobs, turn.reward)
  total = len(row)
  edges = begins + [total, total]
  row.see_until(0, len(trajectory.prompt), total)
  for j, begin in enumerate(begins):
    key_end = total if trajectory.is_append_only else edges[j + 2 if is_stitched else j + 1]
    row.see_until(begin, edges[j + 1], key_end)
  return row.arrays()


_EMPTY = Segment((), (), ())


def _moved(segment: Segment, begin: int, shift: int) -> Segment:
  """The segment from `begin` on, its positions moved by `shift`."""
  positions = tuple(p + shift for p in segment.positions[begin:])
  return Segment(segment.ids[begin:], positions, segment.kinds[begin:])


def lay_out_text(prompt: Segment, target: Sequence[int]) -> dict[str, np.ndarray]:
  """Columns of a plain text: `target` is to be predicted after `prompt`."""
  row, n = _RowWriter(), len(target)
  first = prompt.positions[-1] + 1
  row.add(prompt, -1)
  row.add(Segment(tuple(target), tuple(range(first, first + n)), (Kind.STATE,) * n), 0, (0.0,) * n)
  row.see_until(0, len(row), len(row))
  return row.arrays()


class Packer:
  """Fills [num_rows, row_length] with laid out episodes, first fit."""

  def __init__(self, num_rows: int, row_length: int, pad_id: int):
    self._num_rows, self._row_length, self._pad_id = num_rows, row_length, pad_id
    self._rows: list[list[dict[str, np.ndarray]]] = []
    self._free: list[int] = []

  def add(self, columns: dict[str, np.ndarray]) -> bool:
    """Puts an episode into the first row with room; False where none has.

    Raises:
      ValueError: when the episode is longer than any row.
    """
    length = len(columns['tokens'])
    if length > self._row_length:
      raise ValueError(f'an episode of {length} tokens does not fit a row of {self._row_length}; '
                       'raise rows.length, or lower the token or turn budgets.')
    row = next((r for r, space in enumerate(self._free) if space >= length), len(self._rows))
    if row == self._num_rows:
      return False
    if row == len(self._rows):
      self._rows.append([])
      self._free.append(self._row_length)
    self._rows[row].append(columns)
    self._free[row] -= length
    return True

  def flush(self) -> tuple[Episodes, PackStats]:
    """The rows so far as numpy arrays, unused ones all padding; the packer is empty then."""
    episodes = _write_rows(self._rows, self._num_rows, self._row_length, self._pad_id)
    num_rows, num_free = len(self._rows), sum(self._free)
    self._rows, self._free = [], []
    size = num_rows * self._row_length
    num_tokens = size - num_free
    return episodes, PackStats(num_rows, num_tokens, num_tokens / max(1, size))


def pack(columns: Sequence[dict[str, np.ndarray]], num_rows: int, row_length: int,
         pad_id: int) -> tuple[Episodes, PackStats]:
  """First-fit packing, longest first, of all episodes into [num_rows, row_length].

  Raises:
    ValueError: when an episode is longer than a row, or the rows do not suffice.
  """
  packer = Packer(num_rows, row_length, pad_id)
  for episode in sorted(columns, key=lambda c: -len(c['tokens'])):
    if not packer.add(episode):
      raise ValueError(f'{len(columns)} episodes need more than {num_rows} rows of {row_length} '
                       'tokens; raise the number of rows.')
  return packer.flush()


def _write_rows(rows, num_rows, row_length, pad_id) -> Episodes:
  shape = (num_rows, row_length)
  out = {name: np.zeros(shape, np.int32) for name in ('kind', 'position', 'key_end')}
  out |= {name: np.full(shape, -1, np.int32) for name in ('turn', 'episode')}
  out |= {name: np.zeros(shape, np.float32) for name in ('logprob', 'reward')}
  out['tokens'] = np.full(shape, pad_id, np.int32)
  out['is_generated'] = np.zeros(shape, bool)
  for r, members in enumerate(rows):
    begin = 0
    for e, columns in enumerate(members):
      end = begin + len(columns['tokens'])
      for name, values in columns.items():
        out[name][r, begin:end] = values + (begin if name == 'key_end' else 0)
      out['episode'][r, begin:end] = e
      begin = end
  tags = Tags(**{f.name: out[f.name] for f in dataclasses.fields(Tags)})
  return Episodes(out['tokens'], tags, out['logprob'], out['reward'])
