"""Short labels that name the questions of a task, each one token of the atlas tokenizer.

A label is two letters in brackets, `[kf]`. They are drawn at random by the
composer: an agent that never saw more than two questions at once has still
seen every label.
"""

import itertools

NUM_LABELS = 192
_LETTERS = 'bcdfghjklmnprstvxz'  # no vowels: a label is never a word


def _labels() -> tuple[str, ...]:
  """Every letter pair in turn, stepped through so that all letters occur evenly."""
  pairs = [a + b for a, b in itertools.product(_LETTERS, repeat=2) if a != b]  # 18 · 17 = 306
  stride = 97  # coprime with 306, so no pair repeats
  return tuple(f'[{pairs[(i * stride) % len(pairs)]}]' for i in range(NUM_LABELS))


LABELS: tuple[str, ...] = _labels()
