"""A context as other people's servers take it: one text, or the messages of a conversation.

    context    instructions  questions | g0         i0    | g1         i1
    messages   system        user      | assistant  user  | assistant  user

`gj` is what turn j wrote and `ij` the information it got. Of a constant-memory agent there is but
the last of each; whatever agent it is, the kinds of its tokens say who speaks. The contents of the
messages, one after another, are the text, but for ChatML's markers.
"""

from collections.abc import Sequence
import itertools
import re

from mem1_jax.text import prompts
from mem1_jax.text.tokenizer import MarkedTokenizer, Tokenizer
from mem1_jax.types import Kind

SPEAKERS = {Kind.STATE: 'assistant', Kind.ACTION: 'assistant', Kind.INFO: 'user'}

# What tokenizers of servers may read as control tokens: ChatML, Llama, DeepSeek, Gemma, Mistral.
_CONTROL = re.compile(
    r'<(?=[|｜][^<>]{1,40}[|｜]>|(?:/?s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)'
    r'|\[(?=/?INST\])')


def with_markers(tokenizer: Tokenizer, style: str) -> Tokenizer:
  """A tokenizer that has the style's markers: this one, where it has them or needs none."""
  try:
    prompts.check_tokenizer(tokenizer, style)
  except ValueError:
    return MarkedTokenizer(tokenizer, prompts.MARKERS)
  return tokenizer


def spell(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
  """The text of ids, in which the markers that we set are spelled, and nothing else is one.

  Servers look for control tokens in all that they are sent: `<|im_end|>` in a document would end
  the turn, so it becomes `(|im_end|>`. Other control ids are nothing.
  """
  spelled = {marker: tokenizer.encode(marker) for marker in prompts.MARKERS}
  markers = {some[0]: marker for marker, some in spelled.items() if len(some) == 1}
  parts = []
  for marker, run in itertools.groupby(ids, markers.get):
    run = list(run)
    parts.append(marker * len(run) if marker else _CONTROL.sub('(', tokenizer.decode(run)))
  return ''.join(parts)


def messages(tokenizer: Tokenizer, ids: Sequence[int], kinds: Sequence[Kind],
             domain: str) -> list[dict[str, str]]:
  """The conversation that a context is, as chat servers take it; nobody speaks twice in a row."""
  num_prompt = next((i for i, kind in enumerate(kinds) if kind is not Kind.PROMPT), len(ids))
  parts = _opening(spell(tokenizer, ids[:num_prompt]), domain)
  pairs = list(zip(ids, kinds))[num_prompt:]
  for role, run in itertools.groupby(pairs, lambda pair: SPEAKERS[pair[1]]):
    parts.append((role, spell(tokenizer, [i for i, _ in run])))
  said = []
  for role, content in parts:
    if said and said[-1]['role'] == role:
      said[-1]['content'] += content
    elif content:
      said.append({'role': role, 'content': content})
  return said


def _opening(text: str, domain: str) -> list[tuple[str, str]]:
  """(role, content) of what stands before the first turn: instructions, then questions."""
  start, end = prompts.MARKERS
  if start in text:  # set by us: in questions it could not stand
    spoken = (part.partition('\n') for part in text.split(start)[1:])
    return [(role, content.partition(end)[0]) for role, _, content in spoken]
  *_, heading, _ = prompts.DOMAINS[domain]
  instructions, found, questions = text.partition(f'\n{heading}')
  return [('system', f'{instructions}\n'), ('user', heading + questions)] if found else [
      ('user', text)]
