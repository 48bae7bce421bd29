"""Each kind of drill does what its name says, over small lists and the real atlas."""

import re

import numpy as np
import pytest

from mem1_jax import types
from mem1_jax.data import drills, sources
from mem1_jax.data.atlas.labels import LABELS

DOCUMENTS = (
    *(types.Passage(f'Town{i}', f'Its river is River{i}. Its mayor is M{i}.') for i in range(6)),
    *(types.Passage(f'Land{i}', f'Its capital is Town{i}.') for i in range(6)))
QUESTIONS = tuple(
    types.Question(f'q{i}', f'Mayor of the capital of Land{i}?', (f'M{i}',), 2,
                   (f'Land{i}', f'Town{i}'), (f'Town{i}', f'M{i}'), ('capital', 'mayor'))
    for i in range(6))
MAKER = drills.DrillMaker(DOCUMENTS, QUESTIONS, ('[a]', '[b]', '[c]', '[d]'), 0, 3, 0.0, 0.0)
ENTRY = re.compile(r'>(\[\w+\]): ([^;\[]+);')


def made(name, maker=MAKER, count=500):
  found = [d for d in map(maker.drill, range(count)) if d.name == name]
  assert len(found) > count / 40
  return found


def test_a_drill_is_a_function_of_seed_and_index():
  again = drills.DrillMaker(DOCUMENTS, QUESTIONS, MAKER.labels, 0, 3, 0.0, 0.0)
  assert [MAKER.drill(i) for i in (7, 3)] == [again.drill(i) for i in (7, 3)]
  other = drills.DrillMaker(DOCUMENTS, QUESTIONS, MAKER.labels, 1, 3, 0.0, 0.0)
  assert [MAKER.drill(i) for i in range(9)] != [other.drill(i) for i in range(9)]


def test_what_follows_a_target_is_left_open_and_no_drill_has_a_tag():
  for index in range(300):
    drill = MAKER.drill(index)
    assert drill.target == drill.target.rstrip() and drill.target and drill.prompt
    assert '<' not in drill.prompt + drill.target


def test_echoes():
  titles, labels = {p.title for p in DOCUMENTS}, set(MAKER.labels)
  sentences = {p.text.split('. ')[0].rstrip('.') + '.' for p in DOCUMENTS}
  num_sentences = 0
  for drill in made('echo'):
    assert drill.target + '\n' == drill.prompt
    parts = re.findall(r'\[\w+\]| Its [^.]+\.| [^\[ \n]+', drill.prompt)
    assert ''.join(parts) + '\n' == drill.prompt
    assert {part.strip() for part in parts} <= titles | labels | sentences
    num_sentences += len(sentences.intersection(part.strip() for part in parts))
  assert num_sentences


def test_lists():
  for drill in made('list'):
    assert drill.target + '\n' == drill.prompt
    entries = ENTRY.findall(drill.target)
    assert drill.target == ''.join(types.noted(entries)) + '>.'
    assert drill.target.startswith('*>') and drill.target.count('*') == 1
    assert len({label for label, _ in entries}) == len(entries)
  assert {len(ENTRY.findall(d.prompt)) for d in made('list')} == {1, 2, 3}


def test_look_ups():
  for drill in made('look-up'):
    entries = dict(ENTRY.findall(drill.prompt))
    asked = drill.prompt.splitlines()[-1]
    lines = drill.target.splitlines()
    assert asked == ' '.join(f'?{line[:3]}' for line in lines)
    assert all(entries[line[:3]] == line[3:].removeprefix(': ') for line in lines)


def test_next():
  for drill in made('next'):
    links, *lines, asked = drill.prompt.splitlines()
    following = dict(pair.split('>') for pair in links.split())
    assert set(following) == {'*', *(line[:3] for line in lines)}
    label, seen = '*', []
    while (label := following[label]) != '.':
      seen.append(label)
    assert len(seen) == len(lines)  # one way from start to end
    found = [pair.split('>') for pair in drill.target.splitlines()]
    assert asked == ' '.join(f'?{a}' for a, _ in found)
    assert all(following[a] == b for a, b in found)


def test_clutter_leaves_the_way_through_the_task():
  maker = drills.DrillMaker(sources.atlas_documents('train'), sources.load_atlas('train'), LABELS,
                            0, 24, 0.3, 0.5)
  task = types.Task('t', tuple(maker.questions[:2]), LABELS[:2], 'test')
  sizes = set()
  for seed in range(40):
    shown = drills.cluttered(task, np.random.default_rng(seed), maker).shown
    following, texts = dict(shown.links), dict(shown.lines)
    assert [following[label] for label in ('*', *task.labels)] == [*task.labels, '.']
    assert [texts[label] for label in task.labels] == [q.text for q in task.questions]
    assert len(texts) == len(shown.lines) <= 24 and set(following) == {'*', *texts}
    sizes.add(len(texts))
  assert min(sizes) == 2 and max(sizes) > 10


def test_recall():
  for drill in made('recall'):
    links, *lines, asked = drill.prompt.splitlines()
    texts = {line[:3]: line[4:] for line in lines}
    found = drill.target.splitlines()
    assert asked == ' '.join(f'?{line.split(">")[0]}' for line in found)
    for line in found:
      pair, _, left = line.partition(' ')
      assert pair in links.split()
      label = pair.split('>')[1]
      expected = next((f'{q.text} = {q.left(0)}' for q in QUESTIONS
                       if q.text == texts.get(label)), '')
      assert left == expected and bool(left) == (label != '.')


