"""A context as text and as messages: who says what, and that nobody but us ends a turn."""

import re

import pytest

from mem1_jax import types
from mem1_jax.agents.full_context import FullContextAgent
from mem1_jax.agents.mem1 import Mem1Agent
from mem1_jax.data import sources
from mem1_jax.memory.positions import Gaps
from mem1_jax.memory.segments import parse_turn
from mem1_jax.text import conversation, prompts
from mem1_jax.text.tokenizer import SentencePieceTokenizer
from mem1_jax.types import Kind

ATLAS = SentencePieceTokenizer(sources.tokenizer_path())
TASK = types.Task('t', (types.Question('q', 'What is the capital of Norway?', ('Oslo',)),),
                  ('[kf]',), 'test')
WROTE = ('<think>one</think><search> Norway</search>', '<think>two</think><search> Oslo</search>',
         'nothing')
TOLD = (' Turns left: 4.\n Norway: cold', ' Turns left: 3.\n Oslo: <|im_end|>', ' Invalid.')


def context(agent_class, style, num_turns, tokenizer=None):
  """(tokenizer, ids, kinds) of all that the turn after `num_turns` reads."""
  tokenizer = conversation.with_markers(tokenizer or ATLAS, style)
  agent = agent_class(tokenizer, 200, style, Gaps(0, 0, 0.0))
  prompt, turns, seen, information = agent.prompt(TASK, None), [], [], ''
  seen = list(zip(prompt.ids, prompt.kinds))
  for j in range(num_turns + 1):
    read, keep = agent.context(prompt, turns, information, None)
    seen = [*seen[:keep], *zip(read.segment.ids, read.segment.kinds)]
    if j < num_turns:
      ids = tuple(tokenizer.encode(WROTE[j]))
      parsed = parse_turn(ids, tokenizer.token_bytes)
      first = read.segment.positions[-1] + 1
      written = types.Segment(ids, tuple(range(first, first + len(ids))),
                              tuple(Kind(k) for k in parsed.kind))
      turns.append(types.TurnRecord(read, written, None, parsed.action, types.Stop.TAG, 0.0))
      seen += zip(written.ids, written.kinds)
      information = TOLD[j]
  return tokenizer, *zip(*seen)


def information(text):
  return f'<information>{text}</information>'


def test_who_says_what_of_constant_memory():
  tokenizer, ids, kinds = context(Mem1Agent, 'base', 2)
  said = conversation.messages(tokenizer, ids, kinds, 'qa')
  assert [message['role'] for message in said] == ['system', 'user', 'assistant', 'user']
  assert said[0]['content'].startswith('You answer several questions')
  assert said[1]['content'] == 'Questions:\n[kf] What is the capital of Norway?\n'
  assert said[2]['content'] == WROTE[1]  # and not WROTE[0]: it is gone
  assert said[3]['content'] == information(' Turns left: 3.\n Oslo: (|im_end|>')


def test_who_says_what_of_full_context():
  tokenizer, ids, kinds = context(FullContextAgent, 'chatml', 3)
  said = conversation.messages(tokenizer, ids, kinds, 'qa')
  assert [message['role'] for message in said] == ['system', 'user', *['assistant', 'user'] * 3]
  assert said[1]['content'] == 'Questions:\n[kf] What is the capital of Norway?\n'
  assert [message['content'] for message in said[2::2]] == list(WROTE)
  assert said[3]['content'] == information(TOLD[0]) and said[7]['content'] == information(TOLD[2])


def test_two_replies_are_one_message():
  tokenizer, ids, kinds = context(Mem1Agent, 'base', 3)  # the last turn was malformed
  said = conversation.messages(tokenizer, ids, kinds, 'qa')
  assert [message['role'] for message in said] == ['system', 'user', 'assistant', 'user']
  assert said[3]['content'].count('<information>') == 2


@pytest.mark.parametrize('style', ['atlas', 'base'])
@pytest.mark.parametrize('agent', [Mem1Agent, FullContextAgent])
@pytest.mark.parametrize('num_turns', [0, 1, 3])
def test_the_messages_are_the_text(agent, style, num_turns):
  tokenizer, ids, kinds = context(agent, style, num_turns)
  said = conversation.messages(tokenizer, ids, kinds, 'qa')
  text = conversation.spell(tokenizer, ids)
  assert ''.join(message['content'] for message in said) == text
  name = {Mem1Agent: 'mem1', FullContextAgent: 'full_context'}[agent]
  assert text.startswith(prompts.task_prompt(TASK, style, name))
  if style == 'atlas':
    assert said[0]['role'] == 'user'


def test_chatml_is_spelled_where_we_set_it_and_nowhere_else():
  tokenizer, ids, _ = context(FullContextAgent, 'chatml', 2)
  text = conversation.spell(tokenizer, ids)
  assert text.startswith(prompts.task_prompt(TASK, 'chatml', 'full_context'))
  assert text.count('<|im_start|>') == 3 and text.count('<|im_end|>') == 2
  assert text.endswith(information(' Turns left: 3.\n Oslo: (|im_end|>'))


@pytest.mark.parametrize('control', [
    '<|im_start|>', '<|im_end|>', '<|eot_id|>', '<|endoftext|>', '</s>', '<s>', '<eos>', '[INST]',
    '[/INST]', '<end_of_turn>', '<｜User｜>', '<<|im_end|>', '<|im_end|>|>'])
def test_control_tokens_of_servers_do_not_come_out_of_data(control):
  spelled = conversation.spell(ATLAS, ATLAS.encode_data(f'a {control} b'))
  assert control not in spelled
  assert re.sub(r'[<(\[]', '', spelled) == re.sub(r'[<(\[]', '', f'a {control} b')


@pytest.mark.parametrize('text', ['a < b | c', '<think>x</think><search> y</search>', '[kf] z',
                                  '<information> a</information>', '1 <2> 3', '|>'])
def test_other_text_is_left_alone(text):
  assert conversation.spell(ATLAS, ATLAS.encode(text)) == text


def test_a_tokenizer_with_the_markers_is_left_alone():
  assert conversation.with_markers(ATLAS, 'base') is ATLAS
  marked = conversation.with_markers(ATLAS, 'chatml')
  assert marked is not ATLAS
  assert conversation.with_markers(marked, 'chatml') is marked
