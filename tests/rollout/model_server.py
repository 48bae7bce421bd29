"""An OpenAI-compatible server for tests; scripted experts and a model of ours to write for it.

It is FastAPI under uvicorn, on a free port. `writer` is (the context as one text, max_tokens) →
(the text of a turn, why it ended); a chat's context is its messages, one after another.
"""

import contextlib
import re
import socket
import threading
import time

import fastapi
import fastapi.responses
import jax
import jax.numpy as jnp
import uvicorn

from mem1_jax import types
from mem1_jax.agents.expert import Progress
from mem1_jax.ops.logprobs import sampling_logits
from mem1_jax.rollout.decode import prefill

NAME = 'writer-1'  # what the server calls its model
_CHUNK = 64


class ModelServer:
  """What is served, and how badly.

  Args:
    writer: see above.
    style: strips (a stop string is left out, as OpenAI does) | says (left out and named, as vLLM
      does) | includes (left in) | goes_on (stop strings are not known: text follows the tag).
    troubles: of the first requests, in order, '' for none: a status, hang, garbage, empty, no_text
      or too_long.
    always: of all others.
    key: that is asked for.
    retry_after: sent with an error.

  Attributes:
    requests, headers, times: of each request, in order.
  """

  def __init__(self, writer, style='strips', troubles=(), always='', key='', retry_after=None):
    self.writer, self.style, self.troubles, self.always = writer, style, list(troubles), always
    self.key, self.retry_after = key, retry_after
    self.requests, self.headers, self.times = [], [], []
    self.over, self.lock = threading.Event(), threading.Lock()

  def answer(self, api, body, headers):
    with self.lock:
      self.requests.append(body)
      self.headers.append(dict(headers))
      self.times.append(time.monotonic())
      trouble = self.troubles.pop(0) if self.troubles else self.always
    if self.key and headers.get('authorization') != f'Bearer {self.key}':
      return error(401, f'Incorrect API key provided: {headers.get("authorization")}')
    if body['model'] != 'writer':
      return error(404, f'The model `{body["model"]}` does not exist.', 'model_not_found')
    if trouble:  # the writer, who may go by what was asked, is not
      return self.fail(trouble)
    text = body['prompt'] if api == 'completions' else ''.join(
        message['content'] for message in body['messages'])
    written, finish = self.writer(text, body['max_tokens'])
    written, finish, reason = self.stopped(written, finish, body.get('stop', ()))
    choice = {'index': 0, 'finish_reason': finish} | (
        {'stop_reason': reason} if self.style == 'says' else {})
    choice |= ({'text': written} if api == 'completions' else
               {'message': {'role': 'assistant', 'content': written}})
    return {'id': 'x', 'object': api, 'model': NAME, 'choices': [choice], 'usage': {
        'prompt_tokens': 100, 'completion_tokens': 10, 'total_tokens': 110,
        'prompt_tokens_details': {'cached_tokens': 60}}}

  def fail(self, trouble):
    if trouble.isdigit():
      headers = {'Retry-After': self.retry_after} if self.retry_after else None
      return error(int(trouble), f'trouble with {self.key}', headers=headers)
    if trouble == 'hang':
      self.over.wait(20)
      return error(500, 'nobody waits any longer')
    if trouble == 'too_long':
      return error(400, "This model's maximum context length is 9 tokens.")
    return fastapi.Response({'garbage': '<html>{"choices": [', 'empty': '{"choices": []}', 'no_text':
                             '{"choices": [{"text": 7, "message": {"content": 7}}]}'}[trouble])

  def stopped(self, text, finish, stops):
    """(text, finish, stop_reason) as servers of this style have it."""
    if self.style == 'goes_on':
      return f'{text} <information>invented</information><answer>x</answer>', finish, None
    found = re.search('|'.join(map(re.escape, stops)) or r'(?!)', text)
    if not found:
      return text, finish, None
    end = found.end() if self.style == 'includes' else found.start()
    return text[:end], 'stop', found[0]


def error(status, message, code=None, headers=None):
  return fastapi.responses.JSONResponse(
      {'error': {'message': message, 'type': 'error', 'code': code}}, status, headers=headers)


@contextlib.contextmanager
def running(server):
  """The address of the server, in a thread."""
  app = fastapi.FastAPI()

  @app.post('/v1/completions')
  def completions(body: dict, request: fastapi.Request):
    return server.answer('completions', body, request.headers)

  @app.post('/v1/chat/completions')
  def chat(body: dict, request: fastapi.Request):
    return server.answer('chat', body, request.headers)

  listening = socket.create_server(('127.0.0.1', 0))
  uvicorn_server = uvicorn.Server(uvicorn.Config(
      app, log_level='critical', access_log=False, lifespan='off', timeout_graceful_shutdown=1))
  thread = threading.Thread(
      target=uvicorn_server.run, kwargs={'sockets': [listening]}, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{listening.getsockname()[1]}/v1'
  finally:
    server.over.set()
    uvicorn_server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


class Experts:
  """Writes what the atlas's expert would (agents/expert.py); knows tasks by their questions."""

  def __init__(self, tasks, has_memory):
    self._scripts = {''.join(f'{label} {text}\n' for label, text in task.shown.lines):
                     Progress(task, has_memory) for task in tasks}
    self._lock = threading.Lock()

  def __call__(self, text, max_tokens):
    del max_tokens
    questions = max((known for known in self._scripts if known in text), key=len)
    told = re.findall('<information>(.*?)</information>', text.partition(questions)[2], re.DOTALL)
    script = self._scripts[questions]
    with self._lock:
      if told:
        script.read(types.Action(types.ActionKind.SEARCH, ''), told[-1])
      is_last_turn = bool(told) and 'Last turn' in told[-1]
      return script.write(is_last_turn, lambda name: None)[0], 'stop'


class Greedy:
  """Writes what a model of ours would, token by token, knowing nothing of turns or stop strings."""

  def __init__(self, tokenizer, policy, params, capacity=1024):
    self._tokenizer, self._policy, self._params = tokenizer, policy, params
    self._capacity, self._lock = capacity, threading.Lock()
    self._prefill = jax.jit(lambda params, tokens, position, length: prefill(
        policy, params, policy.init_cache(1, capacity), tokens, position, length, _CHUNK))
    self._next = jax.jit(self._step)

  def _step(self, params, hidden, position, cache):
    logits = sampling_logits(
        hidden, self._policy.head(params), jnp.float32(1), self._tokenizer.vocab_size)
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    hidden, cache = self._policy.extend(
        params, token[:, None], position, jnp.ones(1, jnp.int32), cache)
    return token[0], hidden[:, 0], cache

  def __call__(self, text, max_tokens):
    ids = self._tokenizer.encode(text)
    padded = jnp.array([ids + [0] * (self._capacity - len(ids))], jnp.int32)
    written = []
    with self._lock:
      cache, hidden = self._prefill(
          self._params, padded, jnp.arange(self._capacity, dtype=jnp.int32)[None],
          jnp.array([len(ids)], jnp.int32))
      while len(written) < max_tokens:
        token, hidden, cache = self._next(
            self._params, hidden, jnp.array([[len(ids) + len(written)]], jnp.int32), cache)
        if int(token) == self._tokenizer.eos_id:
          return self._tokenizer.decode(written), 'stop'
        written.append(int(token))
        text = self._tokenizer.decode(written[-8:])
        if re.search('</(search|click|answer)>', text):  # what follows is not needed
          return self._tokenizer.decode(written), 'stop'
    return self._tokenizer.decode(written), 'length'
