"""OpenAI's two protocols as JSON, written and read, and where a turn ends in what comes back.

    POST …/completions       {"model": "m", "prompt": "…", "max_tokens": 82, "stop": […], …}
    POST …/chat/completions  {"model": "m", "messages": [{"role": "user", "content": "…"}, …], …}
    200  {"model": "m-1", "choices": [{"text": "…", "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 9, "completion_tokens": 5,
                    "prompt_tokens_details": {"cached_tokens": 8}}}

(https://platform.openai.com/docs/api-reference.) In a chat `text` is `message.content`. Whatever is
wrong with a reply is a ValueError that says what.
"""

from collections.abc import Mapping
import dataclasses
import json
import re
from typing import Any

from mem1_jax.memory import segments
from mem1_jax.retrieval import wire
from mem1_jax.types import Stop

PATHS = {'completions': '/completions', 'chat': '/chat/completions'}
STOPS = tuple(tag.decode() for tag in segments.ACTION_CLOSE)  # OpenAI takes up to four

_CLOSE = re.compile('|'.join(STOPS))
_OPEN = re.compile('|'.join(tag.decode() for tag in segments.ACTION_OPEN))
_THINK_OPEN, _THINK_CLOSE = segments.THINK_OPEN.decode(), segments.THINK_CLOSE.decode()

Prompt = str | list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is asked beside the prompt.

  Attributes:
    api: of `PATHS`.
    model: as the server calls it.
    temperature: ≥ 0; 0 is greedy.
    top_p: in (0, 1].
    seed: of the server's sampling, where it has one.
    extra: further fields; they replace those above, and None leaves one out.
  """

  api: str
  model: str
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.api not in PATHS:
      raise ValueError(f'api {self.api!r} is unknown; choose one of {sorted(PATHS)}')
    if not self.model:
      raise ValueError("model is ''; name it as its server does, which lists its models at /models")
    if not self.temperature >= 0 or not 0 < self.top_p <= 1:
      raise ValueError(f'temperature {self.temperature} must be ≥ 0 (0: greedy) and top_p '
                       f'{self.top_p} in (0, 1]')

  def fields(self, max_tokens: int) -> dict[str, Any]:
    """All fields of a request but its prompt."""
    fields = {'model': self.model, 'max_tokens': max_tokens, 'temperature': self.temperature,
              'top_p': self.top_p, 'seed': self.seed, 'stop': list(STOPS)} | dict(self.extra)
    return {name: value for name, value in fields.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Usage:
  """Tokens as servers count them, over `replies`, of which `unreported` did not say."""

  replies: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0
  cached_tokens: int = 0  # of the prompts'
  unreported: int = 0

  def __add__(self, other: 'Usage') -> 'Usage':
    return Usage(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


@dataclasses.dataclass(frozen=True)
class Reply:
  """What a server wrote.

  Attributes:
    text: with the tag that stopped it, or without.
    finish: why it ended: stop (a tag, or of itself), length, or something of the server's own.
    stopped_by: the tag, of servers that say so; '' else.
    model: as the server calls it; '' where it does not.
    usage: of this reply.
  """

  text: str
  finish: str = ''
  stopped_by: str = ''
  model: str = ''
  usage: Usage = Usage(1)


def write(settings: Settings, prompt: Prompt, max_tokens: int) -> bytes:
  """The body of a request; `prompt` is a text, or in a chat a list of messages."""
  name = 'messages' if settings.api == 'chat' else 'prompt'
  return json.dumps(settings.fields(max_tokens) | {name: prompt}).encode()


def read(api: str, body: bytes) -> Reply:
  """What a server replied.

  Raises:
    ValueError: it is not of the protocol, or has no choice.
  """
  message = wire.read_object(body, 'a reply like {"choices": […]}')
  choices = message.get('choices')
  if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
    raise ValueError(f'choices is {str(choices)[:60]}, not a list with a choice in it')
  choice = choices[0]
  stopped_by = choice.get('stop_reason', choice.get('matched_stop'))  # of vLLM, of SGLang
  return Reply(
      _chat_text(choice.get('message')) if api == 'chat' else _string(choice, 'text'),
      str(choice.get('finish_reason') or ''),
      stopped_by if isinstance(stopped_by, str) and stopped_by in STOPS else '',
      str(message.get('model') or ''), _read_usage(message.get('usage')))


def _chat_text(message: Any) -> str:
  """The content; before it what a server that parses reasoning has taken out of it."""
  if not isinstance(message, dict):
    raise ValueError(f'message is {str(message)[:60]}, no object')
  thought = message.get('reasoning_content') or message.get('reasoning')
  content = _string(message, 'content') if message.get('content') is not None else ''
  if isinstance(thought, str) and thought.strip():
    return f'{_THINK_OPEN}{thought}{_THINK_CLOSE}{content}'
  return content


def _string(message: dict[str, Any], name: str) -> str:
  if not isinstance(message.get(name), str):
    raise ValueError(f'{name} is {str(message.get(name))[:60]}, no string')
  # A half of a surrogate pair is no text: tokenizers refuse it.
  return message[name].encode('utf-8', 'replace').decode('utf-8')


def _read_usage(usage: Any) -> Usage:
  if not isinstance(usage, dict):
    return Usage(1, unreported=1)
  details = usage.get('prompt_tokens_details')
  cached = details.get('cached_tokens') if isinstance(details, dict) else 0
  numbers = [usage.get('prompt_tokens'), usage.get('completion_tokens'), cached]
  return Usage(1, *(n if isinstance(n, int) else 0 for n in numbers))


def end_turn(reply: Reply) -> tuple[str, Stop]:
  """A turn's text up to and with its first closing action tag, and why it ended.

  A server that leaves out what stopped it gets its tag back where there is but one that it can
  have been: the one it names, or that of the only kind of action that stands open. So a turn is
  what the stop automaton (rollout/stop.py) would have made of it.
  """
  if found := _CLOSE.search(reply.text):
    return reply.text[:found.end()], Stop.TAG
  if reply.finish == 'length':
    return reply.text, Stop.LENGTH
  tag = reply.stopped_by or (_open_action(reply.text) if reply.finish == 'stop' else '')
  return reply.text + tag, Stop.TAG if tag else Stop.EOS


def _open_action(text: str) -> str:
  """The closing tag of the one kind of action that stands open, outside `<think>`; '' for none."""
  _, is_thinking, after = text.rpartition(_THINK_OPEN)
  if is_thinking:
    _, is_over, after = after.partition(_THINK_CLOSE)
    if not is_over:
      return ''
  opened = set(_OPEN.findall(after))
  return opened.pop().replace('<', '</') if len(opened) == 1 else ''
