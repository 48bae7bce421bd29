"""`main plan`: does a run fit a TPU slice, and how fast could it be? Without the slice.

The device programs of a run are compiled for the slice by the TPU compiler itself, so memory and
collectives are what it decided. Time is a roofline: arithmetic and traffic that cannot be avoided,
over the chip's published rates. Nothing is timed, a real run takes longer.
"""

from collections.abc import Callable
import dataclasses
import functools
import logging
import math
import re
import time
from typing import Any

import jax
import numpy as np
from rich import box, console, table

from mem1_jax import assemble, roofline, train
from mem1_jax.arrays import overlay
from mem1_jax.memory import layout
from mem1_jax.model import ModelConfig, precision
from mem1_jax.parallel import collectives, topology
from mem1_jax.roofline import Cost, Workload

GIB = 2**30
HBM_KINDS = ('policy', 'critic', 'reference', 'optimizer', 'rollout copy', 'cache', 'questions',
             'batch', 'outputs', 'temporaries', 'program')
# What the compiler says of a program that does not fit: all that it needs, or its temporaries alone.
_HBM_NEEDED = re.compile(r'Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm')
_HBM_TEMPORARIES = re.compile(r'HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds')
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


@dataclasses.dataclass
class Report:
  """One program: what it needs of each chip, and what it costs.

  Attributes:
    hbm: bytes by kind, of the program and of what stays on the chip meanwhile.
    sent: bytes by kind of collective in one iteration, as one chip sees them.
    compile_s: seconds of compilation here.
    roofline_s: seconds that one iteration takes at least: not timed.
    limit: what those seconds are spent on: 'arithmetic', 'memory' or 'links'.
    is_known: False where the compiler gave up: 'temporaries' is then from its message.
  """

  hbm: dict[str, float]
  cost: Cost
  sent: dict[str, float]
  compile_s: float
  roofline_s: float
  limit: str
  is_known: bool = True

  @property
  def hbm_bytes(self) -> float:
    return sum(self.hbm.values())


@dataclasses.dataclass
class Plan:
  """All programs of a run on a slice."""

  topology: str
  chip: topology.Chip
  num_chips: int
  mesh: dict[str, int]
  workload: Workload
  programs: dict[str, Report]
  remedies: list[str]

  @property
  def fits(self) -> bool:
    return all(p.hbm_bytes <= self.chip.hbm_bytes for p in self.programs.values())

  def json(self) -> dict[str, Any]:
    """Numbers alone, for programs; bytes are per chip but `cost`, which is over all."""
    return {
        'fits': self.fits, 'topology': self.topology, 'chip': self.chip.name,
        'num_chips': self.num_chips, 'hbm_bytes': self.chip.hbm_bytes, 'mesh': self.mesh,
        'workload': dataclasses.asdict(self.workload),
        'programs': {name: {
            'hbm_bytes': p.hbm_bytes, 'hbm': p.hbm, 'flops': p.cost.flops,
            'traffic_bytes': p.cost.hbm_bytes, 'collective_bytes': p.sent,
            'compile_s': p.compile_s, 'roofline_s': p.roofline_s, 'limit': p.limit,
        } for name, p in self.programs.items()},
        'remedies': self.remedies}


class _Tokenizer:
  """All that the programs need to know of one: how many ids there are."""

  def __init__(self, vocab_size: int):
    self.vocab_size, self.token_bytes = vocab_size, (b'x',) * vocab_size
    self.eos_id = self.pad_id = 0


