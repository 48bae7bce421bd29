"""Retries, pauses, what is hopeless, what is reported; the key is nowhere."""

import email.utils
import json
import logging
import threading
import time

import httpx
import pytest

from mem1_jax.retrieval.endpoint import Failure
from mem1_jax.rollout import served
from mem1_jax.rollout.completions import Settings
from mem1_jax.rollout.served import Limits, ServedModel
from tests.rollout import model_server
from tests.rollout.model_server import ModelServer

QUICK = Limits(timeout_s=5.0, patience_s=20.0, max_tries=3, backoff_s=0.001)
KEY = 'sk-k/y'


def writer(text, max_tokens):
  return f'<think>{len(text)} {max_tokens}</think><search> x</search>', 'stop'


def ask(url, api='completions', limits=QUICK, key='', name='writer'):
  """(reply, or the failure; the account)."""
  model = ServedModel(url, Settings(api, name), limits, key=key)
  try:
    prompt = 'abc' if api == 'completions' else [{'role': 'user', 'content': 'abc'}]
    return model.complete(prompt, 9), model.account()
  except Failure as failure:
    return failure, model.account()
  finally:
    model.close()


class World:
  """Answers as listed, the last for ever; a clock that only sleeping moves (a fake)."""

  def __init__(self, *answers, **limits):
    self.answers, self.pauses, self.now = list(answers), [], 0.0
    self.model = ServedModel(
        'http://a', Settings('completions', 'm'), Limits(**limits), sleep=self.sleep,
        transport=httpx.MockTransport(self.handle), clock=lambda: self.now, jitter=lambda: 1.0)

  def handle(self, request):
    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
    if isinstance(answer, Exception):
      raise answer
    status, headers = answer if isinstance(answer, tuple) else (answer, {})
    body = json.dumps({'choices': [{'text': 'a'}]} if status == 200 else {}).encode()
    return httpx.Response(status, headers=headers, content=iter([body]))

  def sleep(self, seconds):
    self.pauses.append(seconds)
    self.now += seconds
    return False

  def ask(self):
    try:
      return self.model.complete('x', 1).text
    except Failure as failure:
      return failure.kind


@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_a_reply_and_what_it_cost(api):
  with model_server.running(ModelServer(writer)) as url:
    reply, account = ask(url, api)
  assert reply.text == '<think>3 9</think><search> x' and reply.finish == 'stop'
  assert account == {
      'served_models': ['writer-1'], 'counts': {'requests': 1},
      'usage': {'replies': 1, 'prompt_tokens': 100, 'completion_tokens': 10, 'cached_tokens': 60,
                'unreported': 0}}


def test_accounts_are_of_what_is_new():
  with model_server.running(ModelServer(writer, troubles=['500'])) as url:
    model = ServedModel(url, Settings('completions', 'writer'), QUICK)
    for _ in range(3):
      model.complete('x', 1)
    first, _ = model.account(), model.complete('x', 1)
    second, third = model.account(), model.account()
    model.close()
  assert first['usage']['replies'] == 3 and second['usage']['replies'] == 1
  assert first['counts'] == {'requests': 4, 'retries': 1, 'server_errors': 1}
  assert second['counts'] == {'requests': 1} and third['counts'] == {}


@pytest.mark.parametrize('trouble, counter', [
    ('500', 'server_errors'), ('503', 'server_errors'), ('429', 'busy'), ('408', 'busy'),
    ('409', 'busy'), ('garbage', 'garbage'), ('empty', 'garbage'), ('no_text', 'garbage')])
@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_what_may_pass_is_tried_again(api, trouble, counter):
  server = ModelServer(writer, troubles=[trouble, trouble])
  with model_server.running(server) as url:
    reply, account = ask(url, api)
  assert reply.text.endswith('<search> x')
  assert account['counts'] == {'requests': 3, 'retries': 2, counter: 2}
  assert server.requests[0] == server.requests[1] == server.requests[2]
  with model_server.running(ModelServer(writer, always=trouble)) as url:
    failure, account = ask(url, api)
  assert failure.kind == counter
  assert account['counts'] == {'requests': 3, 'retries': 2, counter: 3}


def test_a_server_that_hangs_is_given_up_and_asked_again():
  with model_server.running(ModelServer(writer, troubles=['hang'])) as url:
    reply, account = ask(url, limits=Limits(timeout_s=0.3, backoff_s=0.001))
  assert reply.finish == 'stop'
  assert account['counts'] == {'requests': 2, 'retries': 1, 'timeouts': 1}


def test_nobody_there():
  failure, account = ask('http://127.0.0.1:9/v1')
  assert failure.kind == 'connection_errors' and account['counts']['requests'] == 3


@pytest.mark.parametrize('trouble, kind', [
    ('400', 'refused'), ('422', 'refused'), ('too_long', 'too_long'), ('403', 'denied'),
    ('404', 'unknown')])
def test_what_would_fail_again_is_not_tried_again(trouble, kind):
  with model_server.running(ModelServer(writer, always=trouble)) as url:
    failure, account = ask(url)
  assert failure.kind == kind and account['counts'] == {'requests': 1, kind: 1}
  assert url in str(failure)


def test_a_wrong_key_and_a_wrong_name_say_what_to_set():
  with model_server.running(ModelServer(writer, key='right')) as url:
    failure, _ = ask(url, key='wrong')
    assert failure.kind == 'denied' and 'endpoint.key_variable' in str(failure)
    assert 'wrong' not in str(failure) and '***' in str(failure)
    assert ask(url, key='right')[0].finish == 'stop'
  with model_server.running(ModelServer(writer)) as url:
    failure, _ = ask(url, name='wrighter')
    assert failure.kind == 'unknown' and "endpoint.model 'wrighter'" in str(failure)
    assert 'The model `wrighter` does not exist.' in str(failure)


