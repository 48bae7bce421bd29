"""Notes: what is one, which are seen, in what order, and how words make vectors."""

import numpy as np
import pytest

from mem1_jax.agents import amem
from mem1_jax.agents.amem import AMemAgent
from tests.agents import by_hand
from tests.agents.by_hand import A, B, C, D, TOKENIZER, told

# Each is about one thing, and the last asks for one.
SCRIPT = [(A, ' red'), (B, ' blue'), (C, ' red'), (D, ' green')]
NOTES = [text.partition('</think>')[2] + told(reply) for text, reply in SCRIPT]
BLOCKS = [text + told(reply) for text, reply in SCRIPT]
PLACES = ('red', 'blue', 'green')


def colours(text, is_query):
  """[3]: which colours a text names (a fake); what asks is told by `asking` below."""
  assert '<' not in text  # no tags
  found = np.array([float(f' {name}' in text) for name in PLACES])
  return asking(text) if is_query else found


def asking(text):
  """The search for Porto asks for red more than for green, that for Peru for blue."""
  return np.array({'Porto': (3, 0, 4), 'Peru': (0, 1, 0), 'Lima': (0, 0, 0)}[text.split()[-1]],
                  float)


def test_a_note_is_the_action_and_the_reply_in_their_ids():
  agent = by_hand.make(AMemAgent, 200, embed=colours)
  _, contexts = by_hand.play(agent, SCRIPT[:2])
  context = contexts[2]
  assert TOKENIZER.decode(context.segment.ids) == NOTES[0] + BLOCKS[1]
  first, block = contexts[1].segment, by_hand.size(told(' red'))
  begin = len(first) - block - by_hand.size('<search> Rome</search>')
  note = by_hand.size(NOTES[0])
  assert context.segment.ids[:note] == first.ids[begin:]
  assert context.num_carried == note + by_hand.size(B)


@pytest.mark.parametrize('notes, budget, expected', [
    (3, 200, (0, 1, 2)), (2, 200, (0, 2)), (1, 200, (0,)), (3, 0, ()),
    (3, 1, (0,)), (1, 1, (0,))])
def test_the_notes_most_like_the_last_turn(notes, budget, expected):
  """In view of the search for Porto red is before green, of which there is none, and blue last."""
  room = min(200, by_hand.size(BLOCKS[3]) + budget * by_hand.size(NOTES[0]))
  agent = by_hand.make(AMemAgent, 200, budget=room, notes=notes, embed=colours)
  assert by_hand.seen(agent, SCRIPT)[3] == ''.join(NOTES[i] for i in expected) + BLOCKS[3]


def test_a_note_that_does_not_fit_leaves_its_room_to_the_next():
  script = [(A, ' red' * 30), *SCRIPT[1:]]
  budget = by_hand.size(BLOCKS[3] + NOTES[2]) + 1
  agent = by_hand.make(AMemAgent, 200, budget=budget, notes=1, embed=colours)
  assert by_hand.seen(agent, script)[3] == NOTES[2] + BLOCKS[3]


def test_a_note_brings_the_one_it_is_linked_to():
  notes = np.array([[1, 0, 0], [0, 1, 0], [.6, .8, 0], [0, 0, 1], [0, 0, 0.]])
  assert amem.ranked(np.array([.6, .8, 0]), notes) == [2, 1, 0, 3, 4]
  assert amem.ranked(np.array([1., 0, 0]), notes) == [0, 2, 1, 3, 4]  # 2 is linked to 1
  assert amem.ranked(np.zeros(3), notes) == [0, 1, 2, 3, 4]
  assert amem.ranked(np.zeros(3), notes[:1]) == [0]


def test_malformed_turns_make_no_note_and_the_correction_is_there():
  script = [(A, ' red'), ('<think>', ' no'), (C, ' red'), ('<think>', ' no'), (D, ' green')]
  agent = by_hand.make(AMemAgent, 200, embed=colours)
  c = C + told(' red')
  assert by_hand.seen(agent, script) == [
      BLOCKS[0], BLOCKS[0] + told(' no'), NOTES[0] + c, NOTES[0] + c + told(' no'),
      NOTES[0] + NOTES[2] + BLOCKS[3]]
  assert by_hand.seen(agent, [('<think>', ' no')]) == [told(' no')]


def test_without_notes_there_is_no_such_agent():
  with pytest.raises(ValueError, match='memory.notes 0 leaves no note to see; raise it to 1'):
    by_hand.make(AMemAgent, 200, notes=0)


def test_shared_words_make_texts_alike():
  def likeness(one, two):
    a, b = map(amem.hashed_words, (one, two))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

  assert likeness('The capital of Peru', "Peru's CAPITAL, of the") > .7
  assert likeness('capital of Peru', 'capital of Norway') > likeness('capital of Peru', 'Iron') == 0
  np.testing.assert_array_equal(amem.hashed_words('a b a'), amem.hashed_words('b a a'))
  assert np.abs(amem.hashed_words('a b a')).sum() == 3
  assert not amem.hashed_words('?!').any()


def test_what_the_hashed_words_find():
  script = [(A, ' Oslo: A city. Its airport is Gardermoen.'), (B, ' Cusco: Its country is Peru.'),
            ('<think>the airport of Oslo</think><search> Gardermoen</search>', ' Gardermoen: big.')]
  agent = by_hand.make(AMemAgent, 200, notes=1)
  assert by_hand.seen(agent, script)[2].startswith('<search> Rome</search>')
  assert '<search> Lima' not in by_hand.seen(agent, script)[2]
