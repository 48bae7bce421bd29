"""Remote search: retries, the breaker, the cache, and outages that are told and not raised."""

import json
import logging
import threading

import httpx
import pytest

from mem1_jax import types
from mem1_jax.retrieval import client as client_lib
from mem1_jax.retrieval.client import RemoteConfig, RemoteRetriever
from tests.retrieval import servers

FOUND = [types.Passage('Norway', 'The capital is Oslo.', 1.5, '1')]


class World:
  """Servers by host whose answers are listed, and a clock that only sleeping moves (a fake).

  An answer is a status, an exception, the JSON of a reply, or None for the right one; the last
  is given for ever.
  """

  def __init__(self, *answers, **hosts):
    self.answers = hosts or {'a': list(answers)}
    self.requests, self.pauses, self.now = [], [], 0.0

  def handle(self, request):
    asked = json.loads(request.content)
    self.requests.append((request.url.host, asked['queries']))
    answers = self.answers[request.url.host]
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if callable(answer):
      answer = answer(asked['queries'])
    if isinstance(answer, Exception):
      raise answer
    if isinstance(answer, int):
      headers = {'Retry-After': '1'} if answer == 429 else None
      return httpx.Response(answer, headers=headers, content=iter([b'no']))
    reply = servers.result(asked['queries']) if answer is None else answer
    return httpx.Response(200, content=iter([json.dumps(reply).encode()]))  # read when asked for

  def sleep(self, seconds):
    self.pauses.append(seconds)
    self.now += seconds

  def retriever(self, **config):
    return RemoteRetriever(
        [f'http://{host}' for host in self.answers], RemoteConfig(**config),
        transport=httpx.MockTransport(self.handle), clock=lambda: self.now, sleep=self.sleep,
        jitter=lambda: 1.0)


def counted(retriever, *ignored):
  return {name: n for name, n in retriever.counts.items() if n and name not in ignored}


def is_down(result):
  return isinstance(result, types.Unavailable)


def test_passages_come_back_in_the_order_of_the_queries():
  world = World(lambda queries: {'result': [[{'contents': f'"{q}"\nx'}] for q in queries]})
  retriever = world.retriever()
  found = retriever.search(['b', '', 'a', 'b', '?!'], 2)
  assert [[p.title for p in passages] for passages in found] == [['b'], [], ['a'], ['b'], []]
  assert world.requests == [('a', ['b', 'a'])]  # each once, and nothing without a word
  assert retriever.search([], 2) == []
  with pytest.raises(ValueError, match='top_k=0'):
    retriever.search(['a'], 0)


def test_results_are_cached_and_failures_are_not():
  world = World(500, None)
  retriever = world.retriever(max_rounds=1, cache_size=2)
  assert is_down(retriever.search(['a'], 1)[0])
  assert retriever.search(['a'], 1) == retriever.search(['a'], 1) == [FOUND]
  retriever.search(['a'], 1)[0].clear()  # the caller's list is its own
  assert retriever.search(['a'], 1) == [FOUND]
  assert len(world.requests) == 2
  retriever.search(['a'], 2)  # another key
  retriever.search(['b'], 1)  # the third: the first is forgotten
  retriever.search(['a'], 1)
  assert len(world.requests) == 5
  assert counted(retriever) == {'queries': 8, 'cache_hits': 3, 'unavailable': 1, 'requests': 5,
                                'server_errors': 1}


@pytest.mark.parametrize('answer, counter', [
    (httpx.ConnectError('down'), 'connection_errors'), (httpx.ReadTimeout('slow'), 'timeouts'),
    (500, 'server_errors'), (404, 'bad_status'), (429, 'busy'), ([], 'garbage'),
    ({'result': 'x'}, 'garbage'), ({'result': [[], []]}, 'wrong_count'),
    ({'result': [[{'document': {'contents': 'a'}, 'score': 'x'}]]}, 'garbage')])
def test_what_may_pass_is_tried_again(answer, counter):
  world = World(answer, None)
  retriever = world.retriever()
  assert retriever.search(['a'], 1) == [FOUND]
  assert counted(retriever) == {'queries': 1, 'requests': 2, 'retries': 1, counter: 1}
  world = World(answer)
  retriever = world.retriever()
  unavailable, = retriever.search(['a'], 1)
  assert is_down(unavailable) and unavailable.reason.startswith(f'{counter}: ')
  assert counted(retriever) == {
      'queries': 1, 'unavailable': 1, 'requests': 3, 'retries': 2, counter: 3}