def make(config: Any, topology_name: str, say: Callable[[str], None] = logging.info) -> Plan:
  """Compiles the programs of `config` for a slice and reports on them.

  Args:
    config: configs/base.py.
    topology_name: such as 'v5p:2x4x4'.
    say: told what is being compiled, since that takes minutes.

  Raises:
    ValueError: an unknown slice, a mesh that does not fit it, or no TPU compiler.
  """
  chip, devices = topology.chip(topology_name), topology.devices(topology_name)
  sizes = assemble.model_config(config)
  policy = assemble.make_policy(config, _Tokenizer(sizes.vocab_size), devices)
  programs = train.make_programs(config, _Tokenizer(sizes.vocab_size), policy,
                                 assemble.agent_class(config).is_append_only)
  config = config.copy_and_resolve_references()
  config.mesh.update(policy.mesh.shape)
  refilled = programs.engine.num_groups * programs.engine.refill_rows
  work, num = roofline.workload(config, refilled), policy.mesh.size
  trips = _trips(config, policy.config, work)
  resident = _resident(programs)
  trained = num * (resident['policy'] + resident['critic'] + resident['optimizer'])
  cost = roofline.costs(config, policy.config, work, num, trained)
  reports = {}
  with topology.no_compilation_cache():
    for name, compiled in _programs(programs, config).items():
      say(f'compiling {name} for {topology_name}')
      parts = [_report(lower, arguments, resident | beside, chip, num, cost[name], trips)
               for lower, arguments, beside in compiled]
      reports[name] = functools.reduce(_together, parts)
  plan = Plan(topology_name, chip, num, dict(policy.mesh.shape), work, reports, [])
  plan.remedies = remedies(plan, config)
  return plan


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _bytes(shapes, shardings) -> float:
  """That one device holds of the arrays."""
  if isinstance(shardings, jax.sharding.Sharding):
    shardings = jax.tree.map(lambda _: shardings, shapes)
  return float(sum(
      math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize
      for x, s in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)))


def _resident(programs) -> dict[str, float]:
  """Bytes on a chip all through training."""
  state, where = programs.state, programs.shardings
  return {
      'policy': _bytes(state.policy, where.state.policy),
      'critic': _bytes(state.value, where.state.value),
      'reference': _bytes(programs.reference, where.reference),
      'optimizer': _bytes((state.policy_opt, state.value_opt),
                          (where.state.policy_opt, where.state.value_opt))}


def _programs(programs, config) -> dict[str, list[tuple[Callable, dict, dict]]]:
  """What each consists of: how to lower it, the bytes of its arguments that have a kind, and of
  what else stays meanwhile.
  """
  state, where, engine = programs.state, programs.shardings, programs.engine
  rows = _shapes(layout.Packer(config.ppo.num_rows, config.rows.length, 0).flush()[0])
  number, coef = jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  score = (state.policy, state.value, programs.reference, coef, rows, number)
  batch, resident = jax.eval_shape(programs.score, *score), _resident(programs)
  reads_policy = config.critic == 'head' or config.ppo.tis_cap
  used = ('policy',) * bool(reads_policy) + ('critic', 'reference')
  lies = overlay(where.reference, where.state.policy)
  wide = overlay(programs.reference, state.policy)
  weights = jax.eval_shape(programs.as_read, wide)
  is_copy = precision.which_change(programs.as_read, wide, lies, engine.params)
  copied, shared = (_bytes(*zip(*[(x, s) for x, s, c in zip(*map(jax.tree.leaves, (
      weights, engine.params, is_copy))) if c is kind] or [((), ())])) for kind in (True, False))
  store, slots = map(_bytes, engine.state, engine.state_shardings)
  acting = {'policy': shared, 'rollout copy': copied}
  return {
      'rollout': [
          (lambda: engine.lower_refill(weights), acting | {'cache': slots, 'questions': store}, {}),
          (lambda: engine.lower_decode(weights), acting | {'cache': slots}, {'questions': store})],
      'score': [(lambda: programs.score.lower(*score), {kind: resident[kind] for kind in used},
                 {})],
      'update': [(lambda: programs.update.lower(state, batch, number, key, programs.reference),
                  resident, {})]}


