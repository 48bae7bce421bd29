"""Every agent, and turns written by hand (shared by tests)."""

from mem1_jax import types
from mem1_jax.agents.amem import AMemAgent, hashed_words
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.agents.threshold import ThresholdAgent
from mem1_jax.agents.truncation import TruncationAgent
from mem1_jax.data import sources
from mem1_jax.memory.positions import Gaps
from mem1_jax.memory.segments import parse_turn
from mem1_jax.text.tokenizer import SentencePieceTokenizer

TOKENIZER = SentencePieceTokenizer(sources.tokenizer_path())
TASK = types.Task('t', (types.Question('a', 'Capital of Norway?', ('Oslo',)),), ('[kf]',), 'test')
AGENTS = (Mem1Agent, FullContextAgent, TruncationAgent, ThresholdAgent, AMemAgent)
# Turns of 7 tokens each; with a reply of one letter, 10.
A, B, C, D = (f'<think>{i}</think><search> {name}</search>'
              for i, name in enumerate(('Rome', 'Lima', 'Peru', 'Porto')))


def make(agent, capacity, gaps=Gaps(0, 0, 0.0), budget=None, notes=2, embed=hashed_words):
  """An agent of this class; a budget of None is all of the capacity."""
  budget = capacity if budget is None else budget
  more = {TruncationAgent: (budget,), ThresholdAgent: (budget,), AMemAgent: (budget, notes, embed)}
  return agent(TOKENIZER, capacity, 'atlas', gaps, *more.get(agent, ()))


def size(text):
  """Tokens of what agents write, or of blocks with their tags."""
  return len(TOKENIZER.encode(text))


def told(text):
  return f'<information>{text}</information>'


def turn(context, text):
  """What was written in that context, with the action and the kinds that its text has."""
  ids = tuple(TOKENIZER.encode(text))
  parsed, first = parse_turn(ids, TOKENIZER.token_bytes), context.segment.positions[-1] + 1
  written = types.Segment(ids, tuple(range(first, first + len(ids))),
                          tuple(map(types.Kind, parsed.kind.tolist())))
  return types.TurnRecord(context, written, (0.0,) * len(ids), parsed.action, types.Stop.TAG, 0.0)


def play(agent, script, rng=None):
  """(prompt, contexts that each turn read, the next one's last) of (text, what it is told) pairs."""
  prompt = agent.prompt(TASK, rng)
  turns, (context, _) = [], agent.context(prompt, (), '', rng)
  contexts = [context]
  for text, information in script:
    turns.append(turn(contexts[-1], text))
    context, keep = agent.context(prompt, turns, information, rng)
    assert agent.is_append_only or keep == len(prompt)
    contexts.append(context)
  return prompt, contexts


def seen(agent, script):
  """Texts that turns 1, 2, … read beside the question."""
  prompt, contexts = play(agent, script)
  for context in contexts[1:]:
    positions = context.segment.positions
    assert positions == tuple(range(len(prompt), len(prompt) + len(positions)))
  return [TOKENIZER.decode(context.segment.ids) for context in contexts[1:]]
