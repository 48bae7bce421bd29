"""Turns that are read again, whole, in the ids that were sampled and told.

    a block   <think> … </think><search> … </search> │ <information> … </information>
              as it was written                      │ as the turn after it read it

A turn without a valid action is no memory and has no block; the correction that it got is read by
the next turn alone. So the last turn is the last one with a valid action, and where others failed
after it, it comes with its own reply and the correction behind that.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mem1_jax.memory import state
from mem1_jax.memory.positions import Gaps, stretch_prompt, turn_gap
from mem1_jax.text.prompts import encode_information, encode_task
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import ActionKind, Context, Segment, Task, TurnRecord

NOTHING = Segment((), (), ())
_TAGS = '<think></think><search></search>', '<information></information>'


@dataclasses.dataclass(frozen=True)
class Last:
  """The last turn and the new information: what an agent that reads turns again reads at least.

  Attributes:
    kept: what the turn wrote; with the reply to it where others failed after it.
    information: ids of the new block, both tags included.
    num_cut: information tokens that were left out to make room.
  """

  kept: Segment
  information: Sequence[int]
  num_cut: int

  def __len__(self) -> int:
    return len(self.kept) + len(self.information)


@dataclasses.dataclass(frozen=True)
class ReadingAgent:
  """An agent (agents/agent.py) whose every turn reads `[question | older | the last turn]` again.

  Attributes:
    name: by which its instructions are found (text/prompts.py).
  """

  tokenizer: Tokenizer
  context_capacity: int  # C, tokens
  prompt_style: str
  gaps: Gaps
  name: ClassVar[str]
  is_append_only: ClassVar[bool] = False

  def prompt(self, task: Task, rng: np.random.Generator | None) -> Segment:
    lines = encode_task(self.tokenizer, task, self.prompt_style, self.name)
    return stretch_prompt(lines, self.gaps, rng)

  def context(self, prompt: Segment, turns: Sequence[TurnRecord], information: str,
              rng: np.random.Generator | None) -> tuple[Context, int]:
    if not turns:
      return state.first_context(prompt), len(prompt) - 1
    latest = last(self.tokenizer, turns, information, self.context_capacity)
    older, latest = self.read(turns, latest)
    return read_again(prompt, older, latest, turn_gap(self.gaps, rng))

  def read(self, turns: Sequence[TurnRecord], latest: Last) -> tuple[Sequence[Segment], Last]:
    """What is read before the last turn, oldest first, and that turn, or more in its place."""
    raise NotImplementedError


def valid(turns: Sequence[TurnRecord]) -> list[int]:
  """The turns that had a valid action, by number."""
  return [j for j, turn in enumerate(turns) if turn.action.kind is not ActionKind.MALFORMED]


def block(turns: Sequence[TurnRecord], number: int) -> Segment:
  """What turn `number` wrote and the reply to it, which a turn after it has read."""
  following = turns[number + 1].context
  return tail(following.segment, following.num_carried - len(turns[number].written))


def tail(segment: Segment, begin: int) -> Segment:
  """The segment from token `begin` on."""
  return Segment(segment.ids[begin:], segment.positions[begin:], segment.kinds[begin:])


def last(tokenizer: Tokenizer, turns: Sequence[TurnRecord], information: str,
         capacity: int) -> Last:
  """The last turn and `information`, within `capacity` tokens.

  What has to go is the end of the information; of a correction, the reply before it.

  Raises:
    ValueError: the capacity cannot hold what the turn wrote and the tags of a reply.
  """
  kept, num_cut = _kept(tokenizer, turns, information, capacity)
  ids, num_more = encode_information(tokenizer, information, capacity - len(kept))
  return Last(kept, ids, num_cut + num_more)


def _kept(tokenizer: Tokenizer, turns: Sequence[TurnRecord], information: str,
          capacity: int) -> tuple[Segment, int]:
  """What stays of the last turn, and how many tokens of a reply had to go to make room."""
  numbers = valid(turns)
  if not numbers:
    return NOTHING, 0
  written = turns[numbers[-1]].written
  if numbers[-1] == len(turns) - 1:
    return written, 0
  with_reply = block(turns, numbers[-1])
  correction, _ = encode_information(tokenizer, information, capacity)
  if len(with_reply) + len(correction) <= capacity:
    return with_reply, 0
  return written, len(with_reply) - len(written)


def join(segments: Sequence[Segment]) -> Segment:
  """One behind another: positions go on without a gap, but for those within a segment."""
  ids, positions, kinds = [], [], []
  for segment in segments:
    first = positions[-1] + 1 if positions else 0
    ids += segment.ids
    positions += [p - segment.positions[0] + first for p in segment.positions]
    kinds += segment.kinds
  return Segment(tuple(ids), tuple(positions), tuple(kinds))


def read_again(prompt: Segment, older: Sequence[Segment], latest: Last,
               gap: int) -> tuple[Context, int]:
  """`Agent.context` of `[question | older, one behind another | the last turn]`.

  Args:
    gap: positions to skip before the new information.
  """
  kept = join([*older, latest.kept])
  context = state.carry(kept, latest.information, prompt.positions[-1] + 1, gap, latest.num_cut)
  return context, len(prompt)


def check_budget(tokenizer: Tokenizer, budget: int, capacity: int):
  """That a budget for more than the last turn can be one.

  Raises:
    ValueError: fewer tokens than the tags of a turn and its reply, or more than a turn may read.
  """
  least = sum(len(tokenizer.encode(tags)) for tags in _TAGS)
  if budget < least:
    raise ValueError(f'memory.budget {budget} cannot hold even the tags of a turn and of the reply '
                     f'to it; raise it to {least} or more')
  if budget > capacity:
    raise ValueError(f'memory.budget {budget} is more than the {capacity} tokens that a turn may '
                     'read; lower it, or raise rollout.context_capacity')