def test_pauses_grow_are_drawn_at_random_and_end_with_patience():
  world = World(500)
  world.retriever(max_rounds=6, backoff_s=1.0, max_backoff_s=5.0, max_failures=99).search(['a'], 1)
  assert world.pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
  world = World(500)
  retriever = world.retriever(max_rounds=6, backoff_s=1.0, patience_s=7.0, max_failures=99)
  assert is_down(retriever.search(['a'], 1)[0])
  assert world.pauses == [1.0, 2.0]  # 4 s more would be too many
  world, drawn = World(500), iter([0.25, 0.5])
  retriever = world.retriever(backoff_s=1.0)
  retriever._jitter = lambda: next(drawn)
  retriever.search(['a'], 1)
  assert world.pauses == [0.25, 1.0]


def test_a_server_may_ask_for_a_longer_pause_but_not_for_any():
  world = World(429)
  world.retriever(backoff_s=0.1).search(['a'], 1)
  assert world.pauses == [1.0, 1.0]
  world = World(429)
  world.retriever(backoff_s=0.1, max_backoff_s=0.5).search(['a'], 1)
  assert world.pauses == [0.5, 0.5]


def test_a_dead_server_costs_nothing_until_it_is_tried_again(caplog):
  world = World(*[500] * 4, None)
  retriever = world.retriever(max_rounds=2, max_failures=3, open_s=10.0, backoff_s=0.0)
  assert is_down(retriever.search(['a'], 1)[0])
  assert is_down(retriever.search(['a'], 1)[0])  # opens at its first request
  assert len(world.requests) == 3
  unavailable, = retriever.search(['b'], 1)
  assert unavailable == types.Unavailable(
      'skipped: every search server is down, and tried again later')
  assert len(world.requests) == 3
  world.now += 10
  assert is_down(retriever.search(['a'], 1)[0])  # the fourth failure: for another 10 s
  assert is_down(retriever.search(['a'], 1)[0])
  assert len(world.requests) == 4
  world.now += 10
  assert retriever.search(['a', 'b'], 1) == [FOUND, FOUND]
  assert counted(retriever) == {
      'queries': 7, 'unavailable': 5, 'requests': 5, 'retries': 1, 'skipped': 2, 'opened': 1,
      'server_errors': 4}
  told = [record.getMessage() for record in caplog.records]
  assert [text.partition(' and')[0] for text in told if 'so far' not in text] == [
      'search at http://a is down', 'search at http://a is back']


def test_trouble_is_told_now_and_then(caplog):
  world = World(500, None, 500, None, 500, None)
  retriever = world.retriever(backoff_s=0.0, max_failures=9, cache_size=0)
  for query in 'abcd':
    retriever.search([query], 1)
    world.now += 25
  assert [record.getMessage() for record in caplog.records] == [
      'search so far: 1 queries, 1 retries, 1 server_errors',
      'search so far: 4 queries, 3 retries, 3 server_errors']


def test_the_next_server_is_asked_where_one_fails():
  world = World(a=[500], b=[None])
  retriever = world.retriever(max_failures=2)
  assert [retriever.search([query], 1) for query in 'xyz'] == [[FOUND]] * 3
  assert [host for host, _ in world.requests] == ['a', 'b', 'a', 'b', 'b']
  assert world.pauses == []
  assert counted(retriever, 'queries') == {
      'requests': 5, 'skipped': 1, 'opened': 1, 'server_errors': 2}


def test_one_query_that_is_refused_does_not_take_others_with_it():
  world = World(lambda queries: 422 if 'bad' in queries else None)
  retriever = world.retriever()
  found = retriever.search(['a', 'b', 'bad', 'c', 'd'], 1)
  assert [is_down(result) for result in found] == [False, False, True, False, False]
  assert found[2].reason.startswith('refused: status 422')
  assert len(world.requests) == 5 and world.pauses == []  # 5 | 2, 3 | 1, 2
  assert retriever.search(['d'], 1) == [FOUND]


def test_a_reply_that_is_too_large_is_asked_for_in_parts():
  world = World(lambda queries: servers.result(queries, text='x' * 400))
  retriever = world.retriever(max_reply_bytes=1200, max_passage_chars=100)
  found = retriever.search(['a', 'b', 'c', 'd'], 1)
  assert [len(result[0].text) for result in found] == [100] * 4
  assert counted(retriever) == {
      'queries': 4, 'requests': 3, 'too_large': 1, 'cut_passages': 4}


def test_many_queries_are_several_requests():
  world = World(None)
  assert world.retriever(max_queries=2).search(list('abcde'), 1) == [FOUND] * 5
  assert [queries for _, queries in world.requests] == [['a', 'b'], ['c', 'd'], ['e']]


