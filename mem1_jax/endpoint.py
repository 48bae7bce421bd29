"""A model behind an OpenAI-compatible server in place of parameters: from a config to its parts."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from mem1_jax import assemble, domains
from mem1_jax.retrieval import metrics_of
from mem1_jax.retrieval.endpoint import check_secret
from mem1_jax.rollout import completions
from mem1_jax.rollout.remote import RemoteCollector
from mem1_jax.rollout.served import Limits, ServedModel, base_url
from mem1_jax.rollout.slots import Job
from mem1_jax.rollout.stats import RolloutStats
from mem1_jax.text.conversation import with_markers
from mem1_jax.text.tokenizer import Tokenizer
from mem1_jax.types import Trajectory


def sampling(config: Any) -> completions.Settings:
  """What is asked beside the prompt.

  Raises:
    ValueError: a knob is out of its range.
  """
  e = config.endpoint
  extra = extra_fields(e.extra, 'endpoint.extra')
  try:
    return completions.Settings(e.api, e.model, e.temperature, e.top_p, config.seed, extra)
  except ValueError as error:
    raise ValueError(f'endpoint.{error}') from error


def extra_fields(text: str, name: str) -> dict[str, Any]:
  """Further fields of a request, of a knob.

  Raises:
    ValueError: it is no JSON object, or has a field of the prompt's.
  """
  try:
    extra = json.loads(text or '{}')
  except ValueError as error:
    raise ValueError(f'{name} {text!r} is no JSON ({error})') from error
  if not isinstance(extra, dict) or not extra.keys().isdisjoint(('prompt', 'messages', 'stream')):
    raise ValueError(f'{name} {text!r} must be an object like {{"top_k": 20}}, without prompt, '
                     'messages and stream')
  return extra


def settings(config: Any, max_tokens: int) -> dict[str, Any] | None:
  """What a cell's numbers depend on beside its tasks, as JSON; None where there is no endpoint."""
  if not config.endpoint.url:
    return None
  asked = sampling(config)
  return {'url': base_url(config.endpoint.url), 'api': asked.api, **asked.fields(max_tokens),
          'prompt_style': config.prompt_style, 'tokenizer': config.tokenizer.path}


def key(variable: str, knobs: str = 'endpoint') -> str:
  """The key in a variable of the environment; '' without one.

  Raises:
    ValueError: it is not set, or holds what cannot be sent.
  """
  if not variable:
    return ''
  found = check_secret(os.environ.get(variable, ''), variable)
  if not found:
    raise ValueError(f'{knobs}.key_variable {variable!r} is not set in the environment; export it')
  return found


def make_tokenizer(config: Any) -> Tokenizer:
  """That of the config, by which contexts are made and measured, with the style's markers."""
  return with_markers(assemble.make_tokenizer(config), config.prompt_style)


class RemoteEvaluator:
  """Evaluates one agent with a model elsewhere, on the tasks and worlds of `evaluate.Evaluator`.

  Raises:
    ValueError: a knob is out of its range, or the key's variable is not set.
  """

  def __init__(self, config: Any, tokenizer: Tokenizer, environment: Any):
    self._config, self._environment = config, environment
    e, r = config.endpoint, config.rollout
    agent = assemble.make_agent(config, tokenizer)
    self._model = ServedModel(e.url, sampling(config), Limits(e.timeout, e.patience, e.tries),
                              key=key(e.key_variable))
    fixed = r.question_capacity + r.context_capacity + r.turn_capacity
    self._collector = RemoteCollector(
        self._model, agent, environment.start, tokenizer,
        max(fixed, r.append_capacity) if agent.is_append_only else fixed, r.turn_capacity,
        e.concurrent, r.reply_timeout)

  def run(self, objectives: int, split: str, num_tasks: int, max_tokens: int,
          on_done: Callable[[Trajectory], None] = lambda _: None,
          ) -> tuple[list[Trajectory], RolloutStats]:
    """Episodes of tasks 0…num_tasks-1 of `objectives` questions each; see `RemoteCollector.run`."""
    composer = domains.make_composer(self._config, split, objectives)
    jobs = [Job(composer.task(i), i) for i in range(num_tasks)]
    return self.play(jobs, max_tokens, on_done)

  def play(self, jobs: Sequence[Job], max_tokens: int,
           on_done: Callable[[Trajectory], None] = lambda _: None,
           ) -> tuple[list[Trajectory], RolloutStats]:
    """Episodes of these tasks."""
    before = metrics_of(self._environment)
    trajectories, stats = self._collector.run(jobs, max_tokens, on_done)
    stats.counts = {name: n - before[name] for name, n in metrics_of(self._environment).items()}
    return trajectories, stats

  def account(self) -> dict[str, Any]:
    """What the server reported since the last account, as JSON."""
    return self._model.account()

  def close(self):
    """Closes the connections."""
    self._model.close()
