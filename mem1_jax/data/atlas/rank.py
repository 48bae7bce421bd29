"""A few lines of BM25, so that the builder can drop titles that a search cannot tell apart."""

import collections
import math
import re


def words(text: str) -> list[str]:
  """Lower-case runs of two or more letters or digits, as bm25s cuts them."""
  return re.findall(r'[a-z0-9]{2,}', text.lower())


TITLE_WEIGHT = 3  # times that a title's words count


def not_first(passages, k1: float = 1.2, b: float = 0.75) -> list[str]:
  """Titles whose own passage does not strictly win a search for the title."""
  bags = [collections.Counter(words(p.title) * TITLE_WEIGHT + words(p.text)) for p in passages]
  lengths = [sum(bag.values()) for bag in bags]
  mean = sum(lengths) / len(lengths)
  postings = collections.defaultdict(list)
  for i, bag in enumerate(bags):
    for word in sorted(bag):
      postings[word].append(i)
  lost = []
  for i, passage in enumerate(passages):
    score = collections.defaultdict(float)
    for word in words(passage.title):
      hits = postings[word]
      idf = math.log(1 + (len(bags) - len(hits) + 0.5) / (len(hits) + 0.5))
      for j in hits:
        tf = bags[j][word]
        score[j] += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[j] / mean))
    best_other = max((s for j, s in score.items() if j != i), default=0.0)
    if score[i] <= best_other * (1 + 1e-6):
      lost.append(passage.title)
  return lost
