"""Search-R1's protocol, to the byte where it is fixed and leniently where it is not."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mem1_jax import types
from mem1_jax.retrieval import wire


def test_a_request_is_what_search_r1s_clients_send():
  body = wire.write_request(['Ünder "Oslo"?', 'b'], 3)
  assert body == (b'{"queries": ["\\u00dcnder \\"Oslo\\"?", "b"], "topk": 3, '
                  b'"return_scores": true}')
  assert wire.read_request(body) == wire.Request(('Ünder "Oslo"?', 'b'), 3, True)


@pytest.mark.parametrize('body, request_', [
    ('{"queries": []}', wire.Request((), None, False)),
    ('{"queries": ["a"], "topk": null}', wire.Request(('a',), None, False)),
    ('{"queries": ["a"], "topk": 0, "eid": "x"}', wire.Request(('a',), None, False)),
    (' {"return_scores":false,"topk":9,"queries":["a"]}', wire.Request(('a',), 9, False))])
def test_fields_may_be_left_out_and_others_are_passed_over(body, request_):
  assert wire.read_request(body.encode()) == request_


@pytest.mark.parametrize('body, message', [
    ('', 'no JSON'), ('[' * 100_000, 'no JSON'), (b'\xff\xfe\xfd', 'no JSON'), ('[]', 'no object'),
    ('{}', 'queries is None'), ('{"queries": "a"}', "queries is 'a'; send a list"),
    ('{"queries": ["a", 7]}', r'queries\[1\] is 7; send a string'),
    ('{"queries": [], "topk": -1}', 'topk is -1'), ('{"queries": [], "topk": 1.5}', 'topk is 1.5'),
    ('{"queries": [], "topk": true}', 'topk is True'),
    ('{"queries": [], "return_scores": 1}', 'return_scores is 1')])
def test_what_is_no_request_is_said(body, message):
  with pytest.raises(ValueError, match=message):
    wire.read_request(body if isinstance(body, bytes) else body.encode())


def test_both_forms_of_a_result():
  passage = types.Passage('Oslo', 'A city.', 1.5, '7')
  document = {'id': '7', 'contents': '"Oslo"\nA city.'}
  assert json.loads(wire.write_result([passage], False)) == [document]
  assert json.loads(wire.write_result([passage], True)) == [{'document': document, 'score': 1.5}]
  with pytest.raises(ValueError):
    wire.write_result([types.Passage('a', 'b', float('nan'))], True)


def _read(item):
  (passage,), = wire.read_reply(json.dumps({'result': [[item]]}).encode())
  return passage


@pytest.mark.parametrize('document, passage', [
    ({'id': 7, 'contents': '"Oslo"\nA city.\nBig.'},
     types.Passage('Oslo', 'A city.\nBig.', id='7')),
    ({'contents': 'Oslo\nA city.'}, types.Passage('Oslo', 'A city.')),
    ({'contents': '"Oslo"'}, types.Passage('Oslo', '')),
    ({'contents': 'A city.'}, types.Passage('', 'A city.')),
    ({'contents': '"\nx'}, types.Passage('"', 'x')),
    ({'title': 'Oslo', 'text': 'A city.', 'contents': 'other'}, types.Passage('Oslo', 'A city.')),
    ({'id': None, 'text': 'A city.'}, types.Passage('', 'A city.'))])
def test_documents_of_every_form(document, passage):
  assert _read(document) == passage
  scored = _read({'document': document, 'score': 3})
  assert (scored.title, scored.text, scored.score) == (passage.title, passage.text, 3.0)
  assert _read({'document': document}).score == 0.0


@given(st.lists(st.builds(
    types.Passage, st.text().filter(lambda t: '\n' not in t), st.text(),
    st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1)), max_size=2))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(passages):
  reply = wire.write_reply([wire.write_result(passages, True)] * 2)
  assert wire.read_reply(reply) == [passages] * 2


@pytest.mark.parametrize('reply, message', [
    ('nope', 'no JSON'), ('7', 'no object'), ('{"result": {}}', 'result is {}, not a list'),
    ('{"result": [7]}', r'result\[0\] is 7'),
    ('{"result": [[7]]}', r'result\[0\]: 7 is no document'),
    ('{"result": [[], [{"id": "1"}]]}', r"result\[1\]: a document has \['id'\]"),
    ('{"result": [[{"contents": 7}]]}', 'it needs contents'),
    *((f'{{"result": [[{{"document": {{"contents": "a"}}, "score": {score}}}]]}}', 'score is')
      for score in ('NaN', 'Infinity', '"1"', 'null', 'true', '1' + '0' * 400))])
def test_what_is_no_reply_is_said(reply, message):
  with pytest.raises(ValueError, match=message):
    wire.read_reply(reply.encode())
