"""The loop that plays scripts: what it records, and what is not to be learned."""

from mem1_jax import types
from mem1_jax.agents import play
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.data import sources
from mem1_jax.env import qa
from mem1_jax.memory.positions import Gaps
from mem1_jax.text.tokenizer import SentencePieceTokenizer

TOKENIZER = SentencePieceTokenizer(sources.tokenizer_path())
AGENT = Mem1Agent(TOKENIZER, 300, 'atlas', Gaps(0, 0, 0.0))
TASK = types.Task('t', (types.Question('q', 'Capital of Norway?', ('Oslo',)),), ('[kf]',), 'test')
CONFIG = qa.QAConfig(top_k=1, max_passage_chars=99, slack=None, max_turns=4)


class Shelf:
  """A retriever that finds what it is asked for (a fake)."""

  def search(self, queries, top_k):
    return [[types.Passage(query, 'Its capital is Oslo.')] for query in queries]


class Script:
  """Searches for one name after another, then answers."""

  def __init__(self, *names):
    self.names, self.told, self.asked = list(names), [], []

  def write(self, is_last_turn, mistake):
    self.asked.append(is_last_turn)
    if is_last_turn or not self.names:
      return '<think>x</think><answer> Oslo</answer>', False
    name = self.names.pop(0)
    mistaken = mistake(name)
    return f'<think>x</think><search> {mistaken or name}</search>', bool(mistaken)

  def read(self, action, information):
    self.told.append((action.text, information.split('\n')[0]))


def run(script, **options):
  episode = qa.QAEpisode(TASK, Shelf(), CONFIG)
  return play.play(script, TASK, AGENT, episode, TOKENIZER, None, **options)


def test_a_script_is_asked_and_told_turn_by_turn():
  script = Script('Norway', 'Bergen')
  played = run(script)
  assert script.asked == [False, False, False]
  assert script.told == [('Norway', ' Turns left: 3.'), ('Bergen', ' Turns left: 2.')]
  assert (played.answer, played.reward, played.searches) == ('Oslo', 1.0, 2)
  assert [turn.action.text for turn in played.turns] == ['Norway', 'Bergen', 'Oslo']
  assert all(turn.logprobs == (0.0,) * len(turn.written) for turn in played.turns)


def test_the_last_turn_is_announced():
  script = Script(*'abcdef')
  assert run(script).reward == 1.0
  assert script.asked == [False] * 3 + [True]


def test_mistakes_and_garble_are_not_to_be_learned():
  broken = iter([None, '<think>x', None])
  script = Script('Norway')
  played = run(script, mistake=lambda name: name[::-1], garble=lambda text: next(broken))
  assert [turn.logprobs is None for turn in played.turns] == [True, True, False]
  assert script.told == [('yawroN', ' Turns left: 3.'), ('think not closed', ' Turns left: 2.')]


def test_an_episode_that_runs_out_ends_the_play():
  played = run(Script(), garble=lambda text: '<think>')
  assert (len(played.turns), played.answer, played.reward) == (4, None, 0.0)
