"""Suites: their cells, what the command line overrides, sets that are missing, all agents in one."""

import json

import pytest

from mem1_jax import configs, main, suites

TINY = ['--config.compilation_cache=', '--config.rollout.num_slots=4', '--config.eval.num_slots=4',
        '--config.rollout.question_capacity=128', '--config.rollout.context_capacity=320',
        '--config.rollout.turn_capacity=128', '--config.rollout.append_capacity=1024']


def loaded(name, *overrides, data=''):
  suite = suites.find(name, data)
  return [configs.load(suite.config, [*part.overrides, *overrides]) for part in suite.parts]


def write_sets(folder, **sizes):
  """FlashRAG's files of these sets, with as many questions about countries of the atlas."""
  known = [('What is the capital of Norway?', 'Oslo'), ('What is the capital of Japan?', 'Tokyo'),
           ('What is the capital of Peru?', 'Lima')]
  for name, size in sizes.items():
    name, split = name.rsplit('_', 1)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f'{split}.jsonl').write_text(''.join(
        json.dumps({'id': f'{name}_{i}', 'question': text, 'golden_answers': [answer]}) + '\n'
        for i, (text, answer) in enumerate(known[:size])))


def test_what_the_suites_are():
  many, = loaded('multi_objective')
  assert many.eval.objectives == (1, 2, 3, 4, 6, 8, 16, 32) and many.env.turns == 'slack'
  web, = loaded('web')
  assert (web.domain, web.init, web.eval.objectives) == ('web', 'atlas/web', (1, 2))
  shop, = loaded('webshop')
  assert (shop.domain, shop.init, shop.eval.objectives) == ('webshop', 'atlas/webshop', (1,))
  assert loaded('')[0].to_dict() == configs.load('atlas', []).to_dict()


def test_the_command_line_wins():
  config, = loaded('multi_objective', '--config.eval.objectives=2', '--config.env.turns=paper')
  assert config.eval.objectives == (2,) and config.env.turns == 'paper'


def test_the_single_hop_suite_takes_test_before_dev_and_says_what_is_missing(tmp_path):
  write_sets(tmp_path, nq_test=3, nq_dev=1, hotpotqa_dev=2)
  suite = suites.find('single_hop_suite', str(tmp_path))
  assert [part.folder for part in suite.parts] == ['nq', 'hotpotqa']
  assert [config.data.source for config in loaded('single_hop_suite', data=str(tmp_path))] == [
      f'jsonl:{tmp_path}/nq/test.jsonl', f'jsonl:{tmp_path}/hotpotqa/dev.jsonl']
  assert len(suite.missing) == 5
  assert suite.missing[0] == ('triviaqa is not there: neither '
                              f'{tmp_path}/triviaqa/test.jsonl nor {tmp_path}/triviaqa/dev.jsonl')
  with pytest.raises(ValueError, match='data.source is what tells the parts'):
    suites.check(suite, ['--config.data.source=atlas'])
  suites.check(suite, ['--config.eval.tasks=3'])


@pytest.mark.parametrize('name, data, error, message', [
    ('single', '', ValueError, "--suite='single' is unknown; choose one of .*'single_hop_suite'"),
    ('web', 'x', ValueError, '--data=x is for --suite=single_hop_suite'),
    ('single_hop_suite', '', ValueError, 'say where by --data=FOLDER'),
    ('single_hop_suite', '/nowhere', FileNotFoundError,
     '(?s)none of nq, triviaqa.*bamboogle is not there: neither /nowhere/bamboogle/test.jsonl')])
def test_what_is_refused(name, data, error, message):
  with pytest.raises(error, match=message):
    suites.find(name, data)


def test_a_mean_over_sets_is_over_sets_and_says_what_is_missing():
  cell = {'em': 1.0, 'em_per_question': 1.0, 'f1': 1.0, 'reward': 1.0, 'peak_tokens': 10.0,
          'turns': 2.0, 'episodes': 3}
  suite = suites.Suite(parts=(suites.Part('nq'), suites.Part('popqa')), missing=('musique: no',))
  shown = suites.shown(suite, [{'1': cell}, {'1': cell | {'em': 0.0, 'episodes': 100}}])
  *_, nq, popqa, mean, missing = shown.splitlines()
  assert nq.split()[:3] == ['nq', '1', '1.000'] and popqa.split()[-1] == '100'
  assert mean.startswith('mean of 2 sets') and ' 0.500 ' in mean and missing == 'musique: no'


def test_the_single_hop_suite_end_to_end(tmp_path, capsys):
  """Sets of 3 and 2 questions: each is asked once, though more tasks are asked for."""
  write_sets(tmp_path / 'data', nq_test=3, popqa_test=2)
  main.run(['evaluate', '--suite=single_hop_suite', f'--data={tmp_path}/data',
            f'--workdir={tmp_path}/run', '--config.env.documents=atlas', *TINY])
  nq, popqa = (json.loads((tmp_path / 'run' / name / 'mem1-1.json').read_text())
               for name in ('nq', 'popqa'))
  assert (nq['episodes'], popqa['episodes']) == (3, 2) and nq['em'] == popqa['em'] == 1.0
  said = capsys.readouterr()
  assert 'musique is not there' in said.err and 'musique is not there' in said.out
  assert 'mean of 2 sets' in said.out
  main.run(['report', f'{tmp_path}/run', f'--out={tmp_path}/report'])
  assert '2 cells' in capsys.readouterr().out


def test_a_suite_needs_documents_to_search(tmp_path, capsys):
  write_sets(tmp_path, nq_test=1)
  with pytest.raises(SystemExit):
    main.run(['evaluate', '--suite=single_hop_suite', f'--data={tmp_path}',
              f'--workdir={tmp_path}/run', *TINY])
  assert 'env.documents' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('name, size', [('web', 2), ('webshop', 1)])
def test_the_other_domains_are_one_command(name, size, tmp_path, capsys):
  main.run(['evaluate', f'--suite={name}', f'--workdir={tmp_path}', '--config.eval.tasks=2',
            '--config.compilation_cache=', '--config.eval.num_slots=2',
            f'--config.eval.objectives={size}'])
  cell = json.loads((tmp_path / f'mem1-{size}.json').read_text())
  assert cell['episodes'] == 2 and cell['faults'] == 0
  assert 'reward' in capsys.readouterr().out
