"""How much of what a question needs is found."""

from collections.abc import Sequence

from mem1_jax import types


def gold_recall(found: Sequence[Sequence[types.Passage]], gold: Sequence[set[str]],
                top_k: int) -> float:
  """The mean over questions of the share of gold titles among the first `top_k` passages.

  Args:
    found: passages of each question, best first, at least `top_k` where there are so many.
    gold: titles that each question needs, at least one.

  Raises:
    ValueError: there is no question, or one needs nothing.
  """
  if not gold or not all(gold):
    raise ValueError(f'{len(gold)} questions, {sum(not titles for titles in gold)} of them without '
                     'gold titles; give at least 1, each with its titles')
  shares = [len(titles & {passage.title for passage in passages[:top_k]}) / len(titles)
            for passages, titles in zip(found, gold, strict=True)]
  return sum(shares) / len(shares)
