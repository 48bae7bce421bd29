"""What a compiled program sends between devices, read off XLA's text of it."""

from collections.abc import Mapping
import dataclasses
import math
import re

KINDS = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
_ITEM_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4,
               'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%([\w.\-]+) = (.*)$')
_ARRAY = re.compile(r'\b(' + '|'.join(_ITEM_BYTES) + r')\[([\d,]*)\]')
_COLLECTIVE = re.compile(r' (' + '|'.join(KINDS) + r')(?:-start)?\((.*?)\)')
_CALLED = re.compile(r'(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_WHILE = re.compile(r' while\(.*body=%?([\w.\-]+)')
_CHANNEL = re.compile(r'channel_id=(\d+)')
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass
class _Computation:
  """One block of XLA's text, without what it calls."""

  sent: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)  # id → kind, bytes
  calls: list[str] = dataclasses.field(default_factory=list)
  loops: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # scope, body


def sent_bytes(text: str, trips: Mapping[str, float]) -> dict[str, float]:
  """Bytes of a whole run of the program by kind of collective, as one device sees them.

  An array counts with its size when put together: the result of a gather, what a reduction
  takes. The parts of one that runs beside other work count once.

  Args:
    text: `compiled.as_text()`.
    trips: how often the body of a loop runs, by the innermost `jax.named_scope` around it, or
      the innermost module's name; a loop of any other name counts once.
  """
  computations, entry = _parse(text)

  def flat(name):
    """(what the computation sends, its loops), those of what it calls included."""
    sent, loops = dict(computations[name].sent), list(computations[name].loops)
    for called in computations[name].calls:
      if called in computations:
        more_sent, more_loops = flat(called)
        sent |= more_sent
        loops += more_loops
    return sent, loops

  def total(name):
    sent, loops = flat(name)
    result = dict.fromkeys(KINDS, 0.0)
    for kind, size in sent.values():
      result[kind] += size
    for scope, body in loops:
      for kind, size in total(body).items():
        result[kind] += size * trips.get(scope, 1.0)
    return result

  return {kind: size for kind, size in total(entry).items() if size}


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
  computations, entry = {}, ''
  now, sizes, is_scatter = _Computation(), {}, False
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      now, sizes = computations.setdefault(head[2], _Computation()), {}
      is_scatter = head[2].startswith('all-reduce-scatter')
      entry = head[2] if head[1] else entry
    elif instruction := _INSTRUCTION.match(line):
      name, rest = instruction.groups()
      sizes[name] = _bytes(rest.partition('(')[0] if not rest.startswith('(') else
                           rest[:rest.index(')')])
      _read(now, sizes, name, rest, is_scatter)
  return computations, entry


def _read(computation, sizes, name, rest, is_scatter):
  if collective := _COLLECTIVE.search(rest):
    operands = sum(sizes.get(x.strip().lstrip('%').split(' ')[-1].lstrip('%'), 0)
                   for x in collective[2].split(','))
    kind = 'reduce-scatter' if is_scatter and collective[1] == 'all-reduce' else collective[1]
    channel = _CHANNEL.search(rest)
    computation.sent[channel[1] if channel else name] = kind, max(sizes[name], operands)
  if loop := _WHILE.search(rest):
    op_name = _NAME.search(rest)
    computation.loops.append((_scope(op_name[1] if op_name else ''), loop[1]))
    return
  computation.calls += _CALLED.findall(rest)
  for branches in _BRANCHES.findall(rest):
    computation.calls += [x.strip().lstrip('%') for x in branches.split(',')]


def _scope(op_name: str) -> str:
  """'micro_rows' of 'jit(update)/…/jvp(micro_rows)/while'."""
  parts = op_name.split('/')
  parts = parts[:-1] if parts[-1] == 'while' else parts
  while parts and parts[-1] in ('body', 'closed_call', 'while', 'cond', 'checkpoint', 'rematted_computation'):
    parts.pop()
  return re.sub(r'^(?:\w+\()*|\)*$', '', parts[-1]) if parts else ''


def _bytes(shapes: str) -> int:
  """Of the largest array named there: the parts of a started collective are the same array."""
  return max((_ITEM_BYTES[dtype] * math.prod(int(n) for n in dims.split(',') if n)
              for dtype, dims in _ARRAY.findall(shapes)), default=0)
