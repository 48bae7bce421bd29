"""The episodes of benchmarks/rollout.py, the same for every sampler; NumPy alone.

A turn reads its question, what the turn before wrote and the reply to it, all random ids. It
writes until it samples one of the ids that stop; a model of random weights samples all ids about
alike, so lengths are geometric: most turns are short, some run to the longest that they may be.
"""

import dataclasses
import json
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
  """What is sampled, and how many episodes at a time."""

  vocab_size: int
  slots: int  # episodes that are decoded side by side
  episodes: int
  turns: int
  question: int  # tokens
  reply: int  # tokens
  longest: int  # tokens that a turn may write
  mean: int = 0  # tokens after which a turn ends, on average, were there no longest; 0: never
  seed: int = 0
  latency_s: float = 0.0  # until a reply comes
  agent: str = 'mem1'  # or full_context: all turns stay
  is_lockstep: bool = False  # of ours: turns begin when all of the turns before have ended

  @property
  def stop_ids(self) -> list[int]:
    num = round(self.vocab_size / self.mean) if self.mean else 0
    return list(range(self.vocab_size - num, self.vocab_size))

  @property
  def longest_prompt(self) -> int:
    return self.question + (self.longest + self.reply if self.turns > 1 else 0)

  def ids(self, length: int, *number: int) -> list[int]:
    """Random ids, none of which stops; `number` says which."""
    rng = np.random.default_rng([self.seed, *number])
    return rng.integers(0, self.vocab_size - len(self.stop_ids), length).tolist()

  def waves(self, repeat: int, sample):
    """Episodes as libraries run them that know no turns: as many as there are slots, side by side.

    Args:
      repeat: changes questions and random numbers.
      sample: (prompts, number) → what each of them wrote, ids with those that stop.

    Returns:
      Tokens written, of all turns.
    """
    tokens = 0
    for begin in range(0, self.episodes, self.slots):
      tasks = range(begin, min(begin + self.slots, self.episodes))
      questions = [self.ids(self.question, repeat, task) for task in tasks]
      prompts = questions
      for turn in range(self.turns):
        written = sample(prompts, (repeat * self.episodes + begin) * self.turns + turn)
        tokens += sum(map(len, written))
        prompts = [question + wrote + self.ids(self.reply, repeat, task, turn)
                   for question, wrote, task in zip(questions, written, tasks)]
    return tokens


def read(path: str) -> tuple[dict, dict[str, Case]]:
  """The settings of benchmarks/rollout.py: all of them, and the cases by their names."""
  settings = json.loads(pathlib.Path(path).read_text())
  return settings, {name: Case(**case) for name, case in settings['cases'].items()}


def result(case: Case, seconds: float, tokens: int, **more) -> dict:
  return {'seconds': seconds, 'episodes_s': case.episodes / seconds, 'tokens_s': tokens / seconds,
          'tokens_per_turn': tokens / (case.episodes * case.turns), **more}