def _together(one: Report, other: Report) -> Report:
  """Two programs that take turns: what the larger needs, what both send."""
  larger = max(one, other, key=lambda report: report.hbm_bytes)
  sent = {kind: one.sent.get(kind, 0.0) + other.sent.get(kind, 0.0)
          for kind in one.sent | other.sent}
  slower = max(one, other, key=lambda report: report.roofline_s)
  return dataclasses.replace(
      larger, sent=sent,
      compile_s=one.compile_s + other.compile_s, roofline_s=slower.roofline_s, limit=slower.limit,
      is_known=one.is_known and other.is_known)


def _report(lower, arguments, resident, chip, num_chips, cost, trips) -> Report:
  begun = time.monotonic()
  hbm = resident | {kind: size for kind, size in arguments.items() if kind not in resident}
  lowered, sent, is_known = lower(), {}, True
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    hbm['temporaries'] = refused_temporaries(str(error), sum(arguments.values()), chip)
    is_known = False
  else:
    memory = compiled.memory_analysis()
    hbm |= {
        'batch': max(0.0, memory.argument_size_in_bytes - sum(arguments.values())),
        'outputs': memory.output_size_in_bytes - memory.alias_size_in_bytes,
        'temporaries': memory.temp_size_in_bytes,
        'program': memory.generated_code_size_in_bytes}
    sent = collectives.sent_bytes(compiled.as_text(), trips)
  # A reduction to all is a reduction and a gather.
  links = sum(size * (2 if kind == 'all-reduce' else 1) for kind, size in sent.items())
  times = {'arithmetic': cost.flops / (num_chips * chip.flops),
           'memory': cost.hbm_bytes / (num_chips * chip.hbm_bandwidth),
           'links': links / chip.ici_bandwidth}
  limit = max(times, key=times.get)
  return Report(hbm, cost, sent, time.monotonic() - begun, times[limit], limit, is_known)


def refused_temporaries(message: str, argument_bytes: float, chip: topology.Chip) -> float:
  """Bytes of temporaries of a program that the compiler refused, from what it said.

  All of the chip's, which is too many at any rate, where it said something unknown.
  """
  if found := _HBM_TEMPORARIES.search(message):
    return float(found[1]) * _UNITS[found[2]]
  if found := _HBM_NEEDED.search(message):
    return max(0.0, float(found[1]) * _UNITS[found[2]] - argument_bytes)
  logging.warning('the compiler said in a way that is not known: %s', message)
  return chip.hbm_bytes


def _trips(config, model: ModelConfig, work: Workload) -> dict[str, float]:
  """How often loops run, by their scopes: those whose number a program does not fix, too."""
  p = config.ppo
  micro = math.ceil(work.rows / (p.minibatches * p.micro_rows))
  waves = math.ceil(work.episodes / work.slots)
  described = work.turns * work.written / work.tokens() * work.row_length
  return {
      'epochs': p.epochs, 'minibatches': p.minibatches, 'micro_rows': micro,
      'score_rows': micro * p.minibatches, 'Transformer': model.num_layers,
      'loss_rows': math.ceil(described / p.logprob_chunk),
      # One refill and a few steps are compiled; an iteration has so many of each.
      'prefill': work.refills() * math.ceil(work.read / config.rollout.prefill_chunk),
      'decode': waves * work.turns * work.written}