def test_pauses_grow_and_end_with_tries_and_patience():
  world = World(500, max_tries=6, backoff_s=1.0, max_backoff_s=5.0)
  assert world.ask() == 'server_errors' and world.pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
  world = World(500, max_tries=6, backoff_s=1.0, patience_s=7.0)
  assert world.ask() == 'server_errors' and world.pauses == [1.0, 2.0]  # 4 s more are too many
  world, drawn = World(500, max_tries=3, backoff_s=1.0), iter([0.25, 0.5])
  world.model._jitter = lambda: next(drawn)
  assert world.ask() == 'server_errors' and world.pauses == [0.25, 1.0]


def test_a_server_says_how_long_to_wait():
  wait = lambda text, status=429: (status, {'Retry-After': text})
  world = World(wait('3'), wait('0.5', 503), wait('40'), wait('soon'), 200, backoff_s=1.0)
  assert world.ask() == 'a' and world.pauses == [3.0, 2.0, 40.0, 8.0]  # at least, and past our own
  world = World(wait('100'), 200, patience_s=50.0)
  assert world.ask() == 'busy' and world.pauses == []
  for text, low, high in (
      ('inf', 0, 0), ('nan', 0, 0), ('-3', 0, 0), ('', 0, 0), ('1.5', 1.5, 1.5),
      (email.utils.formatdate(time.time() + 60, usegmt=True), 58, 60),
      (email.utils.formatdate(0, usegmt=True), 0, 0)):
    assert low <= served._wait_s(text) <= high


def test_a_real_429_is_waited_for():
  server = ModelServer(writer, troubles=['429'], retry_after='1')
  with model_server.running(server) as url:
    assert ask(url)[0].finish == 'stop'
  assert server.times[1] - server.times[0] >= 1.0


@pytest.mark.parametrize('words, kind', [
    ('{"error": {"code": "insufficient_quota", "message": "pay"}}', 'denied'),
    ('{"message": "too many"}', 'busy'), ('too many', 'busy'), ('[1]', 'busy'), ('', 'busy')])
def test_a_429_that_no_wait_will_end(words, kind):
  transport = httpx.MockTransport(
      lambda request: httpx.Response(429, content=iter([words.encode()])))
  model = ServedModel('http://a', Settings('chat', 'm'), Limits(max_tries=1), transport=transport)
  with pytest.raises(Failure) as raised:
    model.complete([], 1)
  assert raised.value.kind == kind


def test_closing_ends_a_pause():
  with model_server.running(ModelServer(writer, always='500')) as url:
    model = ServedModel(url, Settings('completions', 'writer'), Limits(
        backoff_s=1e4, max_backoff_s=1e4, patience_s=1e9))
    model._jitter = lambda: 1.0
    failures = []

    def complete():
      try:
        model.complete('x', 1)
      except Failure as failure:
        failures.append(failure)

    thread = threading.Thread(target=complete)
    thread.start()
    while not model._tally.counts['server_errors']:
      time.sleep(0.01)
    model.close()
    thread.join(10)
  assert [failure.kind for failure in failures] == ['server_errors']


def test_the_key_is_sent_and_shown_nowhere(caplog):
  def leak(text, max_tokens):
    return f'<search> {KEY}', 'stop'

  seen = []
  with caplog.at_level(logging.DEBUG):
    for always in ('', '400', '500', '403', '404'):
      server = ModelServer(leak, always=always, key=KEY)
      with model_server.running(server) as url:
        seen += [repr(part) for part in ask(url, key=KEY)]
      assert server.headers[0]['authorization'] == f'Bearer {KEY}'
  assert "text='<search> ***'" in seen[0]
  assert not [text for text in [*seen, caplog.text] if KEY in text]


@pytest.mark.parametrize('words', [
    "This model's maximum context length is 4096 tokens. However, you requested 5000",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    'the request exceeds the available context size (4096 tokens), try increasing it',
    '{"error": {"code": "context_length_exceeded", "message": "too many"}}'])
def test_servers_say_in_their_own_words_that_a_context_is_too_long(words):
  transport = httpx.MockTransport(
      lambda request: httpx.Response(400, content=iter([words.encode()])))
  model = ServedModel('http://a', Settings('chat', 'm'), transport=transport)
  with pytest.raises(Failure) as raised:
    model.complete([], 1)
  assert raised.value.kind == 'too_long'


@pytest.mark.parametrize('url, wanted', [
    ('http://host:8000', 'http://host:8000/v1'), (' https://host/v1/ ', 'https://host/v1'),
    ('https://host/openai/v1', 'https://host/openai/v1'),
    ('http://[::1]:8/v1', 'http://[::1]:8/v1')])
def test_addresses(url, wanted):
  assert served.base_url(url) == wanted


@pytest.mark.parametrize('url', [
    '', 'host:8000', 'ftp://host', 'http://', 'http://a:b', 'http://me:secret@host/v1',
    'http://secret@host/v1', 'http://host/v1?key=secret', 'http://host/v1#secret',
    'http://[secret'])
def test_what_is_no_address_or_holds_a_secret_is_not_shown(url):
  with pytest.raises(ValueError, match='endpoint.url') as error:
    served.base_url(url)
  assert 'secret' not in str(error.value)


def test_bad_limits():
  for name in ('timeout_s', 'patience_s', 'max_tries'):
    with pytest.raises(ValueError, match=f'{name}=0 is too small'):
      Limits(**{name: 0})