def test_requests_are_paced():
  world = World(500, None)
  world.retriever(max_queries=1, max_per_s=2.0, backoff_s=0.0, max_failures=9).search(list('ab'), 1)
  assert world.pauses == [0.0, 0.5, 0.5]  # a retry waits for its turn, too
  world = World(None)
  found = world.retriever(max_queries=1, max_per_s=2.0, patience_s=0.9).search(list('abc'), 1)
  assert [is_down(result) for result in found] == [False, False, True]
  assert found[2].reason == 'timeouts: no time is left of 0.9 s'


def test_requests_run_side_by_side():
  together = threading.Barrier(3, timeout=10)

  def answer(queries):
    together.wait()
    return servers.result(queries, title=queries[0])

  retriever = World(answer).retriever(max_queries=1, max_concurrent=3)
  assert [found[0].title for found in retriever.search(list('abc'), 1)] == list('abc')
  retriever.close()


def test_what_is_cut_is_counted():
  world = World(lambda queries: {'result': [
      [{'contents': f'"{"t" * 999}"\n{"x" * 99}'}] * 3 for _ in queries]})
  retriever = world.retriever(max_query_chars=5, max_passage_chars=10)
  found, = retriever.search(['too long a query'], 2)
  assert [(len(p.title), p.text) for p in found] == [(300, 'x' * 10)] * 2
  assert world.requests == [('a', ['too l'])]
  assert counted(retriever) == {'queries': 1, 'requests': 1, 'cut_queries': 1, 'cut_passages': 2,
                                'surplus_passages': 1}


def test_half_a_surrogate_pair_can_be_asked():
  assert World(None).retriever().search(['\ud800x'], 1) == [FOUND]


def test_an_error_of_our_own_is_not_hidden_and_leaves_the_breaker_usable():
  world = World(KeyError('bug'), None)
  retriever = world.retriever(max_failures=1, open_s=0.0)
  with pytest.raises(KeyError):
    retriever.search(['a'], 1)
  assert retriever.search(['a'], 1) == [FOUND]


@pytest.mark.parametrize('mode, counter', [
    ('slow', 'timeouts'), ('500', 'server_errors'), ('garbage', 'garbage'), ('nan', 'garbage'),
    ('wrong_count', 'wrong_count'), ('killed', 'connection_errors')])
def test_real_servers_that_fail(mode, counter):
  with servers.Chaos(mode) as chaos:
    retriever = RemoteRetriever([chaos.url], RemoteConfig(
        timeout_s=0.1 if mode == 'slow' else 5.0, backoff_s=0.001))
    first, second = retriever.search(['a', 'b'], 1)
    retriever.close()
  assert is_down(first) and first == second and first.reason.startswith(counter)
  counts = counted(retriever)
  assert counts[counter] == 3 and counts['unavailable'] == 2


def test_many_threads_share_one_retriever():
  wrong = []
  with servers.running(servers.Shelf()) as url:
    retriever = RemoteRetriever([url])

    def ask(number):
      for i in range(6):
        queries = [f'q {number} {i}', f'shared {i}']
        titles = [passages[0].title for passages in retriever.search(queries, 1)]
        if titles != [f'{query} 0' for query in queries]:
          wrong.append(queries)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  counts = counted(retriever)
  assert not wrong and counts['queries'] == 96 and 'unavailable' not in counts


def test_it_finds_what_the_local_retriever_finds():
  from mem1_jax.retrieval.bm25 import BM25Retriever
  passages = [types.Passage(f'"{x}" {i}', f'{x} is\nno {i}', id=str(i))
              for i, x in enumerate(('Oslo', 'Reykjavík', 'Moss', 'Oslo Moss'))]
  local = BM25Retriever(passages, k1=1.2, b=0.75, title_weight=2)
  queries = ['oslo', 'reykjavik moss', 'nothing else', '', 'no 3']
  with servers.running(local) as url:
    assert RemoteRetriever([url]).search(queries, 3) == local.search(queries, 3)


def test_nothing_is_logged_of_a_request(caplog):
  with caplog.at_level(logging.DEBUG), servers.Chaos() as chaos:
    RemoteRetriever([f'{chaos.url}/find?key=secret'], token='secret').search(['private'], 1)
  assert 'secret' not in caplog.text and 'private' not in caplog.text


def test_bad_arguments():
  with pytest.raises(ValueError, match='0 URLs'):
    RemoteRetriever([])
  for name in ('timeout_s', 'max_rounds', 'max_failures', 'max_queries'):
    with pytest.raises(ValueError, match=f'{name}=0 is too small'):
      RemoteConfig(**{name: 0})
  assert set(RemoteRetriever(['http://a']).counts) == set(client_lib.COUNTERS)
