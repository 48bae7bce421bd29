"""A conversation with an agent: your questions, its turns, its answers."""

from typing import Any

from rich.console import Console

from mem1_jax import assemble, domains
from mem1_jax.data.atlas.labels import LABELS
from mem1_jax.env.rewards import score_answer
from mem1_jax.evaluate import greedy, record
from mem1_jax.report import console as console_report
from mem1_jax.rollout.collect import Collector
from mem1_jax.rollout.slots import Job
from mem1_jax.types import Question, Task

_HELP = """\
Type one or more questions, separated by `;`, and press return; an empty line ends.
The embedded world knows countries, cities, airports and elements: try
  What is the capital of Norway?; Find the symbol of Iron."""
_HOPS = 3  # look-ups allowed per question, since nobody says how many it needs


def to_task(line: str, number: int) -> Task | None:
  """The questions of a typed line as a task without gold answers; None for an empty line."""
  texts = [text.strip() for text in line.split(';') if text.strip()]
  if not texts:
    return None
  if len(texts) > len(LABELS):
    raise ValueError(f'{len(texts)} questions are more than the {len(LABELS)} labels; ask fewer.')
  questions = tuple(Question(f'chat/{number}/{i}', text, ('',), _HOPS)
                    for i, text in enumerate(texts))
  step = len(LABELS) // len(texts)
  labels = tuple(LABELS[(number + i * step) % len(LABELS)] for i in range(len(texts)))
  return Task(f'chat-{number}', questions, labels, 'chat')


def run(config: Any):
  """Reads lines from the terminal until an empty one or the end of input.

  Raises:
    ValueError: a domain without questions.
  """
  if config.domain == 'webshop':
    raise ValueError('chat takes questions of your own; in a shop goals are of its products: see '
                     '`tasks`, `evaluate` and `inspect`')
  config.rollout.num_slots = 1
  out = Console()
  tokenizer = assemble.make_tokenizer(config)
  policy = assemble.make_policy(config, tokenizer)
  params = assemble.acting_params(config, policy)
  agent = assemble.make_agent(config, tokenizer)
  engine = assemble.make_engine(config, policy, tokenizer, agent.is_append_only)
  collector = Collector(engine, agent, domains.make_environment(config).start,
                        tokenizer.token_bytes, config.seed, has_gaps=False,
                        reply_timeout_s=config.rollout.reply_timeout)
  out.print(_HELP, highlight=False, markup=False)
  number = 0
  while True:
    try:
      task = to_task(out.input('> '), number)
    except EOFError:
      task = None
    if task is None:
      return
    options = greedy(config, len(task.questions))
    (trajectory,), _ = collector.run(params, [Job(task, number)], options)
    shown = record(trajectory, tokenizer)
    shown['score'] = {name: shown['score'][name] for name in
                      ('turns', 'searches', 'peak_tokens_with_question', 'seconds')}
    console_report.show(shown, to=out)
    if trajectory.answer is not None:
      for question, given in zip(task.questions, score_answer(trajectory.answer, task).per_question):
        out.print(f'{question.text} → {given.answer}', markup=False, highlight=False)
    else:
      out.print('No answer: the turns ran out.')
    number += 1
