"""The episodes that benchmarks give to all peers: random ids, as long as MEM1's (arXiv 2506.15841)."""

import numpy as np

from mem1_jax.arrays import Episodes
from mem1_jax.memory import layout
from mem1_jax.rl import advantages
from mem1_jax.types import (
    Action, ActionKind, Context, Kind, Question, Segment, Stop, Task, Trajectory, TurnRecord)

_EMPTY = Segment((), (), ())
_LENGTHS = {'question': 500, 'think': 200, 'action': 50, 'information': 450}


def add_lengths(parser):
  """The flags that say how long episodes are."""
  for name, tokens in _LENGTHS.items():
    parser.add_argument(f'--{name}', type=int, default=tokens, help='tokens (default: %(default)s)')


def episode(args, num_turns: int, vocab_size: int, rng: np.random.Generator) -> Trajectory:
  """One of random ids; the sampler's log-probs are those of a policy that is not far.

  Args:
    args: with the tokens of the `question`, and of each turn's `think`, `action`, `information`.
  """
  prompt = _segment(_draw(rng, vocab_size, args.question), 0, {Kind.PROMPT: args.question})
  kinds, context, turns = {Kind.STATE: args.think, Kind.ACTION: args.action}, Context(_EMPTY), []
  for j in range(num_turns):
    if j:
      carried = turns[-1].written.ids
      reply = _draw(rng, vocab_size, args.information)
      context = Context(_segment(carried + reply, args.question, kinds | {Kind.INFO: len(reply)}),
                        len(carried))
    begin, length = args.question + len(context.segment), args.think + args.action
    logprobs = -np.log(vocab_size) + 0.1 * rng.standard_normal(length)
    is_last = j == num_turns - 1
    turns.append(TurnRecord(
        context, _segment(_draw(rng, vocab_size, length), begin, kinds), tuple(logprobs.tolist()),
        Action(ActionKind.ANSWER if is_last else ActionKind.SEARCH, ''), Stop.TAG,
        float(rng.random()) if is_last else 0.0))
  task = Task('random', (Question('random', '', ('',)),), ('a',), 'random')
  return Trajectory(task, prompt, tuple(turns), is_append_only=False)


def _draw(rng, vocab_size: int, num: int) -> tuple[int, ...]:
  return tuple(rng.integers(0, vocab_size, num).tolist())


def _segment(ids: tuple[int, ...], begin: int, counts: dict[Kind, int]) -> Segment:
  kinds = tuple(kind for kind, num in counts.items() for _ in range(num))
  return Segment(ids, tuple(range(begin, begin + len(ids))), kinds)


def pack(trajectories: list[Trajectory], name: str) -> Episodes:
  """A row for each, in their order: all are of one length."""
  columns = [layout.lay_out(t, name) for t in trajectories]
  return layout.pack(columns, len(columns), max(len(c['tokens']) for c in columns), 0)[0]


def visible_pairs(key_end_BS: np.ndarray) -> float:
  """Pairs of query and key that the masks of all rows leave."""
  return float(np.maximum(key_end_BS - np.arange(key_end_BS.shape[1])[None], 0).sum())


def batch(trajectories: list[Trajectory], rng: np.random.Generator) -> dict[str, np.ndarray]:
  """What an update reads, [rows, tokens] each: of exact rows, and `stitched_…` of the others."""
  exact, stitched = (pack(trajectories, name) for name in layout.LAYOUTS)
  is_generated = exact.tags.is_generated
  value = np.where(is_generated, 0.1 * rng.standard_normal(is_generated.shape), 0)
  value = value.astype(np.float32)
  advantage = advantages.gae(exact.reward, value, exact.tags, 1.0, 1.0)
  target = np.where(is_generated, advantage + value, 0)
  scored = {'value': value, 'target': target,
            'advantage': np.asarray(advantages.whiten(advantage, is_generated))}
  arrays = {}
  for prefix, rows in (('', exact), ('stitched_', stitched)):
    tags = rows.tags
    named = {'tokens': rows.tokens, 'logprob': rows.logprob, 'position': tags.position,
             'key_end': tags.key_end, 'is_generated': tags.is_generated, 'turn': tags.turn,
             'episode': tags.episode}
    for name, x in scored.items():  # both layouts hold what was generated in the same order
      named[name] = np.zeros(rows.tokens.shape, np.float32)
      named[name][tags.is_generated] = x[is_generated]
    arrays |= {prefix + name: x for name, x in named.items()}
  return arrays