def remedies(plan: Plan, config: Any) -> list[str]:
  """Knobs that make room, with what each frees on a chip, the most first; [] where all fits."""
  if plan.fits:
    return []
  worst = max(plan.programs.values(), key=lambda p: p.hbm_bytes)
  hbm, shards = worst.hbm, plan.mesh['data'] * plan.mesh['fsdp']
  found = []

  def add(size, text):
    if size > 0.01 * plan.chip.hbm_bytes:
      found.append((size, f'{text} frees about {size / GIB:.1f} GiB'))

  optimizer, critic = hbm['optimizer'], hbm['critic']
  if not config.lora.rank:
    add(optimizer + critic + hbm['policy'] - hbm['reference'],
        "lora.rank=16 critic=lora (adapters beside one frozen base)")
    if config.optim.mu_dtype == 'float32':
      add(optimizer / 4, 'optim.mu_dtype=bfloat16')
  if config.critic == 'separate':
    add(critic + optimizer / 2, "critic=head (a value head on the actor's trunk)")
  if config.reference != 'none' and not config.lora.rank and config.critic != 'lora':
    add(hbm['reference'], 'reference=none ppo.kl_coef=0')
  if plan.mesh['data'] > 1:
    add((1 - 1 / plan.mesh['data']) * (optimizer + critic + hbm['policy'] + hbm['reference']),
        f"mesh.data=1 mesh.fsdp={plan.mesh['data'] * plan.mesh['fsdp']}")
  temporaries = hbm['temporaries']
  if config.ppo.micro_rows > shards:
    add(temporaries * (1 - shards / config.ppo.micro_rows), f'ppo.micro_rows={shards}')
  if config.model.remat != 'full':
    add(temporaries / 2, 'model.remat=full')
  if config.rollout.num_slots > shards:
    add(hbm.get('cache', 0) / 2, f'rollout.num_slots={config.rollout.num_slots // 2}')
  found.sort(reverse=True)
  need = math.ceil(plan.num_chips * worst.hbm_bytes / plan.chip.hbm_bytes)
  return [text for _, text in found] + [
      f'a larger slice: what is there now needs about {need} chips of this kind or more']


def show(plan: Plan) -> None:
  """Prints the plan as tables."""
  work = plan.workload
  mesh = ' x '.join(f'{axis} {size}' for axis, size in plan.mesh.items())
  out = console.Console()
  out.print(f'[bold]{plan.topology}[/bold]: {plan.num_chips} x {plan.chip.name} of '
            f'{plan.chip.hbm_bytes / GIB:.2f} GiB, mesh {mesh}', highlight=False)
  out.print(
      f'an iteration: {work.episodes} episodes of {work.turns} turns (question {work.question}, '
      f'read {work.read}, written {work.written} tokens), {work.rows} rows of {work.row_length}',
      highlight=False)
  out.print(_table('GiB on each chip', plan, {
      kind: lambda p, kind=kind: f'{p.hbm.get(kind, 0) / GIB:.2f}' for kind in HBM_KINDS
      if any(p.hbm.get(kind) for p in plan.programs.values())} | {
          'sum': lambda p: f'{p.hbm_bytes / GIB:.2f}',
          '': lambda p: '[green]fits[/green]' if p.hbm_bytes <= plan.chip.hbm_bytes
                        else '[red]does not fit[/red]'}))
  out.print(_table('one iteration at least (roofline, not timed on TPU)', plan, {
      'TFLOP': lambda p: f'{p.cost.flops / 1e12:.4g}',
      'memory traffic, GB': lambda p: f'{p.cost.hbm_bytes / 1e9:.4g}'} | {
          f'{kind}, GB a chip': lambda p, kind=kind: _sent(p, kind) for kind in collectives.KINDS
          if any(kind in p.sent for p in plan.programs.values())} | {
          'roofline, s': lambda p: f'{p.roofline_s:.3g}', 'limit': lambda p: p.limit,
          'compiled here in s': lambda p: f'{p.compile_s:.0f}'}))
  if plan.fits:
    out.print('[green]fits[/green]')
    return
  out.print('[red]does not fit[/red]; what makes room on a chip:')
  for remedy in plan.remedies:
    out.print(f'  {remedy}', highlight=False)


def _table(title: str, plan: Plan, lines: dict[str, Callable[[Report], str]]) -> table.Table:
  """A column for each program."""
  shown = table.Table(title=title, title_justify='left', box=box.SIMPLE_HEAD)
  for heading in ('', *plan.programs):
    shown.add_column(heading, justify='right' if heading else 'left', no_wrap=True)
  for name, text in lines.items():
    shown.add_row(name, *(text(p) for p in plan.programs.values()))
  return shown


def _sent(report: Report, kind: str) -> str:
  return f'{report.sent.get(kind, 0) / 1e9:.3g}' if report.is_known else 'unknown'
