"""The protocol as literal JSON, and the end of a turn whatever servers do with stop strings."""

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from mem1_jax.memory import segments
from mem1_jax.rollout import completions
from mem1_jax.rollout.completions import Reply, Settings, Usage
from mem1_jax.rollout.stop import build_stop_table
from mem1_jax.types import ActionKind, Stop

STOPS = ['</search>', '</click>', '</answer>']


def test_requests_are_the_protocols():
  asked = json.loads(completions.write(Settings('completions', 'm', 0.5, 0.9, 3), 'text', 82))
  assert asked == {'model': 'm', 'prompt': 'text', 'max_tokens': 82, 'temperature': 0.5,
                   'top_p': 0.9, 'seed': 3, 'stop': STOPS}
  messages = [{'role': 'user', 'content': 'x'}]
  asked = json.loads(completions.write(Settings('chat', 'm'), messages, 5))
  assert asked['messages'] == messages and 'prompt' not in asked


def test_extra_fields_replace_ours_or_leave_them_out():
  extra = {'max_tokens': None, 'seed': None, 'max_completion_tokens': 9, 'top_k': 20, 'stop': None}
  asked = json.loads(completions.write(Settings('chat', 'm', extra=extra), [], 5))
  assert asked == {'model': 'm', 'messages': [], 'temperature': 0.0, 'top_p': 1.0, 'top_k': 20,
                   'max_completion_tokens': 9}


@pytest.mark.parametrize('wrong, message', [
    (dict(api='responses'), "api 'responses' is unknown"), (dict(model=''), "model is ''"),
    (dict(temperature=-1.0), 'temperature -1.0'), (dict(temperature=float('nan')), 'temperature'),
    (dict(top_p=0.0), 'top_p 0.0'), (dict(top_p=1.1), 'top_p 1.1')])
def test_bad_settings(wrong, message):
  with pytest.raises(ValueError, match=message):
    Settings(**({'api': 'chat', 'model': 'm'} | wrong))


def test_a_reply_is_read():
  body = {'model': 'm-1', 'choices': [{'text': 'a', 'finish_reason': 'stop'}, {'text': 'b'}],
          'usage': {'prompt_tokens': 9, 'completion_tokens': 5,
                    'prompt_tokens_details': {'cached_tokens': 8}}}
  assert completions.read('completions', json.dumps(body).encode()) == Reply(
      'a', 'stop', '', 'm-1', Usage(1, 9, 5, 8, 0))
  body = {'choices': [{'message': {'content': 'a\ud800'}, 'finish_reason': None,
                       'stop_reason': '</search>'}], 'usage': None}
  assert completions.read('chat', json.dumps(body).encode()) == Reply(
      'a?', '', '</search>', '', Usage(1, unreported=1))
  choice = {'message': {'content': 'a'}, 'stop_reason': 151645}
  assert completions.read('chat', json.dumps({'choices': [choice]}).encode()).stopped_by == ''
  assert Usage(1, 2, 3, 4, 0) + Usage(1, 20, 30, 40, 1) == Usage(2, 22, 33, 44, 1)


def test_parsed_reasoning_is_the_thought_that_it_was():
  message = {'content': '<search> x', 'reasoning_content': 'a\n'}
  read = lambda message: completions.read(
      'chat', json.dumps({'choices': [{'message': message}]}).encode()).text
  assert read(message) == '<think>a\n</think><search> x'
  assert read({'content': None, 'reasoning': 'b'}) == '<think>b</think>'
  assert read({'content': None}) == '' and read({'content': 'c', 'reasoning_content': ''}) == 'c'


@pytest.mark.parametrize('body', [
    b'', b'<html>', b'[]', b'{}', b'{"choices": []}', b'{"choices": {}}', b'{"choices": [1]}',
    b'{"choices": [{}]}', b'{"choices": [{"text": null, "message": null}]}',
    b'{"choices": [{"text": 1, "message": {"content": 1}}]}'])
@pytest.mark.parametrize('api', ['completions', 'chat'])
def test_what_is_no_reply(api, body):
  with pytest.raises(ValueError):
    completions.read(api, body)


@pytest.mark.parametrize('text, finish, stopped_by, wanted, stop', [
    # The tag is there.
    ('<think>a</think><search> b</search>', 'stop', '', None, Stop.TAG),
    ('<search> b</search> <answer> c</answer>', 'stop', '', '<search> b</search>', Stop.TAG),
    ('<think>a</search>', 'length', '', None, Stop.TAG),
    # It was left out, and there is one that it can have been.
    ('<think>a</think><search> b', 'stop', '', '<think>a</think><search> b</search>', Stop.TAG),
    ('<click> b', 'stop', '', '<click> b</click>', Stop.TAG),
    ('<think>a <answer> x</think><search> b', 'stop', '',
     '<think>a <answer> x</think><search> b</search>', Stop.TAG),
    # It was left out, and named.
    ('<think>a', 'stop', '</search>', '<think>a</search>', Stop.TAG),
    ('<search> a <answer> b', 'stop', '</search>', '<search> a <answer> b</search>', Stop.TAG),
    # There is none, or several.
    ('<search> a <answer> b', 'stop', '', None, Stop.EOS),
    ('<think>a <search> b', 'stop', '', None, Stop.EOS),
    ('<search> a <think> b</think>', 'stop', '', None, Stop.EOS),
    ('no action', 'stop', '', None, Stop.EOS), ('', 'stop', '', None, Stop.EOS),
    ('<search> b', 'content_filter', '', None, Stop.EOS),
    ('<search> b', 'length', '', None, Stop.LENGTH)])
def test_the_end_of_a_turn(text, finish, stopped_by, wanted, stop):
  reply = Reply(text, finish, stopped_by)
  assert completions.end_turn(reply) == (text if wanted is None else wanted, stop)


PIECES = st.lists(st.sampled_from([
    '<think>', '</think>', '<search>', '</search>', '<click>', '</click>', '<answer>', '</answer>',
    ' a', '<', '>', '</', 'search', '\n']), max_size=12).map(''.join)
BYTES = [bytes([b]) for b in range(256)]
TABLE = build_stop_table(BYTES)


@given(PIECES)
def test_a_turn_ends_where_the_automaton_stops(text):
  state, end = TABLE.start, None
  for i, byte in enumerate(text.encode()):
    state = TABLE.table[state, byte]
    if state == TABLE.stop:
      end = i + 1
      break
  turn, stop = completions.end_turn(Reply(text, 'length'))
  assert (turn, stop) == ((text[:end], Stop.TAG) if end else (text, Stop.LENGTH))


@given(PIECES)
def test_an_action_whose_tag_was_stripped_comes_back_as_it_was_or_not_at_all(text):
  whole, stop = completions.end_turn(Reply(text, 'length'))
  action = segments.parse_turn(whole.encode(), BYTES).action
  if stop is not Stop.TAG:
    return
  stripped, tag = whole[:whole.rindex('</')], whole[whole.rindex('</'):]
  assert completions.end_turn(Reply(stripped, 'stop', tag)) == (whole, Stop.TAG)
  if action.kind is ActionKind.MALFORMED:
    return
  turn, _ = completions.end_turn(Reply(stripped, 'stop'))
  found = segments.parse_turn(turn.encode(), BYTES).action
  is_clear = sum(f'<{kind}>' in whole for kind in ('search', 'click', 'answer')) == 1
  assert found == action or (found.kind is ActionKind.MALFORMED and not is_clear)
