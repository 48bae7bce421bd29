"""Typed questions become tasks, and a session answers and ends."""

import pytest
from rich.console import Console

from mem1_jax import chat
from tests.tiny import tiny_config


def test_a_line_is_split_into_questions_with_different_labels():
  task = chat.to_task('What is the capital of Norway?; Find the symbol of Iron.', 3)
  assert [q.text for q in task.questions] == ['What is the capital of Norway?',
                                              'Find the symbol of Iron.']
  assert len(set(task.labels)) == 2 and task.hops == 6


def test_an_empty_line_ends_and_too_many_questions_are_refused():
  assert chat.to_task('  ; ', 0) is None
  with pytest.raises(ValueError, match='ask fewer'):
    chat.to_task('?;' * 200, 0)


def test_a_session_shows_turns_and_survives_the_end_of_input(monkeypatch, capsys):
  lines = iter(['What is the capital of [Norway]?'])

  def read(self, prompt):
    del self, prompt
    try:
      return next(lines)
    except StopIteration:
      raise EOFError from None

  monkeypatch.setattr(Console, 'input', read)
  chat.run(tiny_config())
  shown = capsys.readouterr().out
  assert 'turn 1' in shown and '[Norway]' in shown


def test_a_shop_has_no_questions_of_your_own():
  config = tiny_config()
  config.domain = 'webshop'
  with pytest.raises(ValueError, match='in a shop goals are of its products'):
    chat.run(config)
