"""Environments that answer when they like: many calls at once, none of which may stop a run.

Each batch of actions is one call in a thread of its own, so that slow parts (retrieval) see batches
and nobody waits for them. What an environment raises is a fault of that episode, a call that does
not return in time one of all episodes in it: they end there, marked and counted.
"""

from collections.abc import Callable, Sequence
import dataclasses
import logging
import threading
import time
from typing import Any

from mem1_jax.types import Action, Observation

_MAX_STUCK = 64  # threads that may hang at a time
Answer = tuple[Observation | None, str]  # an observation, or why there is none


@dataclasses.dataclass(eq=False)
class _Call:
  """One batch of actions on its way."""

  items: Sequence[Any]
  thread: threading.Thread | None = None
  begun: float = dataclasses.field(default_factory=time.monotonic)
  answers: list[Answer] | None = None  # once it has returned
  seconds: float = 0.0  # that it took, however late it is received


class Replies:
  """Calls of `step_many` under way.

  Args:
    step_many: (episodes, actions) → observations (env/environment.py).
    timeout_s: seconds after which a call is given up.

  Attributes:
    latency_s: of recent calls, a running mean.
  """

  def __init__(self, step_many: Callable[[Sequence[Any], Sequence[Action]], list[Observation]],
               timeout_s: float):
    self._step_many, self._timeout_s = step_many, timeout_s
    self._calls: list[_Call] = []
    self._stuck: list[threading.Thread] = []
    self._returned = threading.Condition()
    self.latency_s = 0.0

  def __len__(self) -> int:
    """Actions that are not answered yet."""
    return sum(len(call.items) for call in self._calls)

  def send(self, items: Sequence[Any], episodes: Sequence[Any], actions: Sequence[Action]):
    """Steps the episodes; `items` come back with what they said.

    Raises:
      RuntimeError: so many calls hang that no more are made.
    """
    self._stuck = [thread for thread in self._stuck if thread.is_alive()]
    if len(self._stuck) >= _MAX_STUCK:
      raise RuntimeError(f'{_MAX_STUCK} calls of the environment have not returned within '
                         f'{self._timeout_s:g} s each; look at its servers, or raise '
                         'rollout.reply_timeout')
    call = _Call(items)
    # A daemon: what hangs for good must not keep the process alive.
    call.thread = threading.Thread(target=self._run, args=(call, episodes, actions), daemon=True)
    self._calls.append(call)
    call.thread.start()

  def _run(self, call: _Call, episodes, actions):
    answers = self._answers(episodes, actions)
    with self._returned:
      call.answers, call.seconds = answers, time.monotonic() - call.begun
      self._returned.notify_all()

  def _answers(self, episodes, actions) -> list[Answer]:
    before = [episode.turns for episode in episodes]
    try:
      observations = self._step_many(episodes, actions)
      if len(observations) != len(actions):
        raise ValueError(f'{len(observations)} observations of {len(actions)} actions')
      return [_answer(observation) for observation in observations]
    except Exception as error:  # pylint: disable=broad-except
      fault = f'{type(error).__name__}: {error}'
    if len(episodes) == 1:
      return [(None, fault)]
    # One of them may have failed all: those that have not moved are stepped alone.
    return [self._answers([episode], [action])[0] if episode.turns == turns else (None, fault)
            for episode, action, turns in zip(episodes, actions, before)]

  def receive(self, wait_s: float) -> list[tuple[Any, Observation | None, str]]:
    """(item, observation, fault) of what was answered, or given up, in the order it was sent.

    Args:
      wait_s: how long to wait for the first answer, seconds.
    """
    deadline = time.monotonic() + wait_s
    with self._returned:
      while not (over := [call for call in self._calls if self._is_over(call)]):
        left = min([deadline, *(call.begun + self._timeout_s for call in self._calls)]
                   ) - time.monotonic()
        if not self._calls or deadline <= time.monotonic():
          return []
        self._returned.wait(max(left, 0.0))
      self._calls = [call for call in self._calls if call not in over]
      received = [self._read(call) for call in over]
    return [each for answers in received for each in answers]

  def _is_over(self, call: _Call) -> bool:
    return call.answers is not None or time.monotonic() - call.begun >= self._timeout_s

  def _read(self, call: _Call):
    answers, seconds = call.answers, call.seconds
    if answers is None:
      self._stuck.append(call.thread)
      seconds = self._timeout_s
      answers = [(None, f'no reply within {self._timeout_s:g} s')] * len(call.items)
    self.latency_s += 0.2 * (seconds - self.latency_s)
    for _, fault in answers:
      if fault:
        logging.warning('an environment failed its episode: %s', fault)
    return [(item, *answer) for item, answer in zip(call.items, answers)]


def _answer(observation) -> Answer:
  if isinstance(observation, Observation):
    # A half of a surrogate pair is no text: tokenizers refuse it.
    text = observation.text.encode('utf-8', 'replace').decode('utf-8')
    return dataclasses.replace(observation, text=text), ''
  return None, f'TypeError: {type(observation).__name__} instead of an observation'
