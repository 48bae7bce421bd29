"""The QA world has what the protocols ask for."""

import inspect

from mem1_jax import types
from mem1_jax.env import environment
from mem1_jax.env import qa


class Nothing:

  def search(self, queries, top_k):
    return [[] for _ in queries]


def test_qa_is_an_environment():
  config = qa.QAConfig(top_k=1, max_passage_chars=9, slack=1, max_turns=None)
  task = types.Task('t', (types.Question('q', 'What?', ('a',)),), ('[kf]',), 'test')
  episode = qa.QAEnvironment(Nothing(), config).start(task)
  for name in environment.Episode.__annotations__:
    assert hasattr(episode, name), name
  for protocol, cls in ((environment.Episode, qa.QAEpisode),
                        (environment.Environment, qa.QAEnvironment)):
    methods = [n for n, f in vars(protocol).items() if inspect.isfunction(f) and n[0] != '_']
    assert methods
    for name in methods:
      ours, theirs = (inspect.signature(getattr(c, name)) for c in (cls, protocol))
      assert list(ours.parameters) == list(theirs.parameters)