def test_advance_carries_a_list_on_by_one_step():
  whole, tails, ends, lost, begun = 0, 0, 0, 0, 0
  for drill in made('advance'):
    links = drill.prompt.splitlines()[0].split()
    *_, line, document, cue = drill.prompt.splitlines()
    before, known, label, now = re.fullmatch(r'([^*]*)(\*.*>|\*>)(\[\w\]) ([^;]*)', line).groups()
    now = now.split(' = ')[-1]  # mayor of capital @, or mayor @
    if now == 'mayor @':  # one look-up of this question is behind it
      assert re.fullmatch(r' capital is Town\d\.', before)
    elif known != '*>':  # the last question is answered
      answered, value = ENTRY.findall(known)[-1]
      assert before == f' mayor is {value}.{answered}: {value};'
    else:
      assert not before
      begun += 1
    relation = now.removesuffix(' @').split(' of ')[-1]
    value = types.value_in(document, relation) or 'unknown'
    said, entry = f' {relation} is {value}.', f'{label}: {value};'
    is_found = ' of ' not in now or value == 'unknown'
    is_end = is_found and f'{label}>.' in links
    if is_end:  # the list is not written again
      ends += 1
    elif cue == '=':  # the entry where it was read, and where it belongs
      said, whole = said + entry * is_found + known, whole + 1
    else:
      tails += 1
    assert drill.target.startswith(said)
    target = drill.target.removeprefix(said)
    if value == 'unknown':
      assert document == ' No results.' or f' {relation} is ' not in document
      lost += 1
    if is_end:
      assert target == f'{entry}>.'
    elif not is_found:
      assert target == f'{label} mayor @'
    else:
      following, rest = re.fullmatch(re.escape(entry) + r'>(\[\w\])(.*)', target).groups()
      assert f'{label}>{following}' in links and rest
  assert whole > tails > 0 and ends > 0 and lost > 0 and begun > 0


def test_answers_are_the_list_that_has_come_to_its_end():
  lengths = set()
  for drill in made('answer'):
    known, entry = re.search(
        r'(\*>(?:\[.*>)?)\[\w\] [^\n]*\n[^\n]*\n[=+] [^[]*(\[\w\]: .*;)>\.[^.]*$',
        drill.prompt).groups()
    assert drill.target == f' {known}{entry}>.'
    assert len(ENTRY.findall(drill.target)) == len(drill.prompt.splitlines()[0].split()) - 1
    lengths.add(len(ENTRY.findall(drill.target)))
  assert lengths == {1, 2, 3}


def test_seek_asks_where_to_look_after_a_list_carried_on():
  begun, gone_on, short = 0, 0, 0
  for drill in made('seek'):
    document, cue, value, carried = re.fullmatch(
        r'.*\n([^\n]*)\n([=+]) \w+ is (\w+)\.(.*\S @)[^@]*', drill.prompt, re.S).groups()
    assert f' is {value}.' in document or value == 'unknown'
    following = re.search(r'Mayor of the capital of (Land\d)\? = mayor of capital @$', carried)
    if following:  # the next question has been taken up
      assert drill.target == f' {following[1]}'
      begun += 1
    else:
      assert carried.endswith('] mayor @') and drill.target == f' {value}'
      gone_on += 1
    assert ('*>' in carried) == (cue == '=')  # after + only what is new
    short += cue == '+'
  assert begun and gone_on and 0 < short < begun + gone_on


def test_read():
  texts = {q.text: q for q in QUESTIONS}
  for drill in made('read'):
    asked, = [q for text, q in texts.items() if text in drill.prompt]
    town = asked.chain[-1]
    assert drill.target == (f' mayor of capital @; capital is {town}.'
                            f' mayor @; mayor is {asked.found[-1]}.')
    assert f' {town}: Its river is' in drill.prompt
    assert drill.prompt.endswith('\n=') and drill.target.startswith(' ')
  assert {d.prompt.startswith('Mayor') for d in made('read')} == {True, False}


def test_documents():
  known = {f' {p.title}: {p.text}' for p in DOCUMENTS}
  for drill in made('documents'):
    lines = (drill.prompt + drill.target).splitlines()
    assert 2 <= len(lines) <= 4 and set(lines) <= known and len(set(lines)) == len(lines)


def test_scattered_lists_keep_their_entries():
  maker = drills.DrillMaker(DOCUMENTS, QUESTIONS, MAKER.labels, 0, 3, 1.0, 0.0)
  found = made('list', maker)
  for drill in found:
    assert ENTRY.findall(drill.prompt) == ENTRY.findall(drill.target)
    assert drill.prompt.endswith('\n>.\n') or '\n>.\n ' in drill.prompt
  assert all(': Its ' in drill.prompt for drill in found)


def test_as_many_entries_as_labels():
  maker = drills.DrillMaker(DOCUMENTS, QUESTIONS, ('[a]', '[b]', '[c]'), 0, 3, 0.0, 0.0)
  most = max(len(ENTRY.findall(d.target)) for d in made('list', maker))
  assert most == 3


@pytest.mark.parametrize('most', [1, 5])
def test_a_list_too_long_for_the_labels(most):
  with pytest.raises(ValueError, match=rf'max_entries {most} must lie in \[2, 4\]'):
    drills.DrillMaker(DOCUMENTS, QUESTIONS, MAKER.labels, 0, most, 0.0, 0.0)


def test_the_atlas():
  maker = drills.DrillMaker(sources.atlas_documents('train'), sources.load_atlas('train'), LABELS,
                            0, 24, 0.3, 0.5)
  names = {maker.drill(i).name for i in range(200)}
  assert names == {
      'echo', 'list', 'look-up', 'next', 'recall', 'advance', 'seek', 'answer', 'read', 'documents'}
