"""Trajectories made up for tests: real in shape, now and then wrong, the same each time."""

import json
import pathlib
import random

CITIES = ('Oslo', 'Lima', 'Grimsby', 'Kyoto', 'Accra', 'Turin', 'Hobart', 'Quito', 'Riga', 'Cork')
PLACES = ('Humberside', 'Suvarnabhumi', 'Lobatse', 'Philipsburg', 'Jurong', 'Wanaka', 'Ostrava')
FILLER = 'It opened in {year}, lies {height} feet high and serves {count} towns of the region. '


def trajectory(rng: random.Random, objectives: int = 2, turns_each: int = 2,
               is_append_only: bool = False) -> dict:
  """One record (report/console.py): each question is searched `turns_each` times, then answered."""
  labels = [''.join(rng.sample('bcdfghjkmnprstvz', 2)) for _ in range(objectives)]
  places = [f'{rng.choice(PLACES)} {rng.randint(2, 99)}' for _ in labels]
  golds = [rng.choice(CITIES) for _ in labels]
  prompt = 'Answer the questions in order.\n' + ''.join(
      f'[{label}] Name the city of {place} Airport.\n' for label, place in zip(labels, places))
  questions = [{'label': f'[{label}]', 'text': f'Name the city of {place} Airport.',
                'answers': [gold], 'id': f'made/{label}'}
               for label, place, gold in zip(labels, places, golds)]
  turns, read, memory, peak = [], '', '', 0
  given = [gold if rng.random() < 0.8 else rng.choice(CITIES) for gold in golds]
  steps = [(i, k) for i in range(objectives) for k in range(turns_each)]
  for j in range(len(steps) + 1):
    is_last = j == len(steps)
    if is_last:
      kind, said = 'answer', '; '.join(given)
      wrote = f'<think>{memory} All are known.</think><answer> {said}</answer>'
      information = ''
    else:
      i, k = steps[j]
      kind, said = 'search', f'{places[i]} Airport {"city" if k else ""}'.strip()
      memory += f' [{labels[i]}]: {given[i]};' if k == turns_each - 1 else ''
      wrote = f'<think>{memory} Look for [{labels[i]}].</think><search> {said}</search>'
      filler = FILLER.format(year=rng.randint(1900, 2020), height=rng.randint(1, 9999),
                             count=rng.randint(2, 40)) * 3
      information = (f'<information> {len(steps) - j} turns left. {places[i]} Airport: An airport. '
                     f'{filler}Its city is {golds[i]}.</information>')
    saw = prompt + read
    peak = max(peak, (len(saw) + len(wrote)) // 4)
    keeps_all = is_append_only or is_last
    turns.append({'saw': saw, 'wrote': wrote, 'information': information,
                  'action': {'kind': kind, 'text': said},
                  'tokens_in_context': (len(saw) + len(wrote)) // 4,
                  'dropped': '' if keeps_all else read, 'outage': ''})
    read = (read if is_append_only else '') + wrote + information
  em = float(sum(a == b for a, b in zip(given, golds)))
  return {
      'task': {'id': f'made-{rng.randint(0, 10**6)}', 'questions': questions}, 'turns': turns,
      'answer': '; '.join(given), 'fault': '',
      'score': {'em': em, 'em_per_question': em / objectives, 'f1': em, 'reward': em,
                'answered': 1.0, 'peak_tokens': peak - len(prompt) // 4,
                'peak_tokens_with_question': peak, 'dependency': 1e3 * peak, 'turns': len(turns),
                'searches': len(steps), 'search_outages': 0, 'generated_tokens': 60 * len(turns),
                'seconds': 0.1 * len(turns)},
  }


def trajectories(count: int, objectives: int = 2, seed: int = 0, **kwargs) -> list[dict]:
  """`count` records; the third ended in a fault, the fourth without an answer."""
  rng = random.Random(seed)
  made = [trajectory(rng, objectives, **kwargs) for _ in range(count)]
  zero = {'em': 0.0, 'em_per_question': 0.0, 'f1': 0.0, 'reward': 0.0, 'answered': 0.0}
  for index, fault in ((2, 'ConnectionError: the world is gone'), (3, '')):
    if index < count:
      made[index] |= {'answer': None, 'fault': fault,
                      'score': made[index]['score'] | zero}
  return made


def write_cell(folder: pathlib.Path, agent: str, records: list[dict]):
  """NAME-N.jsonl and NAME-N.json, as evaluation writes them."""
  folder.mkdir(parents=True, exist_ok=True)
  stem = f'{agent}-{len(records[0]["task"]["questions"])}'
  (folder / f'{stem}.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in records))
  scores = [record['score'] for record in records]
  means = {name: sum(s[name] for s in scores) / len(scores) for name in scores[0]}
  (folder / f'{stem}.json').write_text(json.dumps(means | {'episodes': len(records)}))


def write_run(folder: pathlib.Path, count: int = 20, sizes: tuple[int, ...] = (1, 2, 4, 8)):
  """A run folder with two agents and a training curve."""
  rng = random.Random(1)
  for n in sizes:
    write_cell(folder / 'evaluation', 'mem1_ppo', trajectories(count, n, seed=n))
    write_cell(folder / 'evaluation', 'full_context',
               trajectories(count, n, seed=n, is_append_only=True))
  (folder / 'ppo').mkdir(parents=True, exist_ok=True)
  lines = [{'step': i, 'time': 0.0, 'reward': 1 + 0.8 * i / 40 + rng.gauss(0, 0.05),
            'kl': 1e-3 * i / 40, 'entropy': 0.5 - i / 100, 'explained_variance': None}
           for i in range(1, 41)]
  (folder / 'ppo' / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
  (folder / 'ppo' / 'run.json').write_text(json.dumps({'seed': 3, 'starts': [
      {'commit': 'abcdef0123456789', 'machine': {'system': 'Linux', 'cpu_cores': 2}}]}))


RELEASE_PROMPT = ('You will answer multiple complex questions.\nAnswer the following questions: '
                  'capital of Peru?; capital of Norway?')


def release_row(**changes) -> dict:
  """A line as the release's generate_rollout.py writes it: two questions, two turns."""
  first = '<think>Look up Peru.</think>\n<search>capital of Peru</search>'
  last = '<think>Lima, Oslo.</think>\n<answer>Lima; Oslo</answer>'
  return {
      'q': RELEASE_PROMPT, 't0': '<think>Look up Peru.</think>', 'r0': first,
      'i0': '<information>\n[HINT]You have 5 turns left.[/HINT]\nDoc 1(Title: "Peru") Its '
            'capital is Lima.\n\n</information>',
      't1': '<think>Lima, Oslo.</think>', 'r1': last, 'index': 7, 'hash': 'ab12',
      'Golden_answer': [['Lima'], ['Oslo', 'Christiania']], 'Exact_match': 2,
      'Model_estimated_match': 1,
  } | changes  # fmt: skip
